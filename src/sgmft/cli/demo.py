"""`make demo`: the whole job on generated posts, with the commands that do the same by hand."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from typer import Argument

from sgmft.cli.console import counter, print_errors
from sgmft.cli.evaluate import print_evaluation
from sgmft.cli.sample import sample_command
from sgmft.cli.train import train_command
from sgmft.data.source import Source
from sgmft.evaluation.metrics import Evaluation
from sgmft.evaluation.report import ComparedModel, write_page
from sgmft.features.features import PARTS
from sgmft.jobs.evaluate import choose_examples, describe_locator, evaluate_table
from sgmft.jobs.explain import explain_table
from sgmft.jobs.predict import predict_table
from sgmft.locator.locator import SemanticLocator
from sgmft.locator.prediction import Prediction

POSTS, DAMAGED = 1400, 16
# The paper's network, small enough to be trained in seconds.
PAPER = ("width=128", "epochs=8", "learning_rate=0.001")

NOTICE = (
    "These posts are synthetic: sgmft generated their texts and drew their pictures. The figures "
    "show that everything works, not how well it does on real posts."
)

screen = Console()


class _Trained(NamedTuple):
    folder: Path  # of the model and of what was made with it
    locator: SemanticLocator
    evaluation: Evaluation
    predictions: list[Prediction]  # of the test posts


def run(
    folder: Annotated[Path, Argument(help="Where posts, models and reports go.")],
    posts: int = POSTS,
    seed: int = 0,
) -> Path:
    """Sample posts, train two models, evaluate, explain and predict; returns the report's path."""
    start = time.monotonic()
    table = folder / "posts" / "posts.jsonl"
    _step(f"sgmft sample {folder}/posts --posts {posts} --damaged {DAMAGED}")
    sample_command(str(folder / "posts"), posts, seed, DAMAGED)

    features = folder / "features"
    default = _train(table, folder, features, seed)
    paper = _train(table, folder / "sgmft", features, seed, "sgmft", "elements", PAPER)
    shown = next((p for p in default.predictions if p.parts == len(PARTS) - 1), None)
    models = [_explain(table, each, shown, folder) for each in (default, paper)]

    _step(f"sgmft predict {folder}/model {table} -o {folder}/predictions.csv")
    with counter("Predicting") as done:
        summary = predict_table(
            Source(str(table)), folder / "predictions.csv", default.locator, on_predicted=done
        )
    report, good = folder / "report.html", [p for p in default.predictions if p.label is not None]
    write_page(
        report,
        default.evaluation,
        title="Where was this post written?",
        overview=True,
        models=models,
        examples=choose_examples(good, default.locator.labels),
        about=describe_locator(default.locator),
        notice=NOTICE,
        errors=summary.errors,
    )
    screen.print(_table(default.predictions))
    screen.print(f"{time.monotonic() - start:.0f} s. Open {report} in a browser.")
    return report


def _train(
    table: Path,
    folder: Path,
    features: Path,
    seed: int,
    method: str | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
) -> _Trained:
    """Train and evaluate a model, both with the command that does it."""
    words = "".join(f" --{k} {x}" for k, x in (("method", method), ("preset", preset)) if x)
    words += "".join(f" --set {setting}" for setting in settings)
    _step(f"sgmft train {table} -o {folder}/model --where split=train{words}")
    options: dict[str, Any] = {"method": method, "preset": preset, "settings": [*settings]}
    options |= {"seed": seed, "features": str(features), "where": ["split=train"]}
    train_command(table=str(table), output=str(folder / "model"), **options)

    words = "--where split=test --by informative"
    _step(f"sgmft evaluate {folder}/model {table} -o {folder}/evaluation {words}")
    locator = SemanticLocator.from_pretrained(folder / "model", features=features)
    test = Source(str(table), where={"split": "test"})
    with counter("Predicting") as done:
        summary, evaluation = evaluate_table(
            test, folder / "evaluation", locator, by=["informative"], on_predicted=done
        )
    print_errors(summary)
    print_evaluation(evaluation)
    return _Trained(folder, locator, evaluation, list(locator.predictions(test.iter_posts())))


def _explain(
    table: Path, trained: _Trained, shown: Prediction | None, report: Path
) -> ComparedModel:
    """Explain a post; returns the model's row for the report in the folder `report`."""
    folder, locator, evaluation, predictions = trained
    said = ""
    if shown is not None:
        row = int(shown.post.place.rpartition(" ")[2])
        _step(f"sgmft explain {folder}/model {table} -o {folder}/why.html --row {row}")
        _, (said, *_) = explain_table(Source(str(table)), folder / "why.html", locator, row=row)
        screen.print(said, highlight=False)
    guidance = np.array([p.guidance for p in predictions if p.parts == len(PARTS) - 1])
    known = guidance.size > 0 and np.isfinite(guidance).all()
    return ComparedModel(
        title=locator.method.title_with(locator.preset.name),
        evaluation=evaluation,
        guidance=tuple(guidance.mean(0).tolist()) if known else None,
        explained=said,
        report=(folder / "evaluation" / "report.html").relative_to(report).as_posix(),
        why=(folder / "why.html").relative_to(report).as_posix(),
    )


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
