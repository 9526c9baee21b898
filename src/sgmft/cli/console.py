"""What the command line shows: progress, tables of figures, reasons of bad rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sgmft.utils.distributed import is_main
from sgmft.utils.files import cache_folder

if TYPE_CHECKING:
    from sgmft.data.summary import JobSummary
    from sgmft.training.trainer import Epoch

# Standard output is for results. Of several processes of one training the main one speaks.
screen = Console(stderr=True, quiet=not is_main())


def feature_folder(option: str | None) -> Path | None:
    """The feature store's folder: as asked for, none, or the user's cache."""
    if option == "none":
        return None
    if option is not None:
        return Path(option)
    return cache_folder() / "features"


def progress_bar() -> Progress:
    """Return a bar with counts and times, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
        console=screen,
    )


@contextmanager
def counter(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A line that counts posts, with a bar where their number is known."""
    with progress_bar() as progress:
        task = progress.add_task(what, total=total, told="", visible=False)
        yield lambda done: progress.update(task, completed=done, visible=True)


class TrainingProgress:
    """A bar for encoding, then one for the epochs with their figures."""

    def __init__(self) -> None:
        self._progress = progress_bar()
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


def print_errors(told: JobSummary) -> None:
    """How many rows could not be used, or were given no label, and why."""
    for reasons, what in ((told.errors, "could not be used"), (told.abstained, "have no label")):
        if reasons:
            screen.print(f"{sum(reasons.values())} of {told.posts} rows {what}:")
        for kind, count in reasons.items():
            screen.print(f"  {count:>6}  {kind}", markup=False, highlight=False)
