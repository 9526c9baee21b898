"""The command line: parse, call, print."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sgmft.align.command import align
from sgmft.compare.command import compare
from sgmft.errors import SgmftError
from sgmft.explain.command import explain
from sgmft.export.command import export
from sgmft.options import (
    PREFIX,
    Address,
    AllowOutside,
    Cleaning,
    Column,
    Device,
    Encoder,
    Engine,
    Features,
    Merge,
    Model,
    Output,
    Strict,
    Table,
    Tune,
    TuneLast,
    Where,
    Workers,
    engine_of,
    locator_of,
    pairs,
    source_of,
    tuning_of,
)
from sgmft.predict_command import predict
from sgmft.processes import count, is_main, number
from sgmft.serving.command import serve
from sgmft.stopping import Stopped, stoppable
from sgmft.suggest.command import suggest


class _Group(TyperGroup):
    """Ends what typer would end in its own way: signals with a word, a closed pipe without one."""

    def invoke(self, ctx: Any) -> Any:
        from sgmft.console import told_warnings

        try:
            with stoppable(), told_warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            again = shlex.join(["sgmft", *sys.argv[1:]])
            _say(f"sgmft: stopped; to continue with what is done so far: {again}")
            raise typer.Exit(stop.code if isinstance(stop, Stopped) else 130) from None
        except BrokenPipeError:  # whoever read our output has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    name="sgmft",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Predict the semantic location of social-media posts from their text and pictures "
    "(SG-MFT, arXiv 2405.05760).",
)


@app.callback()
def plugins(
    command: typer.Context,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Python file that registers a fusion module or method; repeat."),
    ] = None,
) -> None:
    """Load a user's own files before the command."""
    if count() > 1 and command.invoked_subcommand != "train":
        raise SgmftError(
            f"sgmft {command.invoked_subcommand} runs in one process: start it without torchrun or "
            "accelerate launch, which are for sgmft train."
        )
    if plugin:
        from sgmft.plugins import load_plugin

        for path in plugin:
            load_plugin(path)


@app.command()
def sample(
    folder: Annotated[str, typer.Argument(help="Folder to write; made if need be.")],
    posts: Annotated[int, typer.Option(help="How many posts.")] = 1400,
    seed: Annotated[int, typer.Option(help="Decides every post.")] = 0,
    damaged: Annotated[int, typer.Option(help="Damaged rows to add.")] = 0,
    noise: Annotated[float, typer.Option(help="0 is clean, 1 is mostly noise.")] = 0.35,
    users: Annotated[int, typer.Option(help="How many authors.")] = 60,
) -> None:
    """Write synthetic sample posts: a demonstration and test bed, never a benchmark."""
    from sgmft import console
    from sgmft.sample import write_sample

    with console.counter("Generating", posts) as done:
        table = write_sample(folder, posts, seed, damaged, noise, users, done)
    _say(f"Wrote {posts} synthetic posts to {table}")


@app.command()
def train(
    table: Table,
    output: Output,
    encoder: Encoder = None,
    method: Annotated[
        str, typer.Option(help="sgmft, or a compared system: mplug, unis-mmc, linear-probe, ...")
    ] = "sgmft",
    preset: Annotated[
        str | None, typer.Option(help="Of sgmft: default, elements, tokens or paper.")
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
    from sgmft import console
    from sgmft.jobs import train_table
    from sgmft.locator import SemanticLocator

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
    console.print_trained(locator, output)


@app.command()
def evaluate(
    model: Model,
    table: Table,
    output: Output,
    by: Annotated[
        list[str] | None, typer.Option(help="Column to break accuracy down by; repeat.")
    ] = None,
    features: Features = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Compare a model's predictions with a table's labels; writes report.html and metrics.json."""
    from sgmft import console
    from sgmft.assessment import evaluate_table

    source = source_of(table, where, column, allow_outside, strict)
    locator = locator_of(model, features, device)
    with console.counter("Predicting") as done:
        told, evaluation = evaluate_table(source, output, locator, by=by or (), on_predicted=done)
    console.print_errors(told)
    console.print_evaluation(evaluation)
    _say(f"Report: {Path(output) / 'report.html'}")


@app.command()
def encode(
    table: Table,
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
    from sgmft import console
    from sgmft.jobs import encode_table
    from sgmft.locator import SemanticLocator

    locator = SemanticLocator(encoder, cleaning=cleaning, features=output, device=device)
    source = source_of(table, where, column, allow_outside, strict)
    with (
        console.counter("Encoding") as done,
        engine_of(engine, address, workers, device) as cluster,
    ):
        if cluster is None:
            told, folder = encode_table(source, locator, tokens=tokens, on_encoded=done)
        else:
            from sgmft.scale.encoding import encode_pieces

            told, folder = encode_pieces(source, locator, cluster, tokens=tokens, on_encoded=done)
    console.print_errors(told)
    _say(f"Features of {told.posts - sum(told.errors.values())} posts are in {folder}")


app.command()(align)
app.command()(export)
app.command()(predict)
app.command()(explain)
app.command()(serve)
app.command()(suggest)
app.command()(compare)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Run the command line; exit codes 0 success, 2 a user's mistake, 130 or 143 stopped."""
    try:
        app()
    except SgmftError as error:
        _say(f"sgmft: {error}" if is_main() else f"sgmft, process {number()}: {error}")
        sys.exit(2)
