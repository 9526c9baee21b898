"""`sgmft train`: fit a model on labelled posts."""

from typing import Annotated, Any

from typer import Option

from sgmft.cli import console, options as opt

AUTO = "auto:"  # and names of encoders of which the best is kept


@opt.reads_posts
def train_command(
    source: "opt.Source",
    output: opt.Output,
    encoder: opt.Encoder = None,
    text_encoder: opt.TextEncoder = None,
    image_encoder: opt.ImageEncoder = None,
    method: Annotated[str | None, Option(help=opt.HELP["method"])] = None,
    preset: Annotated[str | None, Option(help=opt.HELP["preset"])] = None,
    cleaning: opt.Cleaning = None,
    tune: Annotated[str, Option(help=opt.HELP["tune_kind"])] = "head",
    tune_last: opt.TuneLast = None,
    merge: opt.Merge = False,
    val_size: Annotated[float | None, Option(help="Share held out to choose the epoch.")] = None,
    split_by: Annotated[str, Option(help="label, or user: no user in both parts.")] = "label",
    seed: Annotated[int, Option(help="Decides split, weights and order.")] = 0,
    settings: Annotated[list[str] | None, Option("--set", help=opt.HELP["settings"])] = None,
    class_weights: opt.ClassWeights = None,
    soft_labels: Annotated[bool, Option("--soft-labels", help=opt.HELP["soft_labels"])] = False,
    annotators: Annotated[str | None, Option(help=opt.HELP["annotators"])] = None,
    fixes: opt.Fixes = None,
    attributes: opt.Attributes = None,
    features: opt.Features = None,
    features_table: opt.FeaturesTable = None,
    track: Annotated[str | None, Option(help=opt.HELP["track"])] = None,
    device: opt.Device = None,
    config: opt.Config = None,
) -> None:
    """Train a model on labelled posts. A run that was stopped continues where it was.

    Features of text and picture together are used too, where the encoder has them.
    """
    from sgmft.jobs.evaluate import describe_table
    from sgmft.jobs.train import train_best
    from sgmft.locator.locator import SemanticLocator

    named = opt.parse_pairs(settings, "--set")
    named |= {"class_weights": "true"} if class_weights else {}
    given: dict[str, Any] = {
        "method": method,
        "preset": preset,
        "cleaning": cleaning,
        "settings": {k: x for k, x in named.items() if not k.startswith(opt.TUNE)},
        "tune": opt.make_tuning(tune, tune_last, merge, named) or tune,
        "val_size": val_size,
        "seed": seed,
        "attributes": (attributes or "").split(","),
        "features": console.feature_folder(features),
        "device": device,
    }
    tried = [opt.pick_encoder(encoder, features_table, text_encoder, image_encoder)]
    if encoder is not None and encoder.startswith(AUTO):
        tried = [*filter(None, map(str.strip, encoder.removeprefix(AUTO).split(",")))] or tried
    locators = [SemanticLocator(name, **given) for name in tried]
    with console.ProgressBars() as bars:
        summary, locator = train_best(
            source,
            output,
            locators,
            fixes=fixes,
            soft_labels=soft_labels,
            annotators=[*filter(None, map(str.strip, (annotators or "").split(",")))],
            split_by=split_by,
            track=track,
            on_encoded=bars.encoded,
            on_epoch=bars.epoch,
            on_step=bars.step,
        )
    console.print_errors(summary)
    table = None if features_table is None else describe_table(locator)
    shown = {"table": table, "tried": len(locators), "output": output}
    console.print_text("trained", locator=locator, training=locator.training, **shown)
