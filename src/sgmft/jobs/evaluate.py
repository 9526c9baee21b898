"""Evaluate a model on labelled posts: figures, a report page, every prediction with its truth."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.data.posts import Post, raise_first_error, require_columns, require_known
from sgmft.data.source import JobSummary, Source, apply_fixes, describe_errors
from sgmft.data.tables import open_writer
from sgmft.errors import TEXTS, Message, NoUsableRowError, warn
from sgmft.evaluation.figures import write_evaluation
from sgmft.evaluation.metrics import Evaluation, evaluate
from sgmft.features.attributes import read_cell
from sgmft.features.features import PARTS
from sgmft.features.table import describe_vectors
from sgmft.locator.abstention import Abstention
from sgmft.locator.locator import SemanticLocator
from sgmft.locator.prediction import OutputColumns, Prediction
from sgmft.utils.templates import pick_language

GALLERY = 12  # example posts on a report page


def evaluate_table(
    source: Source,
    output: str | Path,
    locator: SemanticLocator,
    by: Sequence[str] = (),
    fixes: str | None = None,  # table of corrected labels, see `apply_fixes`
    language: str | None = None,  # of the page: en or zh; by default the locale's
    on_predicted: Callable[[int], object] = lambda done: None,
) -> tuple[JobSummary, Evaluation, list[Prediction]]:
    """Compare predictions with a table's labels; writes metrics.json, report.html, predictions.

    Rows that cannot be read, have no label, or one the model never learned, are counted and left
    out of the figures, which are broken down `by` columns. Warns of posts it was trained with.
    """
    source.refuse_overwriting(Path(output) / "predictions.parquet")
    page: Any = {"language": pick_language(language)}
    given = source.read_labelled("has no label to compare with")
    posts = [require_known(x, locator.labels) for x in apply_fixes(given, fixes, source.strict)]
    if source.strict:
        raise_first_error(posts)
    predictions: list[Prediction] = []
    for prediction in locator.predictions(posts):
        if source.strict:
            raise_first_error([prediction.post])
        predictions.append(prediction)
        on_predicted(len(predictions))
    summary = JobSummary.of(p.post for p in predictions)
    if not (good := [p for p in predictions if p.probabilities is not None]):
        why = f"No row of {source.table} can be evaluated: {describe_errors(summary.errors)}"
        refusal = NoUsableRowError(f"{why}. The model's labels: {', '.join(locator.labels[:20])}.")
        refusal.summary = summary
        raise refusal
    require_columns([p.post for p in good], by)
    notice = ""
    if seen := int(locator.held_out.trained_with([p.key for p in good]).sum()):
        warn(notice := Message(TEXTS["trained with"], seen=seen, posts=len(good)))
    parts = np.array([p.parts for p in good])
    probs, truth = np.array([p.probabilities for p in good]), [str(p.post.label) for p in good]
    how: Any = {"temperature": locator.temperatures[parts], "parts": [PARTS[x] for x in parts]}
    how["groups"] = {name: [read_cell(p.post, name) or "" for p in good] for name in by}
    how["sets"] = lambda probs, coverage: locator.held_out.sets(probs, coverage, parts)
    evaluation = evaluate(probs, truth, locator.labels, **how)
    page |= {"title": Message("Evaluation on {name}", name=Path(source.table).name)}
    page |= {"about": describe_locator(locator), "history": locator.training.history}
    page |= {"examples": choose_examples(good, locator.labels), "notice": notice}
    write_evaluation(Path(output), evaluation, **page)
    columns = OutputColumns.of(["id", "place", "true_label"], locator.labels, Abstention())
    with open_writer(Path(output) / "predictions.parquet", columns.columns) as writer:
        for p in predictions:
            row = {"id": p.post.id, "place": p.post.place, "true_label": p.post.label}
            writer.write([columns.row(p._replace(post=replace(p.post, row=row)))])
    return summary, evaluation, predictions


def describe_locator(locator: SemanticLocator) -> dict[str, str]:
    """Return settings and versions behind a figure, for a report."""
    data = locator.training.data
    return {
        "method": locator.method.title_with(locator.preset),
        "encoder": f"{locator.encoder_name}, cleaning {locator.encoder_settings['cleaning']}",
        **({"features": describe_table(locator)} if locator.is_table else {}),
        "training posts": str(data.train),
        "data fingerprint": data.fingerprint,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        **locator.training.versions,
    }


def describe_table(locator: SemanticLocator) -> str:
    """Return what a model reads of a features table, and whether of the posts' texts, too."""
    grams = "with" if locator.network is not None and locator.network.uses_ngrams else "without"
    return f"{describe_vectors(locator.encoder.info)}, {grams} n-grams of the texts"


def choose_examples(
    predictions: Sequence[Prediction], labels: Sequence[str]
) -> list[tuple[Post, dict[str, float]]]:
    """Return a few posts for a report: half wrong, where there are as many, spread evenly."""
    chosen: list[Prediction] = []
    for right, most in ((False, GALLERY // 2), (True, GALLERY)):
        some = [p for p in predictions if (p.label == p.post.label) == right]
        number = most - len(chosen)
        chosen = [*some[:: max(1, len(some) // number)][:number], *chosen]
    probs = ((p.post, p.probabilities) for p in chosen)
    return [(x, dict(zip(labels, y.tolist(), strict=True))) for x, y in probs if y is not None]
