"""Audit labelled posts before training: doubtful labels, duplicates, leaks, and what more bring."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.data.preprocessing.media import image_view
from sgmft.data.source import JobSummary, Source
from sgmft.data.tables import open_writer
from sgmft.data.tables.cells import to_text
from sgmft.errors import unwarned
from sgmft.evaluation import audit
from sgmft.evaluation.calibration import fit_temperature, temper
from sgmft.features.features import LabelledFeatures
from sgmft.locator.locator import SemanticLocator
from sgmft.models.arrays import Flags, Floats
from sgmft.models.base import SolveStep
from sgmft.training.fit import TrainingTask, fit_network, training_set
from sgmft.utils.files import write_file
from sgmft.utils.templates import pick_language, render

OnStep = Callable[[SolveStep], None] | None
DOUBTFUL = 0.05  # weight of a post with a doubtful label in the second round


def audit_table(
    source: Source,
    output: str | Path,
    locator: SemanticLocator,
    split: str = "split",  # column that says on which side of a split a post is
    language: str | None = None,  # of the page: en or zh; by default the locale's
    most: int = 100,  # doubtful labels, and groups of posts, on the page
    on_encoded: Callable[[int], None] | None = None,
    on_step: OnStep = None,
) -> tuple[JobSummary, dict[str, Any]]:
    """Write audit.html and its tables into a folder; return counts, and what these show."""
    read = source.read_labelled(least=2)
    known = training_set(read, partial(locator.encode, on_encoded=on_encoded), source.strict)
    posts, classes, labels = known.encoded.posts, known.classes, known.labels
    data = LabelledFeatures(known.encoded.features, classes, known.weights)
    task = TrainingTask(data, len(labels), locator.encoder.info, locator.method, locator.preset)
    curve, order = [], np.random.default_rng(0).permutation(len(posts))
    for size in [x for x in (len(posts) // n for n in (8, 4, 2)) if x >= 50] + [len(posts)]:
        part = replace(task, data=data.take(np.sort(order[:size])))
        probs = cross_fit(part, on_step=on_step)
        accuracy = float((probs.argmax(1) == part.data.labels).mean())
        curve.append({"posts": size, "accuracy": accuracy})
    doubtful = audit.doubt_labels(probs, classes)[2]
    probs = np.float32(0.5) * (probs + cross_fit(task, doubtful, on_step))
    own, best, wrong = audit.doubt_labels(probs, classes)
    traits, outlines = audit.read_traits(posts)
    alike = audit.group_alike(data.features, outlines, known.encoded.keys, posts)
    sides, users = [to_text(post.row.get(split)) for post in posts], dict[str, set[str]]()
    for post, side in zip(posts, sides, strict=True):
        users.setdefault(post.user or "", set()).add(side)
    rows = [
        {"id": post.id or post.place, "label": post.label, "split": sides[i], "text": post.text}
        | {"suggestion": labels[best[i]], "suggested": float(probs[i, best[i]])}
        | {"probability": float(own[i]), "probably_wrong": bool(wrong[i])}
        for i, post in enumerate(posts)
    ]
    found: dict[str, Any] = {
        "labels": [rows[i] for i in np.lexsort((own, ~wrong))],
        "duplicates": [rows[i] | {"group": n} for n, x in enumerate(alike, 1) for i in x],
        "traits": audit.find_telling_traits(traits, classes, labels),
        "pairs": audit.compare_classes(probs, classes, labels),
        "curve": curve,
        "conflicts": [[rows[i] for i in x] for x in alike if len({classes[i] for i in x}) > 1],
        "crossing": [[rows[i] for i in x] for x in alike if len({sides[i] for i in x} - {""}) > 1],
        "users": sorted(user for user, some in users.items() if user and len(some - {""}) > 1),
        "page": Path(output) / "audit.html",
    }
    for name in ("labels", "duplicates", "traits", "pairs", "curve"):
        columns = [*found[name][0]] if found[name] else ["none"]
        with unwarned(), open_writer(Path(output) / f"{name}.csv", columns) as writer:
            writer.write(found[name])
    images = {str(row["id"]): post.images for row, post in zip(rows, posts, strict=True)}
    page: Any = {"language": pick_language(language), "names": labels, "nonce": secrets.token_hex()}
    page |= {"table": Path(source.table).name, "view": image_view, "images": images}
    html = render("evaluation/templates/audit.html", **found, **page, most=most)
    write_file(found["page"], html.encode(errors="replace"))
    return JobSummary(len(read), known.skipped, examples=known.examples), found


def cross_fit(task: TrainingTask, doubtful: Flags | None = None, on_step: OnStep = None) -> Floats:
    """Return calibrated probabilities (N, K) of the posts by fits without each of them.

    With `doubtful` (N,) these fits hardly count such posts, and the folds are other ones.
    """
    if doubtful is not None:
        weights = np.where(doubtful, DOUBTFUL, 1.0)
        weights *= 1.0 if task.data.weights is None else task.data.weights
        preset = replace(task.preset, train=replace(task.preset.train, seed=1))
        task = replace(task, data=task.data._replace(weights=weights), preset=preset)
    found = fit_network(task, [], on_step=on_step).held_out
    temperature = fit_temperature(found.logits, found.labels)
    return temper(found.logits, np.full(len(found.labels), temperature))
