"""`sgmft audit`: find what is wrong with labelled posts before training."""

from functools import partial
from typing import Annotated

from typer import Option

from sgmft.cli import console, options as opt


@opt.reads_posts
def audit_command(
    source: "opt.Source",
    output: opt.Output,
    encoder: opt.Encoder = None,
    cleaning: opt.Cleaning = None,
    split: Annotated[str, Option(help="Column with the side of a split.")] = "split",
    lang: opt.Lang = None,
    most: Annotated[int, Option(help="Doubtful labels on the page.", min=1)] = 100,
    features: opt.Features = None,
    device: opt.Device = None,
) -> None:
    """Find wrong labels, duplicates, and what gives a label away; on its page they are mended."""
    from sgmft.jobs.audit import audit_table
    from sgmft.locator.locator import SemanticLocator

    folder = console.feature_folder(features)
    locator = SemanticLocator(encoder, cleaning=cleaning, features=folder, device=device)
    with console.ProgressBars() as bars:
        encoded = partial(bars.show, "Encoding posts")
        summary, found = audit_table(source, output, locator, split, lang, most, encoded, bars.step)
    console.print_errors(summary)
    console.print_text("audited", **found, table=source.table)
