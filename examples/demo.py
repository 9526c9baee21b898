"""`make demo`: the whole job on generated posts, with the commands that do the same by hand."""

import csv
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import sample
import typer
from rich.console import Console
from rich.table import Table
from typer import Argument

from sgmft.cli.console import counter, print_errors
from sgmft.cli.evaluate import print_evaluation
from sgmft.cli.main import app
from sgmft.data.source import Source
from sgmft.data.tables import open_writer, read_posts
from sgmft.evaluation.figures import write_page
from sgmft.features.features import PARTS
from sgmft.jobs.evaluate import choose_examples, describe_locator, evaluate_table
from sgmft.jobs.explain import explain_table
from sgmft.locator.locator import SemanticLocator
from sgmft.locator.prediction import Prediction
from sgmft.utils.templates import pick_language

POSTS, DAMAGED = 340, 16
# The paper's network, small enough to be trained in seconds.
PAPER = "--method sgmft --preset elements --set width=128 --set epochs=8 --set learning_rate=0.001"
PAPER += " --set label_smoothing=0.1"

screen = Console()


def run(
    folder: Annotated[Path, Argument(help="Where posts, models and reports go.")],
    posts: int = POSTS,
    seed: int = 0,
) -> Path:
    """Sample posts, train two models, evaluate, explain, predict, sum up and audit; the report."""
    start = time.monotonic()
    table, features = folder / "posts" / "posts.jsonl", folder / "features"
    _print_command(
        "python examples/sample.py", table.parent, "--posts", posts, "--damaged", DAMAGED
    )
    sample.run(str(table.parent), posts, seed, DAMAGED)
    default, locator, predictions, errors = _try(table, folder, folder, seed)
    paper = _try(table, folder / "sgmft", folder, seed, *PAPER.split())[0]

    predict = "predict", folder / "model", table, "-o", folder / "predictions.csv"
    _run(predict, "--features", features)
    insight = "insight", folder / "model", table, "-o", folder / "insight", "--where", "split=test"
    options = "--by", "gender", "--before-after", "2024-07-01"
    _run((*insight, *options), "--features", features, "--min-users", min(5, 1 + posts // 300))
    report, good = folder / "report.html", [p for p in predictions if p.label is not None]
    write_page(
        report,
        default["evaluation"],
        title="Where was this post written?",
        language=pick_language(None),
        overview=True,
        models=[default, paper],
        examples=choose_examples(good, locator.labels),
        about=describe_locator(locator),
        notice="These posts are synthetic: sgmft generated their texts and drew their pictures. "
        "The figures show that everything works, not how well it does on real posts.",
        errors=errors,
    )
    screen.print(_table(predictions))
    _audit(table, folder, seed)
    pages = f"{report}, insight/insight.html and audit/audit.html beside it"
    screen.print(f"{time.monotonic() - start:.0f} s. Open {pages} in a browser.")
    return report


def _try(
    table: Path, folder: Path, home: Path, seed: int, *options: str
) -> tuple[dict[str, Any], SemanticLocator, list[Prediction], dict[str, int]]:
    """Train, evaluate, explain a post; return the model's row for the report in the folder `home`.

    Beside it the model, its predictions for the test posts, and why some have none, with counts.
    """
    model, output, why = folder / "model", folder / "evaluation", folder / "why.html"
    train = "train", table, "-o", model, "--where", "split=train", *options
    _run(train, "--seed", seed, "--features", home / "features")
    by = "--where", "split=test", "--by", "informative"
    _show("evaluate", model, table, "-o", output, *by)
    locator = SemanticLocator.from_pretrained(model, features=home / "features")
    test = Source(str(table), where={"split": "test"})
    with counter("Predicting") as done:
        tested = evaluate_table(test, output, locator, by=by[3:], on_predicted=done)
    summary, evaluation, predictions = tested
    print_errors(summary)
    print_evaluation(evaluation)
    both, said = [p for p in predictions if p.parts == len(PARTS) - 1], ""
    if both:
        number = int(both[0].post.place.rpartition(" ")[2])
        _show("explain", model, table, "-o", why, "--row", number)
        _, (said, *_) = explain_table(Source(str(table)), why, locator, row=number)
        screen.print(said, highlight=False)
    guidance = np.array([p.guidance for p in both])
    known = guidance.size > 0 and np.isfinite(guidance).all()
    row = {
        "title": locator.method.title_with(locator.preset),
        "evaluation": evaluation,
        "guidance": guidance.mean(0).tolist() if known else None,
        "explained": said,
        "report": (output / "report.html").relative_to(home).as_posix(),
        "why": why.relative_to(home).as_posix(),
    }
    return row, locator, predictions, summary.errors


def _audit(table: Path, folder: Path, seed: int) -> None:
    """Give a tenth of the posts another label, audit the table, and say how many were found."""
    posts = [x for x in read_posts(table) if x.error is None and "damage" not in x.row]
    labels, rng = sorted({str(x.label) for x in posts}), np.random.default_rng(seed)
    wrong = {posts[i].id: i for i in rng.choice(len(posts), len(posts) // 10, replace=False)}
    flipped = table.with_name("flipped.csv")
    with open_writer(flipped, list(posts[0].row)) as writer:
        for x in posts:
            other = rng.choice([label for label in labels if label != x.label])
            label = other if x.id in wrong else x.label
            writer.write([dict(x.row) | {"label": label}])
    _run(("audit", flipped, "-o", folder / "audit"), "--features", folder / "features")
    with (folder / "audit" / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        flagged = [row["id"] for row in csv.DictReader(file) if row["probably_wrong"] == "true"]
    found = len(wrong.keys() & set(flagged))
    screen.print(
        f"{len(wrong)} labels were made wrong; {len(flagged)} are flagged, {found} of these."
    )


def _run(command: Sequence[object], *hidden: object) -> None:
    """Show a command, and run it with further options that make it fast and repeatable."""
    _show(*command)
    name, *words = map(str, (*command, *hidden))
    typer.main.get_group(app).commands[name].main(words, standalone_mode=False)


def _show(*command: object) -> None:
    _print_command("sgmft", *command)


def _print_command(program: str, *words: object) -> None:
    screen.print(f"\n[bold]$ {program} {shlex.join(map(str, words))}[/bold]", soft_wrap=True)


def _table(predictions: list[Prediction]) -> Table:
    table = Table(title="Some test posts (synthetic)", expand=True)
    table.add_column("post", no_wrap=True, ratio=1)
    for name, width in (("pictures", 8), ("predicted", 15), ("p", 4), ("truth", 15)):
        table.add_column(name, min_width=width)
    good = [p for p in predictions if p.probability is not None]
    for p in good[:: max(1, len(good) // 10)][:10]:
        text, pictures = " ".join(p.post.text.split()) or "(no text)", str(len(p.post.images))
        table.add_row(text, pictures, p.label, f"{p.probability:.2f}", p.post.label or "")
    return table


if __name__ == "__main__":
    typer.run(run)
