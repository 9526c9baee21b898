"""`sgmft align`: adapt an encoder to pairs of text and picture."""

from functools import partial
from typing import Annotated

from rich.table import Table
from typer import Option

from sgmft.cli import console, options as opt
from sgmft.errors import SgmftError, needs_extra


@opt.reads_posts
def align_command(
    source: "opt.Source",
    output: opt.Output,
    encoder: opt.Encoder = None,
    tune: Annotated[str | None, Option(help=opt.HELP["tune"])] = None,
    tune_last: opt.TuneLast = None,
    merge: opt.Merge = False,
    width: Annotated[int, Option(min=2, help="Of a shared space; not of a dual encoder.")] = 256,
    seed: Annotated[int, Option(help="Decides held-out pairs, weights and order.")] = 0,
    settings: Annotated[list[str] | None, Option("--set", help="tune.NAME=VALUE; repeat.")] = None,
    cleaning: opt.Cleaning = None,
    features: opt.Features = None,
    device: opt.Device = None,
) -> None:
    """Adapt an encoder to your own posts' pairs of text and picture; labels are not needed."""
    from sgmft.features.encoder_handle import EncoderHandle

    with needs_extra("torch", "sgmft align"):
        from sgmft.jobs.align import DUAL, align_encoder

    named = opt.parse_pairs(settings, "--set")
    if unknown := next((name for name in named if not name.startswith(opt.TUNE)), None):
        raise SgmftError(f"--set {unknown}=...: aligning has settings that begin with {opt.TUNE}")
    kind = tune or ("lora" if tune_last or merge or named else None)
    if kind is not None:
        named = {f"{opt.TUNE}batch_size": str(DUAL.batch_size), **named}
    tuning = None if kind is None else opt.make_tuning(kind, tune_last, merge, named)
    store = console.feature_folder(features)
    handle = EncoderHandle(encoder or "compact", cleaning or "light", features=store, device=device)
    posts = source.read_posts()
    with console.ProgressBars() as bars:
        encoded = partial(bars.encoded, total=len(posts))
        result = align_encoder(posts, output, handle, tuning, width, seed, encoded, bars.epoch)
    console.print_counts(result.skipped, f"{sum(result.skipped.values())} posts were left out:")
    recalls = Table(f"among {result.held_out} held-out pairs", "before", "after")
    for name, after in result.after.items():
        before = "-" if result.before is None else f"{result.before[name]:.3f}"
        recalls.add_row(name, before, f"{after:.3f}")
    console.screen.print(recalls)
    if result.before is None:
        console.screen.print("Before, texts and pictures shared no space.")
    console.screen.print(f"Learned from {result.pairs} pairs. Use it with --encoder {output}")
