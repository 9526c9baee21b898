"""`sgmft suggest`: choose posts worth labelling."""

from dataclasses import replace
from typing import Annotated

from typer import Option

from sgmft.cli import console, options as opt
from sgmft.errors import SgmftError


@opt.reads_posts
def suggest_command(
    source: "opt.Source",
    output: Annotated[str, Option("--output", "-o", help=opt.HELP["output"])],
    number: Annotated[int, Option("-n", help="How many posts to suggest.", min=1)] = 200,
    model: Annotated[str | None, Option(help="A trained model; weighs by its doubts.")] = None,
    labels: Annotated[str | None, Option(help="Choices for annotators: Home,School,...")] = None,
    labelled: Annotated[list[str] | None, Option(help="Table of labelled posts; repeat.")] = None,
    disagree: Annotated[str | None, Option(help=opt.HELP["disagree"])] = None,
    encoder: opt.Encoder = None,
    cleaning: opt.Cleaning = None,
    features: opt.Features = None,
    device: opt.Device = None,
    seed: Annotated[int, Option(help="Decides what is looked at of a large table.")] = 0,
) -> None:
    """Choose the posts most worth labelling, as Label Studio tasks or a table to fill in."""
    from sgmft.jobs.suggest import labelled_source, suggest_table, table_folder
    from sgmft.locator.locator import SemanticLocator

    known = [labelled_source(other, source) for other in labelled or ()]
    elsewhere = any(x.columns.label for x in known) and source.table != "-"  # that is read once
    if elsewhere and source.columns.label not in source.columns_seen():
        source = replace(source, columns=replace(source.columns, label=None))
    folder = console.feature_folder(features)
    if model is None:
        locator = SemanticLocator(encoder, cleaning=cleaning, features=folder, device=device)
    elif encoder or cleaning:
        raise SgmftError("A model brings its encoder and its cleaning: leave both options out.")
    else:
        locator = opt.load_locator(model, features, device)
    choices = [*filter(None, map(str.strip, (labels or "").split(",")))]
    with console.counter("Encoding") as done:
        found = suggest_table(
            source, output, locator, number, choices, known, seed, disagree, on_encoded=done
        )
    console.print_errors(found.summary)
    moved = output != "-" and table_folder(output) != found.folder
    console.print_text("suggested", found=found, output=output, moved=moved)
