"""`sgmft evaluate`: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sgmft.cli.options import (
    AllowOutside,
    Column,
    Device,
    Features,
    Model,
    Output,
    PostsTable,
    Strict,
    Where,
    locator_of,
    source_of,
)

if TYPE_CHECKING:
    from sgmft.evaluation.metrics import Evaluation


def evaluate(
    model: Model,
    table: PostsTable,
    output: Output,
    by: Annotated[
        list[str] | None, typer.Option(help="Column to break accuracy down by; repeat.")
    ] = None,
    features: Features = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Compare a model's predictions with a table's labels; writes report.html and metrics.json."""
    from sgmft.cli import console
    from sgmft.jobs.evaluate import evaluate_table

    source = source_of(table, where, column, allow_outside, strict)
    locator = locator_of(model, features, device)
    with console.counter("Predicting") as done:
        told, evaluation = evaluate_table(source, output, locator, by=by or (), on_predicted=done)
    console.print_errors(told)
    print_evaluation(evaluation)
    print(f"Report: {Path(output) / 'report.html'}", file=sys.stderr)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print accuracy and macro-F1 with intervals, calibration, then each class and group."""
    from rich.table import Table

    from sgmft.cli import console

    for name, x in (("accuracy", evaluation.accuracy), ("macro-F1", evaluation.macro_f1)):
        console.screen.print(f"{name} {x.value:.3f}  (95 % interval {x.low:.3f} to {x.high:.3f})")
    now, before = evaluation.calibration, evaluation.uncalibrated
    for name, after, raw in (
        ("calibration error", now.error, before.error),
        ("Brier score", now.brier, before.brier),
    ):
        console.screen.print(f"{name} {after:.3f}  ({raw:.3f} before temperature scaling)")
    for sets in evaluation.selective.sets:
        right = "" if sets.accuracy is None else f", {sets.accuracy:.3f} of them right"
        console.screen.print(
            f"coverage {sets.promised:g}: {sets.achieved:.3f} achieved, {sets.size:.2f} labels a "
            f"set; one label for {sets.answered:.3f} of the posts{right}"
        )
    table = Table("label", "precision", "recall", "F1", "posts")
    for score in evaluation.per_class:
        figures = (f"{x:.3f}" for x in (score.precision, score.recall, score.f1))
        table.add_row(score.label, *figures, str(score.support))
    console.screen.print(table)
    for column, values in evaluation.groups.items():
        table = Table(column, "accuracy", "posts")
        for value, group in values.items():
            table.add_row(value, f"{group.accuracy.value:.3f}", str(group.posts))
        console.screen.print(table)
