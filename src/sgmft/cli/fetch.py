"""`sgmft fetch`: download the pictures of a table."""

from typing import Annotated, Any

from typer import Exit, Option

from sgmft.cli import console, options as opt
from sgmft.errors import NoUsableRowError


def fetch_command(
    table: opt.PostsTable,
    output: Annotated[str, Option("--output", "-o", help="Folder for the table and its pictures.")],
    referer: Annotated[str | None, Option(help=opt.HELP["referer"])] = None,
    max_files: Annotated[int, Option(min=1, help="Downloads in one run.")] = 100_000,
    max_size: Annotated[int, Option(min=1, help="MiB of one file.")] = 64,
    max_total: Annotated[int, Option(min=1, help="GiB of one run.")] = 20,
    timeout: Annotated[float, Option(min=1, help="Seconds for one attempt.")] = 60,
    wait: Annotated[float, Option(min=0, help="Seconds between requests to a host.")] = 0.1,
    allow_private: Annotated[bool, Option(help="Also from private networks.")] = False,
    proxy: Annotated[str | None, Option(help=opt.HELP["proxy"])] = None,
    column: opt.Column = None,
    format: opt.Format = None,
    allow_outside: opt.AllowOutside = False,
) -> None:
    """Download the pictures whose web addresses a table holds; no other command fetches anything.

    The folder gets the table, with the files' paths. Run it again to continue or try what failed.
    """
    from sgmft.jobs.fetch import fetch_table
    from sgmft.utils.download import DownloadSettings

    source = opt.make_source(table, None, column, format, allow_outside)
    own: dict[str, Any] = {"wait": wait, "referer": referer, "allow_private": allow_private}
    settings = DownloadSettings(max_size * 2**20, timeout, proxy=proxy, **own)
    with console.counter("Fetching") as done:
        summary = fetch_table(source, output, settings, max_files, max_total * 2**30, done)
    failed, found = summary.failed.total(), summary.fetched + summary.there
    reasons = dict(summary.failed.most_common())
    console.print_counts(reasons, f"{failed} of {failed + found} addresses gave no file:")
    console.print_text("fetched", found=summary)
    if failed and not found:
        raise Exit(NoUsableRowError.exit_code)
