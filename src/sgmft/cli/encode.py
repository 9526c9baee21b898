"""`sgmft encode`: fill a feature store."""

from typing import Annotated

from typer import Option

from sgmft.cli import console, options as opt


@opt.reads_posts
def encode_command(
    source: "opt.Source",
    output: opt.Output,
    encoder: opt.Encoder = None,
    text_encoder: opt.TextEncoder = None,
    image_encoder: opt.ImageEncoder = None,
    cleaning: opt.Cleaning = None,
    tokens: Annotated[bool | None, Option(help=opt.HELP["tokens"])] = None,
    engine: opt.Engine = None,
    address: opt.Address = None,
    workers: opt.Workers = None,
    summary_file: opt.Summary = None,
    device: opt.Device = None,
) -> None:
    """Encode posts into a feature store, which `--features` of the other commands reads."""
    from sgmft.jobs.encode import encode_table
    from sgmft.locator.locator import SemanticLocator

    encoder = opt.pick_encoder(encoder, None, text_encoder, image_encoder)
    locator = SemanticLocator(encoder, cleaning=cleaning, features=output, device=device)
    opening = opt.open_engine(engine, address, workers, device)
    with console.counter("Encoding") as done, opening as run:
        summary, folder = encode_table(source, locator, tokens=tokens, engine=run, on_encoded=done)
    wrote = f"Features of {summary.used} posts are in {folder}"
    console.finish(summary, summary_file, locator.encoder_name, wrote)
