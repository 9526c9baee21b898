"""`sgmft convert`: posts from any source as a table."""

from sgmft.cli import console, options as opt


def convert_command(
    table: opt.PostsTable,
    output: opt.Output,
    where: opt.Where = None,
    column: opt.Column = None,
    format: opt.Format = None,
    strict: opt.Strict = False,
) -> None:
    """Write posts, from a collecting tool's folder for instance, as one table with our columns."""
    from sgmft.jobs.convert import convert_table

    summary = convert_table(opt.make_source(table, where, column, format, True, strict), output)
    console.print_errors(summary)
    if output != "-":
        console.print_line(f"Wrote {summary.posts} posts to {output}")
