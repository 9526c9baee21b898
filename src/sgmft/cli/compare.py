"""`sgmft compare`: the tables and figures of the paper on a user's posts."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from typer import Context, Option

from sgmft.cli import console, options as opt
from sgmft.errors import needs_extra


@opt.reads_posts
def compare_command(
    context: Context,
    source: "opt.Source",
    output: opt.Output,
    encoder: Annotated[str, Option(help="Whose features are used; as for train.")] = "compact",
    encoders: Annotated[str | None, Option(help=opt.HELP["encoders"])] = None,
    seeds: Annotated[int, Option(help="Runs of each row, with seeds 0, 1, ...", min=1)] = 5,
    tables: Annotated[str | None, Option(help=opt.HELP["tables"])] = None,
    figures: Annotated[str | None, Option(help=opt.HELP["figures"])] = None,
    methods: Annotated[str | None, Option(help="Only these rows, and the reference.")] = None,
    rows: Annotated[Path | None, Option(help=opt.HELP["rows"], metavar="FILE")] = None,
    answers: Annotated[list[str] | None, Option(help=opt.HELP["answers"])] = None,
    test: Annotated[str | None, Option(help="COLUMN=VALUE of test posts; else a fifth.")] = None,
    test_size: Annotated[float | None, Option(help="Share of test posts; by default 0.2.")] = None,
    folds: Annotated[int | None, Option(help=opt.HELP["folds"], min=2)] = None,
    repeats: Annotated[int, Option(help="How often splits or folds are drawn.", min=1)] = 1,
    split_seed: Annotated[int, Option(help="Of the first draw; the next have the next.")] = 0,
    splits: Annotated[str | None, Option(help=opt.HELP["splits"])] = None,
    split_by: Annotated[str, Option(help="label, user, or auto: by user if known.")] = "auto",
    by: opt.By = None,
    trials: Annotated[int, Option(help=opt.HELP["trials"], min=1)] = 3,
    search: Annotated[bool, Option("--search", help=opt.HELP["search"])] = False,
    epochs: Annotated[int | None, Option(help="At most, for a quick look.", min=1)] = None,
    class_weights: opt.ClassWeights = None,
    workers: Annotated[int | None, Option(help=opt.HELP["compare_workers"], min=1)] = None,
    finished_only: Annotated[bool, Option(help="Run nothing; report what is finished.")] = False,
    attributes: opt.Attributes = None,
    features: opt.Features = None,
    features_table: opt.FeaturesTable = None,
    track: Annotated[str | None, Option(help=opt.HELP["compare_track"])] = None,
    lang: opt.Lang = None,
    device: opt.Device = None,
    config: opt.Config = None,
) -> None:
    """Compare the default, SG-MFT and other systems, whole and in parts; writes report.html.

    A run that was stopped continues where it was.
    """
    with needs_extra("torch", "sgmft compare"):
        from sgmft.evaluation.compare.catalogue import make_plan
        from sgmft.evaluation.compare.prepare import Split
        from sgmft.evaluation.compare.report import view_table
        from sgmft.jobs.compare import compare_table, default_workers

    named = None if encoder == "compact" else encoder
    some = [name.strip() for name in (encoders or "").split(",") if name.strip()]
    usual = ("6", "") if some else ("1,2,2e,3,4,4e,5", "6,6e,8,9,9e")
    shown = usual[0] if tables is None else tables, usual[1] if figures is None else figures
    options: Any = {"seeds": seeds, "trials": trials, "search": search, "epochs": epochs}
    options |= {"attributes": [*filter(None, (attributes or "").split(","))], "device": device}
    options |= {"encoder": opt.pick_encoder(named, features_table) or encoder}
    options |= {"workers": workers or default_workers(device), "finished_only": finished_only}
    plan = make_plan(*shown, methods, some, rows, balanced=class_weights is not None, **options)
    chosen = next(iter(opt.parse_pairs([test] if test else [], "--test").items()), None)
    command = shlex.join(["sgmft", *sys.argv[1:]])
    with console.ProgressBars() as bars:
        split = Split(chosen, split_by, folds, test_size, repeats, split_seed, splits)
        how: Any = {"split": split, "by": by or (), "command": command, "language": lang}
        how |= {"answers": opt.parse_pairs(answers, "--answers"), "track": track}
        how |= {"features": console.feature_folder(features)}
        how["on_encoded"] = lambda stage, done: bars.show(f"Encoding posts, {stage}", done)
        how["on_progress"] = lambda *x: bars.show("Trials and runs", *x)
        summary, results, report = compare_table(source, output, plan, **how)
    opt.write_config(context, report.with_name("config.toml"), command)
    console.print_errors(summary)
    for grid in (view_table(x).main for x in results):
        table = Table(*grid.header[:4], title=grid.title, title_justify="left")
        for entry in grid.entries:  # an interval and a p-value; the report has the rest
            cells = (", ".join([x.text, *x.more[1:2]]) for x in entry.cells[:3])
            table.add_row(entry.title, *cells)
        console.screen.print(table)
    console.print_line(f"Report: {report}")
