"""The command `sgmft explain`: parse, call, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sgmft.cli.options import (
    AllowOutside,
    Column,
    Device,
    Model,
    Output,
    PostsTable,
    Strict,
    Where,
    locator_of,
    source_of,
)


def explain(
    model: Model,
    table: PostsTable,
    output: Output,
    row: Annotated[int | None, typer.Option(help="Only the table's row of this number.")] = None,
    posts: Annotated[int, typer.Option(help="At most so many, the first.", min=1)] = 20,
    label: Annotated[
        str | None, typer.Option(help="The label to explain; by default the most probable.")
    ] = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Show why a model says what it says of a post: a page (.html), or numbers (.json).

    TABLE may also be a .json file with one post. One post of a table: --where id=..., or --row.
    """
    from sgmft.cli import console
    from sgmft.jobs.explain import explain_table

    source = source_of(table, where, column, allow_outside, strict)
    locator = locator_of(model, "none", device)
    with console.counter("Explaining") as done:
        told, summaries = explain_table(
            source, output, locator, row=row, most=posts, label=label, on_explained=done
        )
    console.print_errors(told)
    for line in summaries:
        print(line, file=sys.stderr)
    print(f"Explanation: {output}", file=sys.stderr)
