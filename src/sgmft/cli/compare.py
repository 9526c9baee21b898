"""`sgmft compare`: the tables and figures of the paper on a user's posts."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from sgmft.cli import console
from sgmft.cli import options as opt

if TYPE_CHECKING:
    from sgmft.evaluation.compare.results import ResultTable


@opt.reads_posts
def compare_command(
    source: "opt.Source",
    output: opt.Output,
    encoder: Annotated[str, Option(help="Whose features are used; as for train.")] = "compact",
    encoders: Annotated[
        str | None,
        Option(help="Compare these with each other, commas between; the first is the reference."),
    ] = None,
    seeds: Annotated[int, Option(help="Runs of each row, with seeds 0, 1, ...", min=1)] = 5,
    tables: Annotated[
        str | None,
        Option(
            help="1 systems, 2 modules, 3 fusion modules, 4 guided modality, 5 ours; 2e and 4e in "
            "the elements view; 6 encoders, alone with --encoders unless others are named."
        ),
    ] = None,
    figures: Annotated[
        str | None, Option(help="Of the paper, 6,6e,8,9,9e; empty for none. None with --encoders.")
    ] = None,
    methods: Annotated[str | None, Option(help="Only these rows: sgmft-tokens,mplug,...")] = None,
    rows: Annotated[
        Path | None, Option(metavar="FILE", help="TOML file of rows and tables of your own.")
    ] = None,
    answers: Annotated[
        list[str] | None,
        Option(help="NAME=FILE of id and label, or NAME=COLUMN: answers as a row. Repeat."),
    ] = None,
    test: Annotated[str | None, Option(help="COLUMN=VALUE of test posts; else a fifth.")] = None,
    test_size: Annotated[float | None, Option(help="Share of test posts; by default 0.2.")] = None,
    folds: Annotated[
        int | None, Option(help="Test each post once, in one of so many splits.", min=2)
    ] = None,
    repeats: Annotated[int, Option(help="How often splits or folds are drawn.", min=1)] = 1,
    split_seed: Annotated[int, Option(help="Of the first draw; the next have the next.")] = 0,
    splits: Annotated[
        str | None, Option(help="Table of id, split, role (train, validation, test); or id, fold.")
    ] = None,
    split_by: Annotated[str, Option(help="label, user, or auto: by user if known.")] = "auto",
    by: opt.By = None,
    trials: Annotated[int, Option(help="Values tried of a system's setting.", min=1, max=7)] = 3,
    epochs: Annotated[int | None, Option(help="At most, for a quick look.", min=1)] = None,
    workers: Annotated[
        int | None, Option(help="Processes; one for each processor, or 1 with a GPU.", min=1)
    ] = None,
    finished_only: Annotated[bool, Option(help="Run nothing; report what is finished.")] = False,
    features: opt.Features = None,
    features_table: opt.FeaturesTable = None,
    device: opt.Device = None,
) -> None:
    """Compare the default, SG-MFT and other systems, whole and in parts; writes report.html.

    A run that was stopped continues where it was.
    """
    from sgmft.utils.extras import needs_extra

    with needs_extra("torch", "sgmft compare"):
        from sgmft.evaluation.compare.catalogue import make_plan
        from sgmft.evaluation.compare.splits import Split
        from sgmft.jobs.compare import compare_table, default_workers

    named = None if encoder == "compact" else encoder
    some = [name.strip() for name in (encoders or "").split(",") if name.strip()]
    usual = ("6", "") if some else ("1,2,2e,3,4,4e,5", "6,6e,8,9,9e")
    plan = make_plan(
        tables or usual[0],
        usual[1] if figures is None else figures,
        methods,
        some,
        rows,
        encoder=opt.pick_encoder(named, features_table) or encoder,
        seeds=seeds,
        trials=trials,
        epochs=epochs,
        workers=workers or default_workers(device),
        device=device,
        finished_only=finished_only,
    )
    chosen = next(iter(opt.parse_pairs([test] if test else [], "--test").items()), None)
    with console.ProgressBars() as bars:
        summary, results, report = compare_table(
            source,
            output,
            plan,
            split=Split(chosen, split_by, folds, test_size, repeats, split_seed, splits),
            by=by or (),
            answers=opt.parse_pairs(answers, "--answers"),
            features=console.feature_folder(features),
            command=shlex.join(["sgmft", *sys.argv[1:]]),
            on_encoded=lambda stage, done: bars.show(f"Encoding posts, {stage}", done),
            on_progress=lambda done, total, what: bars.show("Trials and runs", done, total, what),
        )
    console.print_errors(summary)
    print_comparison(results)
    console.print_line(f"Report: {report}")


def print_comparison(tables: "Sequence[ResultTable]") -> None:
    """Print the figures of every row, and what failed."""
    from rich.table import Table

    from sgmft.evaluation.compare.report import ESTIMATES, view_table

    for grid in (view_table(table).main for table in tables):
        table = Table(*grid.header[: ESTIMATES + 1], title=grid.title, title_justify="left")
        for entry in grid.entries:
            cells = (", ".join([x.text, *x.more]) for x in entry.cells[:ESTIMATES])
            table.add_row(entry.title, *cells)
        console.screen.print(table)
