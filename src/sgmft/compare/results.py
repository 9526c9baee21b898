"""What a comparison found, as the report shows it: figures of a row, of a table, of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sgmft.evaluation import ClassScore


class Spread(NamedTuple):
    """A figure over S seeds: mean and standard deviation (n - 1; NaN for one seed) over seeds, and
    the 95 % bootstrap interval of the mean over posts.
    """

    mean: float
    sd: float
    low: float
    high: float


class Difference(NamedTuple):
    """Accuracy of a row minus that of the reference, on the same posts."""

    value: float
    low: float  # 95 % paired bootstrap interval, over posts
    high: float
    p: float  # two-sided, of the paired test
    p_holm: float  # corrected for the number of rows compared with the reference


@dataclass(frozen=True)
class Summary:
    """The figures of one row.

    Attributes:
        seeds: S, how many runs are behind them.
        posts: N, how many test posts.
        accuracy, macro_f1, calibration_error: in 0..1; the last is the expected calibration error.
        per_class: means over seeds, one entry a label.
        groups: column -> value -> (posts, mean accuracy).
    """

    seeds: int
    posts: int
    accuracy: Spread
    macro_f1: Spread
    calibration_error: Spread
    per_class: Sequence[ClassScore]
    groups: Mapping[str, Mapping[str, tuple[int, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
        key: the row's name, as `--methods` takes it.
        title: as the table shows it.
        paper: accuracy the paper prints for it, in percent, on its own data; None without one.
        summary: None where every run failed or none is finished.
        against: None for the reference itself.
        parameters: trainable ones.
        seconds: median training time of one run, trials not counted.
        setting: what the trials chose, as text ("learning_rate=0.001"); "" for nothing to choose.
        note: what a reader must know of this row.
        failed: reasons of failed runs, empty when all finished.
    """

    key: str
    title: str
    paper: float | None = None
    summary: Summary | None = None
    against: Difference | None = None
    parameters: int | None = None
    seconds: float | None = None
    setting: str = ""
    note: str = ""
    failed: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """One table of the report.

    Attributes:
        number: "1" to "4" as in the paper, or "5" for ours.
        about: one or two sentences: what is compared, and what differs from the paper.
        reference: title of the row that the others are tested against.
    """

    number: str
    title: str
    about: str
    lines: Sequence[Line]
    reference: str = "SG-MFT (default)"


class Panel(NamedTuple):
    """One panel of a figure: the fused representations of one row on the test posts."""

    key: str
    title: str
    points: Sequence[Sequence[float]]  # (N, 2)
    labels: Sequence[str]  # N true labels
    silhouette: float
    separation: float


@dataclass(frozen=True)
class FigurePart:
    """One figure of the report.

    Attributes:
        number: "6", "8" or "9" as in the paper.
        svg: the drawing, as text to put into a page.
        files: names of the files written beside the report, relative to it.
    """

    number: str
    title: str
    about: str
    svg: str
    files: Sequence[str] = ()
