"""`sgmft evaluate`: compare a model's predictions with a table's labels."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from sgmft.cli import console, options as opt
from sgmft.errors import NoUsableRowError

if TYPE_CHECKING:
    from sgmft.evaluation.metrics import Evaluation


@opt.reads_posts
def evaluate_command(
    model: opt.Model,
    source: "opt.Source",
    output: opt.Output,
    by: opt.By = None,
    fixes: opt.Fixes = None,
    features: opt.Features = None,
    features_table: opt.FeaturesTable = None,
    lang: opt.Lang = None,
    summary_file: opt.Summary = None,
    device: opt.Device = None,
) -> None:
    """Compare a model's predictions with a table's labels; writes report.html and metrics.json."""
    from sgmft.jobs.evaluate import evaluate_table

    locator = opt.load_locator(model, features, device, opt.pick_encoder(None, features_table))
    with console.counter("Predicting") as done:
        try:
            summary, found, _ = evaluate_table(source, output, locator, by or (), fixes, lang, done)
        except NoUsableRowError as error:
            console.finish(error.summary, summary_file, model, f"sgmft: {error}")
            raise
    print_evaluation(found)
    console.finish(summary, summary_file, model, f"Report: {Path(output) / 'report.html'}")


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print accuracy and macro-F1 with intervals, calibration, then each class and group."""
    console.print_text("evaluated", found=evaluation)
    table = Table("label", "precision", "recall", "F1", "posts")
    for score in evaluation.per_class:
        figures = [f"{x:.3f}" for x in (score.precision, score.recall, score.f1)]
        figures[-1] += f" [{score.low:.3f}, {score.high:.3f}]"
        table.add_row(score.label, *figures, str(score.support))
    console.screen.print(table)
    for column, values in evaluation.groups.items():
        table = Table(column, "accuracy", "posts")
        for value, group in values.items():
            table.add_row(value, f"{group.accuracy.value:.3f}", str(group.posts))
        console.screen.print(table)
