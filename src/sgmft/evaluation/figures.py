"""Pages and figures of an evaluation, which need nothing beside them, and its numbers."""

import io
import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len, chop_cells

from sgmft.data.posts import Post
from sgmft.data.preprocessing.media import image_view
from sgmft.evaluation.metrics import Evaluation
from sgmft.utils.files import make_file, write_file
from sgmft.utils.templates import render

MOST_VALUES = 40  # rows of a group table on the page; `metrics.json` has all of them


def write_evaluation(folder: Path, evaluation: Evaluation, **page: Any) -> None:
    """Write `metrics.json`, `confusion.png` and `report.html`, for which `page` is."""
    numbers = json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)
    write_file(folder / "metrics.json", numbers.encode(errors="backslashreplace"))
    save_confusion(evaluation.labels, evaluation.confusion, folder / "confusion.png")
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
    given["confusion"] = confusion_figure(evaluation.labels, evaluation.confusion)
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


INK = "#1d2733"  # in SVG text it becomes the page's own text colour, for light and dark pages
CELL = "#1a5fb4"  # one hue, more opaque for more posts: safe for every kind of colour vision
STYLE = Path(__file__).with_suffix(".mplstyle")  # with the same ink
LONGEST_LABEL, HEAD, TAIL = 24, 13, 9  # in columns of a terminal: a Chinese character takes two


def confusion_figure(labels: Sequence[str], counts: Sequence[Sequence[int]], salt: str = "") -> str:
    """Return a confusion matrix (K, K) as SVG text: posts and row percentages, truth as rows."""
    return svg_text(partial(draw_confusion, labels, counts), f"sgmft{salt}")


def save_confusion(labels: Sequence[str], counts: Sequence[Sequence[int]], path: Path) -> None:
    """Write a confusion matrix (K, K) as a file of the kind that its name says, on white."""
    save_figure(partial(draw_confusion, labels, counts), path, 160)


def draw_confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> Figure:
    """Draw the matrix; its size follows the number of labels and the length of their names."""
    names = [shorten(label) for label in labels]
    classes = len(names)
    cell, size = (0.78, 10.0) if classes <= 10 else (0.5, 7.5)  # inches; points of text in it
    longest = max(10, *map(cell_len, names))  # at least the corner's words
    room = longest * 0.62 * 9.5 / 72  # inches
    left, top = 0.3 + room, 0.4 + 0.65 * room
    right = max(0.1, 0.15 + 0.77 * room - cell / 2)  # the last name leans out
    width, height = left + classes * cell + right, top + classes * cell + 0.1
    figure = Figure(figsize=(width, height))
    sides = (left / width, 0.1 / height, classes * cell / width, classes * cell / height)
    axes = figure.add_axes(sides)
    axes.set(xlim=(0, classes), ylim=(classes, 0))
    counts = np.array(matrix)
    for (row, column), count in np.ndenumerate(counts):
        share, x = count / max(counts[row].sum(), 1), column + 0.5
        box = Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, linewidth=0, clip_on=False)
        box.set(facecolor=CELL if count else INK, alpha=0.08 + 0.92 * share if count else 0.04)
        axes.add_patch(box)
        if count:
            look: dict[str, Any] = {"ha": "center", "color": "white" if share > 0.65 else INK}
            bold = "bold" if row == column else "normal"
            axes.text(x, row + 0.5, f"{count}", fontsize=size, va="bottom", fontweight=bold, **look)
            percent = "<1 %" if share < 0.005 else f"{100 * share:.0f} %"
            axes.text(x, row + 0.56, percent, fontsize=0.8 * size, va="top", **look)
    middles = np.arange(classes) + 0.5
    axes.xaxis.tick_top()
    axes.set_xticks(middles, names, fontsize=9.5, rotation=40, ha="left", rotation_mode="anchor")
    axes.set_yticks(middles, names, fontsize=9.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for line, text in enumerate(("true ↓", "predicted →")):
        at = ((left - 0.08) / width, 1 - (top - 0.1 - 0.17 * line) / height)
        figure.text(*at, text, ha="right", fontsize=8.5, alpha=0.75)
    return figure


def shorten(label: str) -> str:
    """Cut a long label in its middle, so that labels with a common start stay apart."""
    label = "".join(c if c.isprintable() else " " for c in label)
    if cell_len(label) <= LONGEST_LABEL:
        return label
    head, tail = chop_cells(label, HEAD)[0], chop_cells(label[::-1], TAIL)[0][::-1]
    return f"{head.rstrip()}…{tail.lstrip()}"


@contextmanager
def _drawing_style() -> Iterator[None]:
    """Apply the settings of our figures."""
    fonts_log = logging.getLogger("matplotlib.font_manager")  # notes fonts and weights it lacks
    with rc_context(fname=STYLE), warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        stack.callback(fonts_log.setLevel, fonts_log.level)
        fonts_log.setLevel(logging.ERROR)
        yield


def save_figure(draw: Callable[[], Figure], path: Path, dpi: int) -> None:
    """Draw a figure into a PNG or PDF file, on white, whole; see `make_file`."""
    kind = path.suffix[1:]
    options: dict[str, Any] = {"metadata": {"CreationDate": None}} if kind == "pdf" else {}
    options |= {"format": kind, "dpi": dpi, "facecolor": "white"}
    with _drawing_style():
        rcParams["font.family"] = rcParams["font.sans-serif"]
        figure = draw()
        make_file(path, lambda at: figure.savefig(at, **options))


def svg_text(draw: Callable[[], Figure], salt: str) -> str:
    """Draw a figure as an <svg>, the same every time, for a page with others of another `salt`."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _drawing_style():
        rcParams["svg.hashsalt"] = salt
        draw().savefig(out := io.StringIO(), format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = re.sub(r' id="[\w.]+_\d+"', "", text[text.index("<svg") :])  # nothing refers to these
    text = text.replace("*{stroke-linejoin", "svg *{stroke-linejoin")
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: system-ui, sans-serif")
    return re.sub(f"(fill|stroke): {INK}", r"\1: currentColor", text)
