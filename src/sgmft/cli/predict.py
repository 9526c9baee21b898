"""`sgmft predict`: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sgmft.cli.options import (
    Address,
    AllowOutside,
    Column,
    Device,
    Engine,
    Features,
    Output,
    Strict,
    Where,
    Workers,
    engine_of,
    source_of,
)
from sgmft.errors import SgmftError

if TYPE_CHECKING:
    from sgmft.locator.locator import SemanticLocator
    from sgmft.locator.prediction import Predictor


def predict(
    model: Annotated[
        str, typer.Argument(help="As `sgmft train` or `export` wrote it; none with --zero-shot.")
    ],
    table: Annotated[str | None, typer.Argument(help="Posts, as for train.")] = None,
    output: Output = "-",
    coverage: Annotated[
        float | None,
        typer.Option(
            help="Add the set of labels that holds the true one for this share of posts, 0.9 for "
            "instance, and leave the label empty where the set has not exactly one."
        ),
    ] = None,
    min_probability: Annotated[
        float | None, typer.Option(help="Leave the label empty below this probability.")
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(
            help="Leave the label empty for posts that seem to be of none of the labels, at the "
            "cost of this share of those that are, 0.05 for instance."
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="torch, or onnx for a folder that `sgmft export` wrote; by default what the "
            "folder holds."
        ),
    ] = None,
    zero_shot: Annotated[
        str | None, typer.Option(help="LABEL=DESCRIPTION|DESCRIPTION;LABEL=... for a model.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="With --zero-shot; as for train.")] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of a shard at most, where the output is a folder; 1024."),
    ] = None,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    features: Features = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Write a table again with a label, probabilities and, for bad rows, the reason.

    An output without a suffix is a folder of Parquet shards: what was stopped continues there, and
    a cluster can write it.
    """
    from sgmft.cli import console
    from sgmft.locator.abstention import Abstention
    from sgmft.locator.onnx.manifest import is_exported

    abstain = Abstention(coverage, min_probability, reject)
    if zero_shot is None and (table is None or encoder):
        raise SgmftError(
            "predict needs a model and a table: sgmft predict MODEL TABLE."
            if table is None
            else "A model brings its encoder: leave --encoder out."
        )
    if zero_shot is None and features not in (None, "none") and is_exported(model):
        raise SgmftError("An exported model keeps no features: leave out --features.")
    if zero_shot is not None and table is not None:
        raise SgmftError(f"With --zero-shot there is no model: leave {model} out.")
    source = source_of(table or model, where, column, allow_outside, strict)
    in_shards = output != "-" and not Path(output).suffix
    if not in_shards and (engine == "ray" or shard_rows):
        raise SgmftError(f"{output} is one file: for shards, give the name of a folder.")
    if in_shards and zero_shot is not None:
        raise SgmftError(f"With --zero-shot the output is one file, not a folder: {output}.csv?")
    with console.counter("Predicting") as done:
        if in_shards:
            from sgmft.jobs.cluster.pieces import ROWS, run_here
            from sgmft.jobs.predict import ModelAt, predict_shards

            with engine_of(engine, address, workers, device) as cluster:
                folder = console.feature_folder(features or ("none" if cluster else None))
                told = predict_shards(
                    source,
                    output,
                    ModelAt(model, runtime, folder, device),
                    abstain=abstain,
                    rows=shard_rows or ROWS,
                    engine=cluster or run_here,
                    on_predicted=done,
                )
        else:
            from sgmft.jobs.predict import predict_table
            from sgmft.locator.loading import load_predictor

            locator: Predictor
            adapt = None
            folder = console.feature_folder(features)
            if zero_shot is None:
                locator = load_predictor(model, runtime, folder, device)
            else:
                described = _describe(zero_shot, encoder, folder, device)
                locator, adapt = described, described.adapt
            told = predict_table(
                source, output, locator, abstain=abstain, adapt=adapt, on_predicted=done
            )
    console.print_errors(told)
    if output != "-":
        print(f"Wrote {told.posts} rows to {output}", file=sys.stderr)


def _describe(
    words: str, encoder: str | None, features: Path | None, device: str | None
) -> SemanticLocator:
    from sgmft.locator.locator import SemanticLocator
    from sgmft.locator.zero_shot import parse_descriptions

    return SemanticLocator.zero_shot(
        parse_descriptions(words), encoder, features=features, device=device
    )
