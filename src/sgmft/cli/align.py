"""`sgmft align`: parse, call, print."""

from __future__ import annotations

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
    TuneLast,
    Where,
    pairs,
    source_of,
    tuning_of,
)

if TYPE_CHECKING:
    from sgmft.jobs.align import Aligned


def align(
    table: PostsTable,
    output: Output,
    encoder: Encoder = None,
    tune: Annotated[
        str | None, typer.Option(help="Of Chinese-CLIP: lora (by default) or full.")
    ] = None,
    tune_last: TuneLast = None,
    merge: Merge = False,
    width: Annotated[
        int, typer.Option(min=2, help="Of the shared space, for encoders other than Chinese-CLIP.")
    ] = 256,
    seed: Annotated[int, typer.Option(help="Decides held-out pairs, weights and order.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="tune.NAME=VALUE; repeat.")
    ] = None,
    cleaning: Cleaning = None,
    features: Features = None,
    where: Where = None,
    column: Column = None,
    allow_outside: AllowOutside = False,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Adapt an encoder to your own posts' pairs of text and picture; labels are not needed."""
    from sgmft.cli import console
    from sgmft.errors import SgmftError
    from sgmft.features.encoder_handle import EncoderHandle
    from sgmft.jobs.align import CLIP
    from sgmft.jobs.align import align as align_posts

    named = pairs(settings, "--set")
    if unknown := next((name for name in named if not name.startswith(PREFIX)), None):
        raise SgmftError(f"--set {unknown}=...: aligning has settings that begin with {PREFIX}")
    asked = tune or ("lora" if tune_last or merge or named else None)
    if asked is not None:
        named = {f"{PREFIX}batch_size": str(CLIP.batch_size), **named}
    tuning = None if asked is None else tuning_of(asked, tune_last, merge, named)
    source = EncoderHandle(
        encoder or "compact",
        cleaning or "light",
        features=console.feature_folder(features),
        device=device,
    )
    posts = source_of(table, where, column, allow_outside, strict).read_posts()
    with console.TrainingProgress() as progress:
        found = align_posts(
            posts,
            output,
            source,
            tuning=tuning,
            width=width,
            seed=seed,
            on_encoded=lambda done: progress.encoded(done, len(posts)),
            on_epoch=progress.epoch,
        )
    print_aligned(found, output)


def print_aligned(found: Aligned, output: str) -> None:
    """Print where the encoder is, and how well texts and pictures find each other."""
    from rich.table import Table

    from sgmft.cli import console

    if found.skipped:
        console.screen.print(f"{sum(found.skipped.values())} posts were left out:")
        for kind, count in found.skipped.items():
            console.screen.print(f"  {count:>6}  {kind}", markup=False, highlight=False)
    table = Table(f"among {found.held_out} held-out pairs", "before", "after")
    for name, after in found.after.items():
        before = "-" if found.before is None else f"{found.before[name]:.3f}"
        table.add_row(name, before, f"{after:.3f}")
    console.screen.print(table)
    if found.before is None:
        console.screen.print("Before, texts and pictures shared no space.")
    console.screen.print(f"Learned from {found.pairs} pairs. Use it with --encoder {output}")
