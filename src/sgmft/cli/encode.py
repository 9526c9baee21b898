"""`sgmft encode`: parse, call, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sgmft.cli.options import (
    Address,
    AllowOutside,
    Cleaning,
    Column,
    Device,
    Encoder,
    Engine,
    Output,
    PostsTable,
    Strict,
    Where,
    Workers,
    engine_of,
    source_of,
)


def encode(
    table: PostsTable,
    output: Output,
    encoder: Encoder = None,
    cleaning: Cleaning = None,
    tokens: Annotated[bool, typer.Option(help="Word and region features too.")] = True,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Encode posts into a feature store, which `--features` of the other commands reads."""
    from sgmft.cli import console
    from sgmft.jobs.encode import encode_table
    from sgmft.locator.locator import SemanticLocator

    locator = SemanticLocator(encoder, cleaning=cleaning, features=output, device=device)
    source = source_of(table, where, column, allow_outside, strict)
    with (
        console.counter("Encoding") as done,
        engine_of(engine, address, workers, device) as cluster,
    ):
        if cluster is None:
            told, folder = encode_table(source, locator, tokens=tokens, on_encoded=done)
        else:
            from sgmft.jobs.encode import encode_pieces

            told, folder = encode_pieces(source, locator, cluster, tokens=tokens, on_encoded=done)
    console.print_errors(told)
    print(
        f"Features of {told.posts - sum(told.errors.values())} posts are in {folder}",
        file=sys.stderr,
    )
