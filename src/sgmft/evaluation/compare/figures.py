"""Figures 6, 8 and 9: maps of the fused representations, and how well each keeps labels apart."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from sgmft.errors import SgmftError
from sgmft.evaluation.figures import save_figure, shorten, svg_text
from sgmft.models.arrays import Array, Doubles
from sgmft.utils.files import write_file

# Okabe and Ito's, but for black and yellow; as 7 and 8 have no common divisor, 56 labels differ.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
MARKERS = ("o", "^", "s", "P", "v", "D", "X", "p")
COLUMNS = 5  # panels in a row
_SIDE, _LINE = 2.3, 0.165  # inches: a panel's side, a line of text
_POINT = 0.6 / 72  # inches a point of font size takes in one column of text


class TsnePanel(NamedTuple):
    """One panel of a figure: the fused representations of one row on the test posts."""

    key: str
    title: str
    points: Sequence[Sequence[float]]  # (N, 2)
    labels: Sequence[str]  # N true labels
    silhouette: float
    separation: float


class ReportFigure(NamedTuple):
    """One figure of the report."""

    number: str  # "6", "8" or "9" as in the paper
    title: str
    svg: str  # the drawing, as text to put into a page
    files: Sequence[str] = ()  # names of the files written beside the report, relative to it
    about: str = ""  # what it shows; "" for maps


def project_representations(key: str, title: str, fused: Array, labels: Sequence[str]) -> TsnePanel:
    """Return the map of one row's fused representations, and how well they keep labels apart.

    The map is t-SNE (van der Maaten and Hinton, 2008) from the two principal components, with
    perplexity min(30, (N - 1) / 3); for 4 posts or fewer, the principal components themselves. The
    mean silhouette (Rousseeuw, 1987), NaN unless there are 2 to N - 1 labels, and the separation,
    trace(S_b) / trace(S_w) of Fisher's scatter matrices, NaN where all posts are alike and infinite
    where all posts of each label are, are of the D numbers, not the map: Euclidean distances, not
    standardised, so that noise is not blown up. SgmftError where not all of `fused` is finite.
    """
    features = np.asarray(fused, dtype=np.float64)
    if not np.isfinite(features).all():
        raise SgmftError(f"fused features of {title} are not finite: its training has diverged")
    _, classes = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    with threadpool_limits(1):  # sums of several threads differ in their last digits every time
        points = _map(features)
        apart = 2 <= classes.max() + 1 < len(features)
        silhouette = float(silhouette_score(features, classes)) if apart else math.nan
    separation = _separation(features, classes)
    return TsnePanel(key, title, points.tolist(), list(labels), silhouette, separation)


def _map(features: Doubles) -> Doubles:  # (N, D) -> (N, 2)
    posts = len(features)
    features = features - features.mean(axis=0)
    if (spread := float(np.abs(features).max())) <= 1e-12:
        return np.zeros((posts, 2))
    features = np.pad(features / spread, ((0, 0), (0, max(0, 2 - features.shape[1]))))
    if posts <= 4:
        points = PCA(2, svd_solver="full").fit_transform(features)
    else:
        perplexity = min(30.0, (posts - 1) / 3)
        points = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features)
    return np.asarray(points, dtype=np.float64)


def _separation(features: Doubles, classes: Array) -> float:
    """Return trace(S_b) / trace(S_w), the scatter between labels over the scatter within them."""
    means = np.stack([features[classes == k].mean(axis=0) for k in range(classes.max() + 1)])
    within = float(np.square(features - means[classes]).sum())
    between = float(np.square(means[classes] - features.mean(axis=0)).sum())
    nothing = 1e-24 * len(features) * float(np.square(features).max())  # what rounding leaves
    if within > nothing:
        return between / within
    return math.inf if between > nothing else math.nan


def render_panels(panels: Sequence[TsnePanel]) -> str:
    """Return panels of the same posts as SVG text with one legend, each label in its own look."""
    salt = "-".join(panel.key for panel in panels)  # names of markers are unlike in other figures
    svg = svg_text(partial(_figure, panels), f"sgmft-{salt}")
    return re.sub(r"<g>((?:\s*<use [^>]*/>)+)", _lighter, svg)


def _lighter(group: re.Match[str]) -> str:
    """Give the style of a label's points once, and their places to a hundredth: a third of it."""
    style = re.search(r' style="[^"]*"', group[1])
    points = re.sub(r' style="[^"]*"|(?<=\.\d\d)\d+(?=")|(?<=\n) +', "", group[1])
    return f"<g{style[0] if style else ''}>{points}"


def save_panels(panels: Sequence[TsnePanel], folder: Path, name: str) -> list[Path]:
    """Write the panels as `save_drawing` does."""
    return save_drawing(render_panels(panels), partial(_figure, panels), folder, name)


def save_drawing(svg: str, draw: Callable[[], Figure], folder: Path, name: str) -> list[Path]:
    """Write `name`.svg, .pdf, .png (on white, 200 dots an inch), and return the paths."""
    path, *others = (folder / f"{name}.{kind}" for kind in ("svg", "pdf", "png"))
    write_file(path, svg.encode(errors="replace"))
    for other in others:
        save_figure(draw, other, 200)
    return [path, *others]


def _figure(panels: Sequence[TsnePanel]) -> Figure:
    """Lay the panels out in rows, above one legend; a reader's fonts may be wider than ours."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    captions = [_caption(place, panel) for place, panel in enumerate(panels)]
    labels = sorted(set(panels[0].labels))
    need = 0.45 + max(cell_len(shorten(label)) for label in labels) * 8.5 * _POINT  # inches
    places = min(len(labels), max(1, int(columns * _SIDE / need)))  # columns of the legend
    lines = rows * (max(map(len, captions)) + 1) + 1.3 * math.ceil(len(labels) / places) + 1
    figure = Figure((columns * _SIDE, rows * _SIDE + lines * _LINE), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel, (*title, figures) in zip(every, panels, captions, strict=False):
        _points(axes, panel, labels)
        axes.set_title("\n".join(title), fontsize=9.5, fontweight="bold")
        axes.set_xlabel(figures, fontsize=8)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    marks = [Line2D([], [], **_look(place, 5.0)) for place in range(len(labels))]
    names: dict[str, Any] = {"handles": marks, "labels": [shorten(label) for label in labels]}
    figure.legend(**names, loc="outside lower center", ncols=places, fontsize=8.5, frameon=False)
    return figure


def _caption(place: int, panel: TsnePanel) -> list[str]:
    letter = chr(ord("a") + place) if place < 26 else str(place + 1)
    figures = f"silhouette {_number(panel.silhouette)}, separation {_number(panel.separation)}"
    title = Text(" ".join(f"({letter}) {panel.title}".split()))
    lines = title.wrap(Console(), int(_SIDE / (9.5 * _POINT)))
    return [*(line.plain.rstrip() for line in lines), figures]


def _number(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return "∞" if math.isinf(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _points(axes: Axes, panel: TsnePanel, labels: Iterable[str]) -> None:
    points = np.asarray(panel.points, dtype=np.float64).reshape(-1, 2)
    truth = np.asarray(panel.labels, dtype=object)
    size = float(np.clip(75 / math.sqrt(len(points)), 1.6, 5.0))  # points of 1/72 inch
    for place, label in enumerate(labels):
        axes.plot(*points[truth == label].T, **_look(place, size))
    low, high = points.min(axis=0), points.max(axis=0)
    middle, reach = (low + high) / 2, 0.54 * float((high - low).max()) or 1.0
    (left, bottom), (right, top) = middle - reach, middle + reach
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set(visible=True, alpha=0.3, linewidth=0.6)


def _look(place: int, size: float) -> dict[str, Any]:
    marker = MARKERS[place % len(MARKERS)]
    heavy = {"o": 0.95, "s": 0.85, "D": 0.8, "P": 1.1, "X": 1.1}.get(marker, 1.0)  # by area
    style = {"linestyle": "", "clip_on": False, "markeredgewidth": 0, "alpha": 0.8}
    colour = COLOURS[place % len(COLOURS)]
    return {"marker": marker, "color": colour, "markersize": size * heavy, **style}
