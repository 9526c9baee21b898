"""Reports of an evaluation: one page that needs nothing beside it, a figure, and the numbers."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from sgmft.data.posts import MediaFile
from sgmft.data.preprocessing.thumbnails import image_view
from sgmft.errors import SgmftError
from sgmft.evaluation import figures
from sgmft.evaluation.metrics import Evaluation
from sgmft.utils.files import write_whole, writing
from sgmft.utils.templates import render

MOST_VALUES = 40  # rows of a group table on the page; `metrics.json` has all of them


@dataclass(frozen=True)
class ExamplePost:
    """A post to show, with what was predicted for it."""

    text: str  # as its author wrote it
    pictures: Sequence[MediaFile] = ()  # one that cannot be read is a grey box with the reason
    truth: str | None = None  # the true label, when known
    # by label; empty when the post could not be predicted
    probabilities: Mapping[str, float] = field(default_factory=dict)
    note: str = ""  # anything to say about it


def write_evaluation(
    folder: str | Path,
    evaluation: Evaluation,
    *,
    title: str,
    about: Mapping[str, str],
    examples: Sequence[ExamplePost] = (),
    notice: str = "",
) -> Path:
    """Write `metrics.json`, `confusion.png` and `report.html`, and return the page's path.

    Args:
        folder: made if need be; files of these names are replaced.
        about: settings and versions, name -> value.
        notice: stands out at the top, for what a reader must not miss ("synthetic data").
    """
    folder = Path(folder)
    page = _page(evaluation, title=title, about=about, examples=examples, notice=notice)
    numbers = json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "metrics.json", numbers.encode(errors="backslashreplace"))
        figures.save_confusion(evaluation, folder / "confusion.png")
        write_whole(folder / "report.html", page.encode(errors="replace"))
    return folder / "report.html"


def write_demo_report(
    path: str | Path,
    *,
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float | None]],
    examples: Sequence[ExamplePost],
    about: Mapping[str, str],
    notice: str,
    errors: Mapping[str, int],
) -> Path:
    """Write the page of a whole demonstration: what SG-MFT does, its training and its figures.

    Args:
        path: of the page; its folder is made if need be.
        history: as for `history_figure`; fewer than two epochs leave the curves out.
        errors: number of rows that could not be used, by reason.
    """
    path = Path(path)
    page = _page(
        evaluation,
        title="Where was this post written?",
        about=about,
        examples=examples,
        notice=notice,
        overview=Markup(overview_figure()),
        history=Markup(figures.history_figure(history)) if len(history) > 1 else "",
        errors=errors,
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode(errors="replace"))
    return path


def overview_figure(language: str = "en") -> str:
    """Return the drawing as SVG text, in "en" or "zh"; it reads on light and on dark pages.

    The probabilities in it are an illustration, not a result. `docs/overview.svg` and
    `docs/overview.zh.svg` hold what this returns.
    """
    if language not in ("en", "zh"):
        raise SgmftError(f"the overview is in en and zh, not {language!r}")
    return render("evaluation/templates/overview.svg", language=language)


def _page(evaluation: Evaluation, *, examples: Iterable[ExamplePost], **values: Any) -> str:
    before = evaluation.uncalibrated if evaluation.temperature != 1 else None
    defaults: dict[str, Any] = {"overview": "", "history": "", "errors": {}}
    return render(
        "evaluation/templates/report.html",
        evaluation=evaluation,
        summary=_summary(evaluation),
        confusion=Markup(figures.confusion_figure(evaluation)),
        reliability=Markup(figures.reliability_figure(evaluation.calibration, before)),
        selective=Markup(figures.selective_figure(evaluation.selective.curve)),
        examples=[_example_view(example) for example in examples],
        most_values=MOST_VALUES,
        **defaults | values,
    )


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the figures are to be compared with, and the three most frequent mistakes."""
    commonest = max(evaluation.per_class, key=lambda score: score.support)
    wrong = np.array(evaluation.confusion)
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:3]
    labels = evaluation.labels
    return {
        "commonest": commonest.label,
        "commonest_share": commonest.support / evaluation.posts,
        "blind_loss": math.log(len(labels)),
        "confusions": [
            (int(wrong[row, column]), labels[row], labels[column])
            for row, column in zip(*np.unravel_index(worst, wrong.shape), strict=True)
            if wrong[row, column]
        ],
    }


def _example_view(example: ExamplePost) -> dict[str, Any]:
    """Return an example as the template shows it."""
    finite = {label: x if math.isfinite(x) else 0.0 for label, x in example.probabilities.items()}
    shares = {label: min(max(float(x), 0.0), 1.0) for label, x in finite.items()}
    top = sorted(shares.items(), key=lambda item: -item[1])[:3]
    return {
        "text": example.text.strip(),
        "pictures": [image_view(file) for file in example.pictures],
        "note": example.note,
        "top": top,
        "predicted": top[0][0] if top else None,
        "truth": example.truth,
    }
