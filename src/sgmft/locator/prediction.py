"""Predictions of a trained model, post by post, and what can make them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import compress
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sgmft.data.frames import Folder, Names, iter_given
from sgmft.data.posts import Post
from sgmft.errors import join_messages
from sgmft.features.encode import Chunk
from sgmft.locator.abstention import Abstention, HeldOutProbabilities, entropy
from sgmft.utils.runtime import progress_bar

SHARPNESS = 6.0  # of the weights of windows; 0 would be their mean
TINY = 1e-6  # of probabilities whose logarithm is taken


class Prediction(NamedTuple):
    """The prediction for one post."""

    post: Post  # the post, with its `error` where it could not be read
    label: str | None  # None for a post with an error, or where the model abstains
    probabilities: NDArray[np.float32] | None  # (K,) in the labels' order; None with an error
    guidance: tuple[float, float] | None  # relative entropies of P^m and P^e; NaN without guidance
    label_set: tuple[str, ...] | None = None  # labels of the prediction set; None without coverage
    typicality: float | None = None  # see `HeldOutProbabilities`; None where posts are not rejected
    abstained: str | None = None  # why a post that could be read has no label
    parts: int = 0  # what the prediction was made from, a place in `sgmft.features.features.PARTS`
    key: str = ""  # content key of the post; "" for one with an error
    more: Mapping[str, Any] | None = None  # of further columns

    @property
    def error(self) -> str | None:
        """Why the post could not be read."""
        return self.post.error

    @property
    def probability(self) -> float | None:
        """The probability of the most probable label, given or not."""
        return None if self.probabilities is None else float(self.probabilities.max())


Predictions = Iterator[Prediction]


class PredictionBatch(NamedTuple):
    """A chunk, and what was predicted for its B rows."""

    chunk: Chunk
    probs: NDArray[np.float32]  # (B, K), calibrated
    guidance: NDArray[np.float32]  # (B, 2) relative entropies of P^m and P^e; NaN without guidance
    parts: NDArray[np.int8]  # (B,) what they have


class SupportsPredictions(Protocol):
    """The part of a model that jobs on tables use; it may run in another process."""

    labels: list[str]

    @property
    def traits(self) -> Mapping[str, int]:
        """How many posts of the training have each trait, see `sgmft.locator.drift`."""

    def predictions(self, posts: Iterable[Post], abstain: Abstention | None = None) -> Predictions:
        """Yield predictions in the order of the posts."""


class Predictor(ABC):
    """A trained model: a `SemanticLocator`, or an exported one."""

    labels: list[str]  # the K labels, in the order of the probabilities
    held_out: HeldOutProbabilities  # of posts not learned from; perhaps none
    traits: Mapping[str, int] = MappingProxyType({})  # of the training's posts, see `locator.drift`
    columns: Names = None  # of what is given in place of posts, see `to_posts`
    root: Folder = None
    values: Mapping[str | None, Any] = MappingProxyType({})  # labels as `fit` got them, by text

    @abstractmethod
    def _predict_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        """Predict chunk by chunk; an untrained model raises at once, not at the first chunk."""

    def _read(self, posts: Any, labelled: bool = False) -> Iterator[Post]:
        optional = ("id", "user", "time", "weight", *(() if labelled else ("label",)))
        return iter_given(posts, self.columns, self.root, optional)

    def _shown(self, posts: Any, abstain: Abstention | None = None) -> Predictions:
        """Yield predictions under a progress bar."""
        counted = isinstance(posts, Sized) and not isinstance(posts, str | bytes | Mapping)
        with progress_bar("Predicting", len(posts) if counted else None) as bar:
            for prediction in self.predictions(posts, abstain):
                yield prediction
                bar.update()

    def predict(self, posts: Any, abstain: Abstention | None = None) -> Any:
        """Return the most probable label of each post; None where a post cannot be read.

        Args:
            posts: whatever `to_posts` takes. Labels are a list for a list of `Post`s, else an
                array, of the values that were given to `fit` as y.
            abstain: rules under which the label is None too; see `predictions` for why.
        """
        labels = [self.values.get(x.label, x.label) for x in self._shown(posts, abstain)]
        plain = isinstance(posts, Sequence) and all(isinstance(post, Post) for post in posts)
        return labels if plain else np.array(labels, None if labels else object)

    def predict_proba(self, posts: Any) -> NDArray[np.float32]:
        """Return probabilities (N, K) in the order of `labels`; NaN where a post cannot be read."""
        unknown = np.full(len(self.labels), np.nan, np.float32)
        found = (x.probabilities for x in self._shown(posts))
        probs = np.array([unknown if x is None else x for x in found], np.float32)
        return probs.reshape(-1, len(self.labels))

    def predict_frame(self, posts: Any, abstain: Abstention | None = None) -> Any:
        """Return label, probability, error, warning, and each label's probability, as columns.

        They are a frame of the kind that was given, with its index; a dict where it is none.
        """
        layout = OutputColumns.of((), self.labels, abstain or Abstention())
        bare = (x._replace(post=replace(x.post, row={})) for x in self._shown(posts, abstain))
        rows = [*map(layout.row, bare)]
        columns = {name: [row.get(name) for row in rows] for name in layout.added}
        columns["label"] = [self.values.get(x, x) for x in columns["label"]]
        frame = posts.to_frame() if hasattr(posts, "to_frame") else posts
        if hasattr(frame, "iloc"):  # pandas
            return frame.iloc[:, :0].assign(**columns)
        if hasattr(frame, "iter_rows"):  # polars
            return type(frame)(columns)
        ways = (getattr(frame, way, None) for way in ("from_dict", "from_pydict"))
        return next(filter(None, ways), dict)(columns)

    def predictions(self, posts: Any, abstain: Abstention | None = None) -> Predictions:
        """Yield predictions in the order of the posts, in memory bounded by one chunk of them.

        SgmftError where there is no model yet, or not enough held-out posts for `abstain`.
        """
        rules = abstain or Abstention()
        batches = self._predict_batches(self._read(posts))
        self.held_out.check(rules)
        for batch in batches:
            chunk, probs, guided, kinds = pool_windows(batch)
            found = [Prediction(post, None, None, None) for post in chunk.posts]
            others = guided.tolist(), kinds.tolist(), chunk.keys
            for i, row, (p_m, p_e), kind, key in zip(chunk.good, probs, *others, strict=True):
                found[i] = Prediction(chunk.posts[i], None, row, (p_m, p_e), parts=kind, key=key)
            yield from self.apply_abstention(found, rules)

    def apply_abstention(
        self, predictions: Iterable[Prediction], abstain: Abstention | None
    ) -> list[Prediction]:
        """Return the same predictions under other rules, without running the model again.

        SgmftError where there are not enough held-out posts for `abstain`.
        """
        predictions, rules = list(predictions), abstain or Abstention()
        self.held_out.check(rules)
        good = [p for p in predictions if p.probabilities is not None]
        probs = np.array([p.probabilities for p in good], np.float32)
        table = probs.reshape(len(good), len(self.labels))
        decisions = self.held_out.apply(table, rules, np.array([p.parts for p in good], np.int8))
        for i, p in enumerate(predictions):
            if p.probabilities is not None:
                members, typical, reason = next(decisions)
                label = None if reason else self.labels[int(p.probabilities.argmax())]
                chosen = None if members is None else tuple(compress(self.labels, members))
                p = p._replace(label=label, label_set=chosen, typicality=typical, abstained=reason)
                predictions[i] = p
        return predictions


@dataclass(frozen=True)
class OutputColumns:
    """The columns of a table of predictions."""

    renamed: dict[str, str]  # name of each column of the input, and the name under which it is kept
    added: list[str]  # the columns that follow
    labels: list[str]  # in the order of the probabilities
    short: bool = False  # whether probabilities have four digits

    @classmethod
    def of(
        cls, read: Iterable[str], labels: Sequence[str], rules: Abstention, more: Sequence[str] = ()
    ) -> Self:
        """Return those for an input with the columns `read`, each named once or more often."""
        added = ["label", "probability", *["set"] * (rules.coverage is not None)]
        added += ["typicality"] if rules.reject is not None else []
        added += ["abstained"] if rules != Abstention() else []
        added += ["error", "warning", *(f"p_{label}" for label in labels)]
        added += [name for name in more if name not in added]
        return cls(renamed_columns(list(dict.fromkeys(read)), added), added, list(labels))

    @property
    def columns(self) -> list[str]:
        """All names, in order."""
        return [*self.renamed.values(), *self.added]

    def row(self, prediction: Prediction) -> dict[str, Any]:
        """Return the row of one prediction; without probabilities where it has an error."""
        p, probs, members = prediction, prediction.probabilities, prediction.label_set
        found = p._asdict() | {"probability": p.probability, "error": p.error}
        found |= {"set": None if members is None else list(members)}
        found |= {"warning": join_messages(p.post.warnings) or None}
        added: dict[str, Any] = {key: found[key] for key in self.added if key in found}
        if probs is not None:
            added |= zip((f"p_{label}" for label in self.labels), probs.tolist(), strict=True)
        if self.short:
            added = {k: f"{x:.4f}" if isinstance(x, float) else x for k, x in added.items()}
        added |= {key: x for key, x in (p.more or {}).items() if key in self.added}
        return {self.renamed[key]: value for key, value in prediction.post.row.items()} | added

    def types(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the Arrow type of every column; `given` are the input's."""
        import pyarrow as pa

        kinds = dict.fromkeys(("label", "abstained", "error", "warning"), pa.string())
        kinds["set"] = pa.list_(pa.string())
        added = {name: kinds.get(name, pa.float64()) for name in self.added}
        return {self.renamed[name]: kind for name, kind in given.items()} | added


def renamed_columns(columns: Sequence[str], added: Sequence[str]) -> dict[str, str]:
    """Return the name under which each column of the input is kept, none of them twice."""
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in added or (name != column and name in columns) or name in names.values():
            name = f"input_{name}"
        names[column] = name
    return names


def pool_windows(batch: PredictionBatch) -> PredictionBatch:
    """Pool what was predicted for the windows of each post into one row.

    Log-probabilities are averaged by weights exp(-6 H), H the entropy by the window's text alone.
    """
    chunk, probs, guidance, parts = batch
    if not any(chunk.windows):
        return batch
    logs = np.log(probs.clip(min=TINY))
    sure = np.exp(-SHARPNESS * entropy(probs))
    rows, guided, kinds, start = [], [], [], 0
    for windows in chunk.windows:
        end, stop = start + max(1, windows), start + max(1, 2 * windows)
        weight = sure[end:stop] / sure[end:stop].sum() if windows else np.ones(1)
        mean = np.exp(weight @ logs[start:end])
        rows.append(mean / mean.sum() if windows else probs[start])
        guided.append(weight @ guidance[start:end])
        kinds.append(parts[start])
        start = stop
    pooled = np.array(rows, np.float32), np.array(guided, np.float32)
    return PredictionBatch(chunk, *pooled, np.array(kinds, np.int8))
