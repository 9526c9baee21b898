"""`sgmft fetch`: download the pictures of a table."""

import sys
from typing import Annotated

import typer
from typer import Option

from sgmft.cli import console
from sgmft.cli import options as opt


def fetch_command(
    table: opt.PostsTable,
    output: Annotated[
        str, Option("--output", "-o", help="A folder, for the table and its pictures.")
    ],
    referer: Annotated[
        str | None,
        Option(
            help="Address sent as Referer; https://weibo.com/ to the hosts of Weibo's pictures."
        ),
    ] = None,
    max_files: Annotated[int, Option(min=1, help="Downloads in one run.")] = 100_000,
    max_size: Annotated[int, Option(min=1, help="MiB of one file.")] = 64,
    max_total: Annotated[int, Option(min=1, help="GiB of one run.")] = 20,
    timeout: Annotated[float, Option(min=1, help="Seconds for one attempt at one file.")] = 60,
    attempts: Annotated[int, Option(min=1, help="At one file.")] = 3,
    per_host: Annotated[int, Option(min=1, max=16, help="Downloads at once from one host.")] = 4,
    wait: Annotated[float, Option(min=0, help="Seconds between two requests to one host.")] = 0.1,
    allow_private: Annotated[
        bool,
        Option(help="Also addresses in private, loopback, link-local and reserved networks."),
    ] = False,
    proxy: Annotated[
        str | None,
        Option(help="Address of a proxy; it looks up the hosts, whose networks go unchecked."),
    ] = None,
    column: opt.Column = None,
    format: opt.Format = None,
    allow_outside: opt.AllowOutside = False,
) -> None:
    """Download the pictures whose web addresses a table holds; no other command fetches anything.

    The table is written into the folder with the paths of the files. Run it again to continue, or
    to try what failed.
    """
    from sgmft.jobs.fetch import fetch_table
    from sgmft.utils.download import DownloadSettings

    settings = DownloadSettings(
        max_bytes=max_size * 2**20,
        timeout=timeout,
        attempts=attempts,
        per_host=per_host,
        wait=wait,
        referer=referer,
        allow_private=allow_private,
        proxy=proxy,
    )
    source = opt.make_source(table, None, column, allow_outside, False, format)
    with console.counter("Fetching") as done:
        summary = fetch_table(
            source,
            output,
            settings,
            max_files=max_files,
            max_total=max_total * 2**30,
            on_fetched=done,
        )
    failed = summary.failed.total()
    found = summary.fetched + summary.there
    console.print_counts(
        dict(summary.failed.most_common()), f"{failed} of {failed + found} addresses gave no file:"
    )
    lines = [f"{summary.fetched} pictures fetched, {summary.there} there already"]
    if summary.report is not None:
        lines.append(f"Rows and reasons of those that failed: {summary.report}")
    lines.append(f"Wrote {summary.rows} rows to {summary.table}")
    print("\n".join(lines), file=sys.stderr)
    if failed and not found:
        raise typer.Exit(1)
