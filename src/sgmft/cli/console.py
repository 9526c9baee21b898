"""Output on standard error: progress, and the rows that could not be used."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import progress
from rich.console import Console
from rich.table import Column

from sgmft.errors import NoUsableRowError
from sgmft.utils.distributed import is_main
from sgmft.utils.files import cache_folder, write_json
from sgmft.utils.templates import render

if TYPE_CHECKING:
    from sgmft.data.source import JobSummary
    from sgmft.models.base import SolveStep
    from sgmft.training.history import Epoch

# Standard output is for results. Of several processes of one training the main one prints.
screen = Console(stderr=True, quiet=not is_main(), emoji=False)
started = time.monotonic()  # when the command began
told: list[str] = []  # its warnings and notices, each once


def feature_folder(option: str | None) -> Path | None:
    """Return the feature store's folder: the one named, none for "none", or in the user's cache."""
    if option == "none":
        return None
    return cache_folder() / "features" if option is None else Path(option)


class ProgressBars(progress.Progress):
    """A bar with counts and times for each stage of a job, shown from the stage's start."""

    def __init__(self) -> None:
        super().__init__(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(20, table_column=Column(no_wrap=True)),
            progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
            progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
            progress.TimeRemainingColumn(table_column=Column(no_wrap=True)),
            # It gives way where a terminal is narrow; else bars and counts would.
            progress.TextColumn("{task.fields[text]}", table_column=Column()),
            console=screen,
        )
        self._stages: dict[str, progress.TaskID] = {}

    def show(self, stage: str, done: int, total: int | None = None, text: str = "") -> None:
        """Update the bar of a stage."""
        if stage not in self._stages:
            self._stages[stage] = self.add_task(stage, total=total, text=text)
        self.update(self._stages[stage], completed=done, total=total, text=text)

    def encoded(self, done: int, total: int) -> None:
        """Show the posts that are encoded so far."""
        self.show("Encoding posts", done, total)

    def step(self, step: "SolveStep") -> None:
        """Show the penalties that are tried for one part of a method without epochs."""
        self.show(f"Fitting {step.part}", step.done, step.total, "penalties")

    def epoch(self, epoch: "Epoch") -> None:
        """Show an epoch that is done, with its figures."""
        text = f"loss {epoch.loss:.3f} accuracy {epoch.accuracy:.3f}"
        if not math.isnan(epoch.val_loss):
            text += f" | held out: loss {epoch.val_loss:.3f} accuracy {epoch.val_accuracy:.3f}"
        self.show("Training", epoch.epoch, epoch.epochs, text)


@contextmanager
def counter(stage: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show the bar of a job with one stage; yields what is called with the number done so far."""
    with ProgressBars() as bars:
        yield lambda done: bars.show(stage, done, total)


def print_line(text: str) -> None:
    """Print text as it is, whatever a user's data in it looks like, on one line."""
    screen.print(text, markup=False, highlight=False, soft_wrap=True)


def print_text(template: str, **values: object) -> None:
    """Print a text of `templates/`, filled in, whose lines end where it says."""
    values["seconds"] = time.monotonic() - started
    text = render(f"cli/templates/{template}.txt", **values)
    screen.print(text, end="", markup=False, soft_wrap=True)


def print_errors(summary: "JobSummary") -> None:
    """Print how many rows could not be used, were used in part, or have no label, and why."""
    bad, empty = (sum(x.values()) for x in (summary.errors, summary.abstained))
    rows, shown = f"of {summary.posts} rows", summary.examples
    print_counts(summary.errors, f"{bad} {rows} could not be used:", shown)
    print_counts(summary.warnings, "Warnings, and how many of the other rows have each:", shown)
    print_counts(summary.abstained, f"{empty} {rows} have no label:", shown)


def finish(summary: "JobSummary", path: str | None, model: str | None, result: str) -> None:
    """Print what happened to the rows, and the result; write `--summary`; exit if none is good."""
    print_errors(summary)
    if result:
        print_line(result)
    if path is not None:
        found = asdict(summary) | {"model": model, "messages": told}
        found["labelled"] = summary.used - sum(summary.abstained.values())
        found["seconds"] = round(time.monotonic() - started, 3)
        write_json(Path(path), found, indent=2)
    if not summary.used:
        raise typer.Exit(NoUsableRowError.exit_code)


def print_counts(counts: dict[str, int], title: str, examples: Mapping[str, str] = {}) -> None:
    """Print reasons, how often each was met, and the first example of it, if any was."""
    if counts:
        screen.print(title)
    for reason, count in counts.items():
        example = f" ({examples[reason]})" if examples.get(reason) else ""
        print_line(f"  {count:>6}  {reason}{example}")
