"""`sgmft compare`: parse, call, print."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

import typer

from sgmft.cli.options import (
    AllowOutside,
    Column,
    Device,
    Features,
    Output,
    PostsTable,
    Strict,
    Where,
    pairs,
    source_of,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sgmft.evaluation.compare.results import ResultTable
    from sgmft.evaluation.compare.statistics import Estimate


def compare(
    table: PostsTable,
    output: Output,
    encoder: Annotated[
        str, typer.Option(help="Whose features the systems work on; as for train.")
    ] = "compact",
    seeds: Annotated[int, typer.Option(help="Runs of each row, with seeds 0, 1, ...", min=1)] = 5,
    tables: Annotated[
        str, typer.Option(help="1 systems, 2 modules, 3 fusion modules, 4 guided side, 5 ours.")
    ] = "1,2,3,4,5",
    figures: Annotated[str, typer.Option(help="Of the paper; empty for none.")] = "6,8,9",
    methods: Annotated[
        str | None, typer.Option(help="Only these rows of the tables: sgmft-tokens,mplug,...")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="COLUMN=VALUE of the test posts; else a fifth is drawn.")
    ] = None,
    split_by: Annotated[
        str, typer.Option(help="label, user, or auto: by user where the posts name users.")
    ] = "auto",
    by: Annotated[
        list[str] | None, typer.Option(help="Column to break accuracy down by; repeat.")
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Values of its tuned setting each system tries.", min=1, max=7)
    ] = 3,
    epochs: Annotated[
        int | None, typer.Option(help="At most, for a quick look; not the paper's.", min=1)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; one for each processor, or 1 with a GPU.", min=1)
    ] = None,
    finished_only: Annotated[
        bool, typer.Option(help="Run nothing; a report of what is finished so far.")
    ] = False,
    features: Features = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Compare SG-MFT with other systems and with parts left out; writes report.html.

    A run that was stopped continues where it was.
    """
    from sgmft.cli import console
    from sgmft.evaluation.compare.catalogue import make_plan
    from sgmft.evaluation.compare.prepare import Split
    from sgmft.jobs.compare import compare_table, default_workers

    plan = make_plan(
        tables,
        figures,
        methods,
        encoder=encoder,
        seeds=seeds,
        trials=trials,
        epochs=epochs,
        workers=workers or default_workers(device),
        device=device,
        finished_only=finished_only,
    )
    chosen = next(iter(pairs([test], "--test").items())) if test else None
    with ComparisonProgress() as progress:
        told, found, path = compare_table(
            source_of(table, where, column, allow_outside, strict),
            output,
            plan,
            split=Split(test=chosen, by=split_by),
            by=by or (),
            features=console.feature_folder(features),
            command=shlex.join(["sgmft", *sys.argv[1:]]),
            on_encoded=progress.encoded,
            on_progress=progress.finished,
        )
    console.print_errors(told)
    print_comparison(found)
    print(f"Report: {path}", file=sys.stderr)


class ComparisonProgress:
    """A bar for encoding, then one over all trials and runs with the time left."""

    def __init__(self) -> None:
        from sgmft.cli.console import progress_bar

        self._progress = progress_bar()
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


def print_comparison(tables: Sequence[ResultTable]) -> None:
    """Print the accuracy of every row, and what failed."""
    from rich.table import Table

    from sgmft.cli import console

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
        console.screen.print(f"Table {found.number}: {found.title}")
        console.screen.print(table)


def _over_seeds(figure: Estimate) -> str:
    sd = "" if math.isnan(figure.sd) else f" ± {100 * figure.sd:.1f}"
    return f"{100 * figure.mean:.1f}{sd}"
