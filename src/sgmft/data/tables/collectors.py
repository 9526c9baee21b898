"""The output of tools that collect posts, read as tables with our own columns.

A new tool is a file beside this one, and a line in `formats.COLLECTORS`.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RawRow, RawTable, Tally

OWN = ("text", "images", "id", "user", "time")
"""Columns that the tables of collectors begin with; ``images`` is a list of paths."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic", ".avif", ".bmp")
VIDEOS = (".mp4", ".mov")
ToPost = Callable[[dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Collector:
    """What one tool writes; `formats.COLLECTORS` lists all of them.

    A tool that writes tables has `columns` and `adapt`, one that writes anything else `parts` and
    `read`; one may have both.

    Attributes:
        name: of the tool, as ``--format`` and messages have it.
        columns: a table that has all columns of one of these is the tool's.
        others: likewise of tables that hold no posts, such as comments; left out of a folder.
        adapt: returns the posts of a table that was opened by its suffix, given its path.
        parts: lists what `read` opens of a path: nothing, where the path is not the tool's; the
            path itself; or files and folders in it (the sub-folders of a folder without any are
            looked at as well). Asked of its own part, it returns that part.
        read: opens a part; see `adapt_table`.
    """

    name: str
    columns: Sequence[frozenset[str]] = ()
    others: Sequence[frozenset[str]] = ()
    adapt: Callable[[RawTable, Path], RawTable] | None = None
    parts: Callable[[Path], list[Path]] | None = None
    read: Callable[[Path], RawTable] | None = None


def adapt_table(
    raw: RawTable, tool: str, to_post: ToPost, folder: Path | None = None, own: Iterable[str] = OWN
) -> RawTable:
    """Return a table with our own columns before the tool's.

    Pictures that are not there are counted, and left out. A column of the tool's that has one of
    our names and another value is kept as ``original.NAME``.

    Args:
        raw: the tool's records.
        tool: its name.
        to_post: returns, of the values of a record, those of our columns that are known; under
            ``images`` the paths where the tool puts the pictures, relative to `folder`, whether
            they are there or not. None where a record is no post.
        folder: which the pictures lie in; by default that of the table.
        own: the columns that `to_post` returns.
    """
    folder = raw.folder if folder is None else folder
    tally = Tally(tool)

    def rows() -> Iterator[RawRow]:
        for row in raw.rows:
            post = None if row.error is not None else to_post(row.values)
            if row.error is not None:
                tally.posts += 1
                yield row
            elif post is not None:
                tally.posts += 1
                paths = post.get("images") or []
                there = [path for path in paths if os.path.lexists(folder / path)]
                tally.found += len(there)
                tally.missing += len(paths) - len(there)
                yield replace(row, values=_merge(post | {"images": there}, row.values))

    names = list(own)
    columns = None if raw.columns is None else list(dict.fromkeys([*names, *raw.columns]))
    return replace(
        raw, folder=folder, columns=columns, rows=rows(), tally=tally, label_columns=("label",)
    )


def rebase(raw: RawTable, base: Path) -> RawTable:
    """Return a tool's table with paths of pictures from `base`, where they lie below it."""
    inside = os.path.relpath(raw.folder, base)
    if raw.tally is None or inside.startswith(os.pardir) or inside == os.curdir:
        return raw

    def rows() -> Iterator[RawRow]:
        for row in raw.rows:
            images = [(Path(inside) / path).as_posix() for path in row.values.get("images") or ()]
            yield replace(row, values=row.values | {"images": images}) if images else row

    return replace(raw, folder=base, rows=rows())


def name_part(value: Any) -> str:
    """Return a cell that is part of a file's name; "" where it would lead to another folder."""
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    return "" if re.search(r"[/\\\0]|^\.*$", text) else text


def find_file(folder: Path, stems: Iterable[str], suffixes: Sequence[str] = PICTURES) -> str:
    """Return the first of some files that is there, from `folder`; else the first."""
    names = [stem + suffix for stem in stems for suffix in suffixes]
    return next((name for name in names if os.path.lexists(folder / name)), names[0])


def _merge(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return our columns and then the tool's, of which none is lost."""
    merged = dict(own)
    for name, value in given.items():
        if name not in own:
            merged[name] = value
        elif str(value or "").strip() != str(own[name] or "").strip():
            merged[f"original.{name}"] = value
    return merged
