"""What the readers of `crawlers` and `archives`, which list tools that collect posts, share."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RawRow, RawTable, first_line
from sgmft.data.tables.cells import is_deep
from sgmft.data.tables.images import find_web_address
from sgmft.errors import SgmftError

OWN = ("text", "images", "id", "user", "time")
"""Columns that the tables of collectors begin with; ``images`` is a list of paths."""
ADDRESSES = "image_addresses"
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic", ".avif", ".bmp")
VIDEOS = (".mp4", ".mov")
MEDIA = (*PICTURES, *VIDEOS)
ToPost = Callable[[dict[str, Any]], tuple[Any, ...] | None]


@dataclass(frozen=True)
class Collector:
    """What one tool writes; `formats.COLLECTORS` lists all of them.

    Of a path `parts` lists what `read` opens: nothing, where it is not the tool's; the path itself;
    or files and folders in it (the sub-folders of a folder without any are looked at as well).
    Asked of its own part, it returns that part.
    """

    name: str  # as ``--format`` and messages have it; given to `adapt` and `read`
    columns: Sequence[set[str]] = ()  # a table that has all of one of these is the tool's
    adapt: Callable[[RawTable, Path, str], RawTable] | None = None  # returns the posts of such
    parts: Callable[[Path], list[Path]] | None = None
    read: Callable[[Path, str], RawTable] | None = None


def adapt_table(
    raw: RawTable, tool: str, to_post: ToPost, folder: Path | None = None, own: Sequence[str] = OWN
) -> RawTable:
    """Return a table with our own columns before the tool's.

    Of a record `to_post` returns the values of the columns `own`, or None where it is no post;
    ``images`` are paths from `folder` (by default the table's), whether there is a file or not, web
    addresses, or None for a picture of which nothing is known. Those that are not there are counted
    and left out; their addresses are kept in a column `ADDRESSES`, for ``sgmft fetch``. A column of
    the tool's that has one of our names and another value is kept as ``original.NAME``.
    """
    folder = raw.folder if folder is None else folder
    counts = Counter(posts=0, found=0, missing=0)

    def rows() -> Iterator[RawRow]:
        for row in raw.rows:
            if row.values and all(value == name for name, value in row.values.items()):
                continue  # a header, which some tools write in every run
            try:
                values = None if row.error is not None else to_post(row.values)
                post = dict(zip(own, values, strict=True)) if values else {}
                paths = [str(path or "") for path in post.get("images") or ()]
            except (AttributeError, KeyError, TypeError, ValueError):
                post, row = {}, replace(row, error=f"not laid out as {tool} does it")
            if not post:
                if row.error is not None:
                    counts["posts"] += 1
                    yield row
                continue
            gone = [path for path in paths if find_web_address(path)]
            there = [x for x in paths if x and x not in gone and os.path.lexists(folder / x)]
            counts.update(posts=1, found=len(there), missing=len(paths) - len(there))
            merged = post | {"images": there} | ({ADDRESSES: gone} if gone else {})
            for name, value in row.values.items():
                if name not in merged:
                    merged[name] = value
                elif str(value or "").strip() != str(merged[name] or "").strip():
                    merged[f"original.{name}"] = value
            yield replace(row, values=merged)

    columns = None if raw.columns is None else list(dict.fromkeys([*own, *raw.columns]))
    made = replace(raw, folder=folder, columns=columns, rows=rows(), label_columns=("label",))
    return replace(made, tool=tool, counts=counts)


def rebase(raw: RawTable, base: Path) -> RawTable:
    """Return a tool's table with paths of pictures from `base`, where they lie below it."""
    inside = os.path.relpath(raw.folder, base)
    if raw.tool is None or inside.startswith(os.pardir) or inside == os.curdir:
        return raw

    def rows() -> Iterator[RawRow]:
        for row in raw.rows:
            images = [(Path(inside) / path).as_posix() for path in row.values.get("images") or ()]
            yield replace(row, values=row.values | {"images": images}) if images else row

    return replace(raw, folder=base, rows=rows())


def pick(values: Any, *paths: str) -> Any:
    """Return the first value that is not empty at some paths, as "user.name" or "media.0.url"."""
    for path in paths:
        value = values
        for key in path.split("."):
            if isinstance(value, list):
                value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        if value not in (None, "", [], {}):
            return value
    return None


def to_time(value: Any) -> Any:
    """Return a Unix time, in seconds or milliseconds, as ISO 8601; anything else as it is."""
    if isinstance(value, bool) or not re.fullmatch(r"\d{9,13}(\.\d+)?", str(value)):
        return value
    seconds = float(value) / (1000 if float(value) > 1e11 else 1)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def load_json(path: Path, after: str = "") -> Any:
    """Read a file of JSON, or what follows `after` in it; SgmftError where it is damaged."""
    try:
        text = path.read_text("utf-8-sig")
        return json.loads(text.partition(after)[2] if after else text)
    except (ValueError, RecursionError) as error:
        reason = first_line(error)
        raise SgmftError(f"{path} is not valid JSON ({reason}): export it again.") from None


def number_rows(items: Iterable[Any]) -> Iterator[RawRow]:
    """Yield a row for each item of a list; one that is no object has an error."""
    for number, item in enumerate(items, 1):
        fits = isinstance(item, dict) and not is_deep(item)
        reason = None if fits else "not an object of columns and values"
        yield RawRow(number, item if fits else {"line": str(item)[:500]}, reason)


def read_head(path: Path) -> str:
    """Return the beginning of a text file, by which a tool's is recognised."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(2**16)


def list_names(path: Path) -> list[str]:
    """List the files in a folder, in order; none where it is none."""
    return sorted(x.name for x in os.scandir(path) if x.is_file()) if path.is_dir() else []


def name_part(value: Any) -> str:
    """Return a cell that is part of a file's name; "" where it would lead to another folder."""
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    return "" if re.search(r"[/\\\0]|^\.*$", text) else text


class FileFinder:
    """Finds the pictures and videos of posts in folders that are listed once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = lru_cache(256)(self._list)

    def find(self, stems: Iterable[str], suffixes: Sequence[str] = PICTURES) -> str | None:
        """Return the first of some files that is there, from the folder."""
        for stem in stems:
            at, _, name = stem.rpartition("/")
            if there := self._names(at):
                for suffix in suffixes:
                    if name + suffix in there:
                        return stem + suffix
        return None

    def media(
        self, stems: Sequence[str], urls: Any, clips: Iterable[str], mark: str = "_", start: int = 1
    ) -> list[str | None]:
        """Return the pictures of a post, STEM, or of several STEM_1, STEM_2 and so on; its video.

        Numbers begin with `start`, after a `mark`. The address, in a cell with commas, of which 无
        is none, stands for a picture that is not there. The video lies at one of the `clips`.
        """
        listed = [x for x in map(str.strip, str(urls or "").split(",")) if x not in ("", "无")]
        alone = mark and not listed[1:]
        ends = ["" if alone else f"{mark}{start + i}" for i in range(len(listed))]
        found = (self.find([stem + end for stem in stems]) for end in ends)
        images = [file or find_web_address(url) for file, url in zip(found, listed, strict=True)]
        video = self.find(clips, VIDEOS)
        return [*images, *[video] * (video is not None)]

    def _list(self, at: str) -> frozenset[str]:
        with suppress(OSError, ValueError):
            return frozenset(os.listdir(self._folder / at))  # noqa: PTH208
        return frozenset()
