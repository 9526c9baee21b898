"""`sgmft explain`: the evidence behind predictions."""

from typing import Annotated

from typer import Option

from sgmft.cli import console, options as opt


@opt.reads_posts
def explain_command(
    model: opt.Model,
    source: "opt.Source",
    output: opt.Output,
    row: Annotated[int | None, Option(help="Only the table's row of this number.")] = None,
    posts: Annotated[int, Option(help="At most so many, the first.", min=1)] = 20,
    label: Annotated[str | None, Option(help="To explain; else the most probable.")] = None,
    lang: opt.Lang = None,
    device: opt.Device = None,
) -> None:
    """Show why a model predicts what it predicts for a post: a page (.html), or numbers (.json).

    TABLE may also be a .json file with one post. One post of a table: --where id=..., or --row.
    """
    from sgmft.jobs.explain import explain_table

    locator = opt.load_locator(model, "none", device)
    with console.counter("Explaining") as done:
        summary, lines = explain_table(source, output, locator, row, posts, label, lang, done)
    console.print_errors(summary)
    for line in (*lines, f"Explanation: {output}"):
        console.print_line(line)
