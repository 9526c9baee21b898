"""`sgmft train`: parse, call, print."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from sgmft.cli.options import (
    PREFIX,
    AllowOutside,
    Cleaning,
    Column,
    Device,
    Encoder,
    Features,
    Merge,
    Output,
    PostsTable,
    Strict,
    Tune,
    TuneLast,
    Where,
    pairs,
    source_of,
    tuning_of,
)

if TYPE_CHECKING:
    from sgmft.locator.locator import SemanticLocator


def train(
    table: PostsTable,
    output: Output,
    encoder: Encoder = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="gated-experts (the default, our own), sgmft (the paper's network), or a compared "
            "system: mplug, unis-mmc, linear-probe, ..."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Of sgmft, which need not be named: tokens, elements, paper.")
    ] = None,
    cleaning: Cleaning = None,
    tune: Tune = "head",
    tune_last: TuneLast = None,
    merge: Merge = False,
    val_size: Annotated[
        float | None, typer.Option(help="Share held out to choose the epoch.")
    ] = None,
    split_by: Annotated[str, typer.Option(help="label, or user: no user on both sides.")] = "label",
    seed: Annotated[int, typer.Option(help="Decides split, weights and order.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of a preset's setting, or tune.NAME; repeat."),
    ] = None,
    features: Features = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    track: Annotated[str | None, typer.Option(help="Folder for TensorBoard logs.")] = None,
    device: Device = None,
) -> None:
    """Train a model on labelled posts. A run that was stopped continues where it was."""
    from sgmft.cli import console
    from sgmft.jobs.train import train_table
    from sgmft.locator.locator import SemanticLocator

    named = pairs(settings, "--set")
    locator = SemanticLocator(
        encoder,
        method=method,
        preset=preset,
        cleaning=cleaning,
        settings={name: value for name, value in named.items() if not name.startswith(PREFIX)},
        tune=tuning_of(tune, tune_last, merge, named) or tune,
        val_size=val_size,
        seed=seed,
        features=console.feature_folder(features),
        device=device,
    )
    with console.TrainingProgress() as progress:
        told = train_table(
            source_of(table, where, column, allow_outside, strict),
            output,
            locator,
            split_by=split_by,
            track=track,
            on_encoded=progress.encoded,
            on_epoch=progress.epoch,
        )
    console.print_errors(told)
    print_trained(locator, output)


def print_trained(locator: SemanticLocator, output: str) -> None:
    """Print what was trained, how it did on held-out posts, and where the model is."""
    from sgmft.cli import console

    data, metrics = locator.training.data, locator.training.metrics
    held_out = ""
    if data.validation:
        held_out = f"; {data.validation} posts held out to choose the epoch"
    elif metrics:
        held_out = "; each of them judged in turn by a fit without it"
    console.screen.print(f"Trained on {data.train} posts, {len(locator.labels)} labels{held_out}.")
    for name, value in metrics.items():
        console.screen.print(f"  {name}: {value:.3f}")
    if not (locator.training.tuning or {}).get("better", True):
        console.screen.print("No epoch of fine-tuning was better: the encoder stays as it was.")
    last = locator.training.history[-1]
    if not math.isnan(last["gate_entropy"]):
        console.screen.print(
            f"  guidance (1 = none): P^m {last['gate_entropy']:.4f}, "
            f"P^e {last['element_entropy']:.4f}"
        )
    console.screen.print(f"Method: {locator.method.title_with(locator.preset.name)}")
    console.screen.print(f"Model: {output}")
