"""`make demo`: the whole job on generated posts, with the commands that do the same by hand."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from typer import Argument

from sgmft.cli.console import counter, print_errors
from sgmft.cli.evaluate import print_evaluation
from sgmft.cli.sample import sample_command
from sgmft.cli.train import train_command
from sgmft.data.source import Source
from sgmft.evaluation.report import write_page
from sgmft.jobs.evaluate import choose_examples, describe_locator, evaluate_table
from sgmft.jobs.predict import predict_table
from sgmft.locator.locator import SemanticLocator
from sgmft.locator.prediction import Prediction

POSTS, DAMAGED = 1400, 16

NOTICE = (
    "These posts are synthetic: sgmft generated their texts and drew their pictures. The figures "
    "show that everything works, not how well it does on real posts."
)

screen = Console()


def run(
    folder: Annotated[Path, Argument(help="Where posts, model and report go.")],
    posts: int = POSTS,
    seed: int = 0,
) -> Path:
    """Sample posts, train, evaluate, predict and report; returns the report's path."""
    start = time.monotonic()
    table, model, features = folder / "posts" / "posts.jsonl", folder / "model", folder / "features"
    _step(f"sgmft sample {folder}/posts --posts {posts} --damaged {DAMAGED}")
    sample_command(str(folder / "posts"), posts, seed, DAMAGED)

    _step(f"sgmft train {table} -o {model} --where split=train")
    train_command(str(table), str(model), where=["split=train"], seed=seed, features=str(features))

    words = f"{model} {table} -o {folder}/evaluation --where split=test --by informative"
    _step(f"sgmft evaluate {words}")
    locator = SemanticLocator.from_pretrained(model, features=features)
    test = Source(str(table), where={"split": "test"})
    with counter("Predicting") as done:
        summary, evaluation = evaluate_table(
            test, folder / "evaluation", locator, by=["informative"], on_predicted=done
        )
    print_errors(summary)
    print_evaluation(evaluation)

    _step(f"sgmft predict {model} {table} -o {folder}/predictions.csv")
    with counter("Predicting") as done:
        summary = predict_table(
            Source(str(table)), folder / "predictions.csv", locator, on_predicted=done
        )
    predictions = list(locator.predictions(test.iter_posts()))
    report = folder / "report.html"
    write_page(
        report,
        evaluation,
        title="Where was this post written?",
        overview=True,
        history=locator.training.history,
        examples=choose_examples([p for p in predictions if p.label is not None], locator.labels),
        about=describe_locator(locator),
        notice=NOTICE,
        errors=summary.errors,
    )
    screen.print(_table(predictions))
    screen.print(f"{time.monotonic() - start:.0f} s. Open {report} in a browser.")
    return report


def _step(command: str) -> None:
    screen.print(f"\n[bold]$ {command}[/bold]", soft_wrap=True)


def _table(predictions: list[Prediction]) -> Table:
    table = Table(title="Some test posts (synthetic)", expand=True)
    table.add_column("post", no_wrap=True, ratio=1)
    for name, width in (("pictures", 8), ("predicted", 15), ("p", 4), ("truth", 15)):
        table.add_column(name, min_width=width)
    good = [p for p in predictions if p.probability is not None]
    for p in good[:: max(1, len(good) // 10)][:10]:
        table.add_row(
            " ".join(p.post.text.split()) or "(no text)",
            str(len(p.post.images)),
            p.label,
            f"{p.probability:.2f}",
            p.post.label or "",
        )
    return table


if __name__ == "__main__":
    typer.run(run)
