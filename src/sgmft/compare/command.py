"""The command `sgmft compare`: parse, call, print."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from sgmft.options import (
    AllowOutside,
    Column,
    Device,
    Features,
    Output,
    Strict,
    Table,
    Where,
    pairs,
    source_of,
)


def compare(
    table: Table,
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
        str | None, typer.Option(help="Only these rows of the tables: sgmft,mplug,...")
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
    from sgmft import console
    from sgmft.compare.job import compare_table, default_workers
    from sgmft.compare.plan import make_plan
    from sgmft.compare.prepare import Split

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
    with console.ComparisonProgress() as progress:
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
    console.print_comparison(found)
    print(f"Report: {path}", file=sys.stderr)
