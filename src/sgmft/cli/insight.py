"""`sgmft insight`: shares of places, from predicted or given labels."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from sgmft.cli import console, options as opt


def insight_command(
    model: Annotated[str, Argument(help=opt.HELP["insight_model"])],
    table: Annotated[str | None, Argument(help="Posts to predict, where a model is named.")] = None,
    output: opt.Output = "insight",
    by: Annotated[list[str] | None, Option(help="Columns, commas between, or repeat.")] = None,
    before_after: Annotated[str | None, Option(help=opt.HELP["before_after"])] = None,
    min_users: Annotated[int, Option(min=1, help=opt.HELP["min_users"])] = 5,
    examples: Annotated[bool, Option(help="Show a few texts of each place, too.")] = False,
    reject: Annotated[float | None, Option(help=opt.HELP["reject"])] = None,
    utc_offset: Annotated[float, Option(help="Hours to add to times given in UTC.")] = 0.0,
    lang: opt.Lang = None,
    features: opt.Features = None,
    where: opt.Where = None,
    column: opt.Column = None,
    format: opt.Format = None,
    allow_outside: opt.AllowOutside = False,
    summary_file: opt.Summary = None,
) -> None:
    """Show shares of places, corrected for the model's errors: when, where, and changes."""
    from sgmft.jobs.insight import InsightSettings, insight_table
    from sgmft.locator.loading import load_predictor

    predictor = None
    if table is not None:
        predictor = load_predictor(model, features=console.feature_folder(features))
    source = opt.make_source(table or model, where, column, format, allow_outside)
    names = [name for part in by or () for name in part.split(",") if name]
    how = InsightSettings(names, before_after, min_users, examples, reject, utc_offset, lang)
    with console.counter("Reading") as done:
        found = insight_table(source, output, predictor, how, done)
    console.print_text("insight", found=found)
    page = f"Page: {Path(output) / 'insight.html'}"
    console.finish(found.summary, summary_file, None if table is None else model, page)
