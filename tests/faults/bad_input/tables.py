"""Tables: any bytes are posts, each row with its reason if it is bad, or one sentence."""

import csv
import io
import re
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

from bad_input import table_seeds
from bad_input.folder import table_folder
from bad_input.round_trip import written_and_read
from bad_input.target import Outcome, Target, one_line, promise
from bad_input.watch import watched

from sgmft.data.posts import Attachment, Post
from sgmft.data.tables import iter_posts
from sgmft.errors import SgmftError

MOST = 2000  # posts of one table: a few bytes of Parquet may say that there are a billion


def check_table(data: bytes, suffix: str) -> Outcome:
    """Read `data` as a table of that kind, hold the posts against it, and write them again."""
    folder = table_folder()
    path = folder / f"posts{suffix}"
    path.write_bytes(data)
    with watched(folder):
        try:
            posts = list(islice(iter_posts(path), MOST))
        except SgmftError as error:
            message = str(error).replace(f"{folder}/", "")
            promise(path.name in message, f"a message names no file: {message!r}")
            return Outcome(refused=Counter([one_line(message)]))
    refused: Counter[str] = Counter()
    for post in posts:
        _check_post(post, folder)
        if post.error is not None:
            refused[one_line(post.error)] += 1
    if len(posts) < MOST:
        _COUNTS.get(suffix, _count_nothing)(data, posts)
    if posts:  # JSON lines without a line are no table
        written_and_read([post.row for post in posts[:50]], data, folder)
    return Outcome(len(posts) - sum(refused.values()), refused)


def _check_post(post: Post, folder: Path) -> None:
    for text in (post.text, post.id or "", post.label or "", post.user or ""):
        text.encode()  # nothing behind a table need fear a lone surrogate
    promise(post.place.isprintable(), f"a place is no printable line: {post.place!r}")
    promise(
        bool(post.error or post.text.strip() or post.images), "a good post has nothing to go on"
    )
    for file in post.images:
        inside = isinstance(file, Attachment) or _is_inside(Path(file), folder)
        promise(inside, f"a picture lies outside the folder: {file}")


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether whoever opens the file would open one below the folder, or none at all."""
    try:
        return file.resolve().is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):  # a name too long, a link to itself, a NUL
        return True


def _count_lines(data: bytes, posts: list[Post]) -> None:
    """JSON lines: a post for each line that is not blank."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    text = data.decode("utf-8-sig", "surrogateescape")
    lines = [line for line in re.split("\r\n|\r|\n", text) if line and not line.isspace()]
    promise(len(posts) == len(lines), f"{len(lines)} lines gave {len(posts)} posts")


def _count_cells(data: bytes, posts: list[Post], marks: str = ",;\t") -> None:
    """Delimited text: every cell of every record stands in the row of its post."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    found = [[x for x in post.row.values() if x is not None] for post in posts]
    for mark in marks:
        records = [x for x in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if x]
        if found == records[1:]:
            return
    promise(False, f"not all cells came back: {found!r:.300}")


def _count_nothing(data: bytes, posts: list[Post]) -> None:
    """Nothing is known of how many rows there must be."""


_COUNTS = {".csv": _count_cells, ".tsv": partial(_count_cells, marks="\t"), ".jsonl": _count_lines}

TABLES = [
    Target(
        f"tables {suffix}",
        partial(check_table, suffix=suffix),
        partial(table_seeds.seeds, suffix),
        table_seeds.WORDS,
    )
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet")
]
