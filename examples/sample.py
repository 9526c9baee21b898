"""`python examples/sample.py posts/`: write synthetic posts."""

import sys
from typing import Annotated

import typer
from synthetic.sample import write_sample
from typer import Argument, Option

from sgmft.cli import console
from sgmft.errors import SgmftError


def run(
    folder: Annotated[str, Argument(help="Folder to write; made if need be.")],
    posts: Annotated[int, Option(help="How many posts.")] = 1400,
    seed: Annotated[int, Option(help="Decides every post.")] = 0,
    damaged: Annotated[int, Option(help="Damaged rows to add.")] = 0,
    noise: Annotated[float, Option(help="0 is clean, 1 is mostly noise.")] = 0.35,
    users: Annotated[int, Option(help="How many authors.")] = 60,
) -> None:
    """Write synthetic sample posts: a demonstration and test bed, never a benchmark."""
    with console.counter("Generating", posts) as done:
        table = write_sample(folder, posts, seed, damaged, noise, users, done)
    rows = f" and {damaged} damaged rows" if damaged else ""
    console.print_line(f"Wrote {posts} synthetic posts{rows} to {table}")


if __name__ == "__main__":
    try:
        typer.run(run)
    except SgmftError as error:
        sys.exit(f"sample: {error}")
