"""The columns of a table of predictions: the input's as they are, and what the model adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sgmft.data.tables import open_table
from sgmft.data.tables.reading import list_tables
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction


@dataclass(frozen=True)
class OutputColumns:
    """The columns of a table of predictions."""

    renamed: dict[str, str]  # name of each column of the input, and the name under which it is kept
    added: list[str]  # the columns that follow
    labels: list[str]  # in the order of the probabilities

    @classmethod
    def of(cls, columns: Iterable[str], labels: Sequence[str], rules: Abstention) -> OutputColumns:
        """Return those for an input with these columns, each named once or more often."""
        added = ["label", "probability", *probability_columns(labels)]
        added += ["set"] if rules.coverage is not None else []
        added += ["typicality"] if rules.reject is not None else []
        added += ["abstained"] if rules != Abstention() else []
        added.append("error")
        return cls(renamed_columns(list(dict.fromkeys(columns)), added), added, list(labels))

    @property
    def columns(self) -> list[str]:
        """All names, in order."""
        return [*self.renamed.values(), *self.added]

    def row(self, prediction: Prediction) -> dict[str, Any]:
        """Return the row of one prediction."""
        return (
            {self.renamed[key]: value for key, value in prediction.post.row.items()}
            | prediction_columns(prediction, self.labels)
            | {key: x for key, x in abstention_columns(prediction).items() if key in self.added}
        )


def columns_of(table: str) -> Iterator[str]:
    """Yield the columns of a table, also those that only some rows have, some more than once."""
    for part in list_tables(table):
        raw = open_table(part)
        yield from raw.columns or ()
        for row in raw.rows:
            yield from row.values


def renamed_columns(columns: Sequence[str], added: Sequence[str]) -> dict[str, str]:
    """Return the name under which each column of the input is kept, none of them twice."""
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in added or (name != column and name in columns) or name in names.values():
            name = f"input_{name}"
        names[column] = name
    return names


def probability_columns(labels: Sequence[str]) -> list[str]:
    """Return the names of the columns of probabilities."""
    return [f"p_{label}" for label in labels]


def prediction_columns(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """Return the columns that a prediction adds to a row."""
    values: dict[str, Any] = {
        "label": prediction.label,
        "probability": prediction.probability,
        "error": prediction.error,
    }
    if prediction.probabilities is not None:
        probs = prediction.probabilities.tolist()
        values |= {f"p_{label}": p for label, p in zip(labels, probs, strict=True)}
    return values


def abstention_columns(prediction: Prediction) -> dict[str, Any]:
    """Return the columns that rules of abstention add to a row."""
    members = prediction.label_set
    return {
        "set": None if members is None else list(members),
        "typicality": prediction.typicality,
        "abstained": prediction.abstained,
    }
