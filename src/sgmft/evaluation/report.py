"""Reports of an evaluation: one page that needs nothing beside it, a figure, and the numbers."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.preprocessing.media import image_view
from sgmft.evaluation import figures
from sgmft.evaluation.metrics import Evaluation
from sgmft.utils.files import write_file
from sgmft.utils.templates import render

MOST_VALUES = 40  # rows of a group table on the page; `metrics.json` has all of them


def write_evaluation(folder: Path, evaluation: Evaluation, **page: Any) -> None:
    """Write `metrics.json`, `confusion.png` and `report.html`, for which `page` is."""
    numbers = json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)
    write_file(folder / "metrics.json", numbers.encode(errors="backslashreplace"))
    figures.save_confusion(evaluation.labels, evaluation.confusion, folder / "confusion.png")
    write_page(folder / "report.html", evaluation, **page)


def write_page(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    about: Mapping[str, str],
    examples: Iterable[tuple[Post, Mapping[str, float]]] = (),  # with probabilities by label
    notice: str = "",  # at the top, for what a reader must not miss ("synthetic data")
    overview: bool = False,  # whether to draw what SG-MFT does
    # To be shown beside each other, the evaluated one first: `title`, `evaluation`, mean `guidance`
    # or None, a post `explained`, addresses of its own `report` and of `why`, the explanation.
    models: Sequence[Mapping[str, Any]] = (),
    history: Sequence[Mapping[str, float | None]] = (),  # of `Epoch`s; of one, no curve
    errors: Mapping[str, int] | None = None,
    language: str = "en",  # or zh
) -> None:
    """Write an evaluation's page."""
    given = locals() | {"most_values": MOST_VALUES}
    given["confusion"] = figures.confusion_figure(evaluation.labels, evaluation.confusion)
    given |= {"mistakes": _mistakes(evaluation), "blind_loss": math.log(len(evaluation.labels))}
    views = ((x, _top(probs), list(map(image_view, x.images))) for x, probs in examples)
    page = render("evaluation/templates/report.html", **given | {"examples": [*views]})
    write_file(path, page.encode(errors="replace"))


def _mistakes(evaluation: Evaluation) -> list[tuple[int, str, str]]:
    """Return the three most frequent ones: posts, their label, and the one that they are given."""
    wrong, labels = np.array(evaluation.confusion), evaluation.labels
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:3]
    cells = zip(*np.unravel_index(worst, wrong.shape), strict=True)
    return [(int(wrong[i, k]), labels[i], labels[k]) for i, k in cells if wrong[i, k]]


def _top(probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the three most probable labels; what is no probability is drawn as one."""
    probs = np.nan_to_num(list(probabilities.values()), posinf=0.0).clip(0, 1).tolist()
    return sorted(zip(probabilities, probs, strict=True), key=lambda row: -row[1])[:3]
