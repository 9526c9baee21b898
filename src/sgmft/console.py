"""What the command line shows: progress, tables of figures, reasons of bad rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sgmft.errors import SgmftWarning
from sgmft.files import cache_folder
from sgmft.processes import is_main

if TYPE_CHECKING:
    from sgmft.align.job import Aligned
    from sgmft.compare.results import Spread
    from sgmft.compare.results import Table as ComparisonTable
    from sgmft.evaluation import Evaluation
    from sgmft.jobs import Told
    from sgmft.locator import SemanticLocator
    from sgmft.training import Epoch

# Standard output is for results. Of several processes of one training the main one speaks.
_screen = Console(stderr=True, quiet=not is_main())


def feature_folder(option: str | None) -> Path | None:
    """The feature store's folder: as asked for, none, or the user's cache."""
    if option == "none":
        return None
    if option is not None:
        return Path(option)
    return cache_folder() / "features"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
        console=_screen,
    )


@contextmanager
def counter(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A line that counts posts, with a bar where their number is known."""
    with _progress() as progress:
        task = progress.add_task(what, total=total, told="", visible=False)
        yield lambda done: progress.update(task, completed=done, visible=True)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Show our own warnings as one line, without the place in the code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not is_main():
            return
        if issubclass(category, SgmftWarning):
            _screen.print(f"Warning: {message}", markup=False, highlight=False)
        else:
            usual(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class TrainingProgress:
    """A bar for encoding, then one for the epochs with their figures."""

    def __init__(self) -> None:
        self._progress = _progress()
        self._encoding = self._progress.add_task(
            "Encoding posts", total=None, told="", visible=False
        )
        self._training = self._progress.add_task("Training", total=None, told="", visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def encoded(self, done: int, total: int) -> None:
        """Posts encoded so far."""
        self._progress.update(self._encoding, completed=done, total=total, visible=True)

    def epoch(self, epoch: Epoch) -> None:
        """One epoch is done."""
        told = f"loss {epoch.loss:.3f} accuracy {epoch.accuracy:.3f}"
        if not math.isnan(epoch.val_loss):
            told += f" | held out: loss {epoch.val_loss:.3f} accuracy {epoch.val_accuracy:.3f}"
        self._progress.update(
            self._training, completed=epoch.epoch, total=epoch.epochs, told=told, visible=True
        )


class ComparisonProgress:
    """A bar for encoding, then one over all trials and runs with the time left."""

    def __init__(self) -> None:
        self._progress = _progress()
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def encoded(self, setting: str, done: int) -> None:
        """Posts encoded so far under one encoder setting."""
        self._update(f"Encoding posts, {setting}", done, None, "")

    def finished(self, done: int, total: int, what: str) -> None:
        """One trial or run is done."""
        self._update("Trials and runs", done, total, what)

    def _update(self, name: str, done: int, total: int | None, told: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, told="")
        self._progress.update(self._tasks[name], completed=done, total=total, told=told)


def print_errors(told: Told) -> None:
    """How many rows could not be used, or were given no label, and why."""
    for reasons, what in ((told.errors, "could not be used"), (told.abstained, "have no label")):
        if reasons:
            _screen.print(f"{sum(reasons.values())} of {told.posts} rows {what}:")
        for kind, count in reasons.items():
            _screen.print(f"  {count:>6}  {kind}", markup=False, highlight=False)


def print_trained(locator: SemanticLocator, output: str) -> None:
    """Where the model is and how it did on held-out posts."""
    data, metrics = locator.record["data"], locator.record["metrics"]
    held_out = ""
    if data["validation"]:
        held_out = f"; {data['validation']} posts held out to choose the epoch"
    elif metrics:
        held_out = "; each of them judged in turn by a fit without it"
    _screen.print(f"Trained on {data['train']} posts, {len(locator.labels)} labels{held_out}.")
    for name, value in metrics.items():
        _screen.print(f"  {name}: {value:.3f}")
    if not locator.record.get("tuning", {}).get("better", True):
        _screen.print("No epoch of fine-tuning was better: the encoder stays as it was.")
    last = locator.record["history"][-1]
    if not math.isnan(last["gate_entropy"]):
        _screen.print(
            f"  guidance (1 = none): P^m {last['gate_entropy']:.4f}, "
            f"P^e {last['element_entropy']:.4f}"
        )
    _screen.print(f"Model: {output}")


def print_aligned(found: Aligned, output: str) -> None:
    """Where the encoder is, and how well texts and pictures find each other."""
    if found.skipped:
        _screen.print(f"{sum(found.skipped.values())} posts were left out:")
        for kind, count in found.skipped.items():
            _screen.print(f"  {count:>6}  {kind}", markup=False, highlight=False)
    table = Table(f"among {found.held_out} held-out pairs", "before", "after")
    for name, after in found.after.items():
        before = "-" if found.before is None else f"{found.before[name]:.3f}"
        table.add_row(name, before, f"{after:.3f}")
    _screen.print(table)
    if found.before is None:
        _screen.print("Before, texts and pictures shared no space.")
    _screen.print(f"Learned from {found.pairs} pairs. Use it with --encoder {output}")


def print_evaluation(evaluation: Evaluation) -> None:
    """Accuracy and macro-F1 with intervals, calibration, then each class and group."""
    for name, x in (("accuracy", evaluation.accuracy), ("macro-F1", evaluation.macro_f1)):
        _screen.print(f"{name} {x.value:.3f}  (95 % interval {x.low:.3f} to {x.high:.3f})")
    now, before = evaluation.calibration, evaluation.uncalibrated
    for name, after, raw in (
        ("calibration error", now.error, before.error),
        ("Brier score", now.brier, before.brier),
    ):
        _screen.print(f"{name} {after:.3f}  ({raw:.3f} before temperature scaling)")
    for sets in evaluation.selective.sets:
        right = "" if sets.accuracy is None else f", {sets.accuracy:.3f} of them right"
        _screen.print(
            f"coverage {sets.promised:g}: {sets.achieved:.3f} achieved, {sets.size:.2f} labels a "
            f"set; one label for {sets.answered:.3f} of the posts{right}"
        )
    table = Table("label", "precision", "recall", "F1", "posts")
    for score in evaluation.per_class:
        figures = (f"{x:.3f}" for x in (score.precision, score.recall, score.f1))
        table.add_row(score.label, *figures, str(score.support))
    _screen.print(table)
    for column, values in evaluation.groups.items():
        table = Table(column, "accuracy", "posts")
        for value, group in values.items():
            table.add_row(value, f"{group.accuracy.value:.3f}", str(group.posts))
        _screen.print(table)


def print_comparison(tables: Sequence[ComparisonTable]) -> None:
    """Accuracy of every row, and what failed."""
    for found in tables:
        table = Table("", "accuracy", "macro-F1", f"against {found.reference}", "p (Holm)")
        for line in found.lines:
            if line.summary is None:
                table.add_row(line.title, "; ".join(line.failed) or "not run", "", "", "")
                continue
            accuracy, f1, other = line.summary.accuracy, line.summary.macro_f1, line.against
            table.add_row(
                line.title,
                _over_seeds(accuracy),
                _over_seeds(f1),
                "" if other is None else f"{100 * other.value:+.1f}",
                "" if other is None else f"{other.p_holm:.3f}",
            )
        _screen.print(f"Table {found.number}: {found.title}")
        _screen.print(table)


def _over_seeds(figure: Spread) -> str:
    sd = "" if math.isnan(figure.sd) else f" ± {100 * figure.sd:.1f}"
    return f"{100 * figure.mean:.1f}{sd}"
