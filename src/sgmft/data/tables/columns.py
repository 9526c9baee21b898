"""The names under which people have the columns of a post: those of `columns.toml`."""

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgmft.errors import warn

TITLE_ROWS = 10  # above the header, at most
_KNOWN: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_ROLES = ("text", "image", "id", "label", "user", "time", "weight")
USUAL: dict[str, tuple[str, ...]] = {role: (*_KNOWN[role]["usual"].split(),) for role in _ROLES}
"""Best first; images of all that there are count together."""
SYNONYMS: dict[str, list[str]] = {role: _KNOWN[role]["others"].split() for role in _ROLES}
"""Counted only in a table that has none of the usual names; best first."""
NAMES = [name for role in USUAL for name in (*USUAL[role], *SYNONYMS[role])]
COMMENTS = re.compile("comment|评论|評論|repl(y|ies)|回复|回覆", re.IGNORECASE)  # in a table's name
IDS = ("id", "comment_id", "评论id", *SYNONYMS["id"])
_TITLES = _KNOWN["titles"].split()  # of texts that have no usual name, and stand above them
_SIMPLIFIED = str.maketrans(_KNOWN["traditional"], _KNOWN["simplified"])
_NUMBERED = re.compile(rf"(?:{_KNOWN['image']['numbered']})_?\d{{1,3}}")
_BEFORE = re.compile(f"^(?:{_KNOWN['before']})_?(?=.)")
_AFTER = {role: re.compile(f"_?(?:{_KNOWN[role]['after']})$") for role in _ROLES}


@lru_cache(4096)
def fold_name(name: str) -> str:
    """Return a column's name without what people write in one way or another."""
    bare = re.sub(r"(?<=.)\(.*\)$", "", unicodedata.normalize("NFKC", name).strip('\ufeff "'))
    words = re.split(r"[\s_./\[\]-]+|(?<=[a-z])(?=[A-Z])", bare.translate(_SIMPLIFIED))
    return "_".join(filter(None, words)).casefold()


def find_columns(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """List those of `columns` that have one of the names, in any case, in the order of these."""
    there, folded = _fold_all((*columns,))
    found = [name if name in there else folded.get(fold_name(name)) for name in names]
    return [name for name in found if name is not None]


@lru_cache(8)  # a table's columns are looked through dozens of times
def _fold_all(columns: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Return names as `fold_name` has them, and of each of these the first column's name."""
    folds = {name: fold_name(name) for name in columns}
    return folds, {fold: name for name, fold in reversed(folds.items())}


def find_role(columns: Iterable[str], role: str) -> list[str]:
    """List the columns that can hold a role by their usual names, by one synonym, or by part."""
    there, _ = _fold_all((*columns,))
    found = find_columns(there, (*_KNOWN[role].get("first", "").split(), *USUAL[role]))
    if role == "image":  # and "image1", "image_2", "图片3"
        found += [name for name, fold in there.items() if _NUMBERED.fullmatch(fold)]
    if not found and (found := find_columns(there, SYNONYMS[role])[:1]) and role == "text":
        found += find_columns(there, _TITLES)[:1]
    if found:
        return found
    for affix in (_BEFORE, _AFTER[role]):
        bare = {affix.sub("", fold): name for name, fold in reversed(there.items())}
        if found := find_columns(bare, (*USUAL[role], *SYNONYMS[role])):
            break
    return [bare[name] for name in found]


def holds_posts(columns: Collection[str]) -> bool:
    """Return whether a table of these columns has texts or pictures."""
    return bool(find_role(columns, "text") or find_role(columns, "image"))


def find_header(rows: Iterable[tuple[int, Sequence[Any]]]) -> tuple[int, list[str]]:
    """Return the first row that names columns of posts, with its number; else that with cells."""
    longest, first = 0, (0, list[str]())
    for number, cells in rows:
        names = ["" if cell is None else str(cell) for cell in cells]
        there = {*map(str.strip, names)} - {""}
        # Below another row it is longer than those above, or names little else: a cell may be 图片.
        roles = {name for role in USUAL for name in find_role(there, role)}
        found = holds_posts(there) and (len(there) > longest or 2 * len(roles) > len(there))
        if found or (there and not first[1]):
            first = number, names
        if found or (first[1] and number > first[0] + TITLE_ROWS):
            break
        longest = max(longest, len(there))
    return first


def number_columns(names: Iterable[str], where: str | Path | None = None) -> list[str]:
    """Return columns of which each has a name of its own: "text 2" for a second text.

    One without a name gets its number, "column 3". Warns where two had the same, if told where.
    """
    columns, met = dict[str, str](), Counter[str]()
    for i, given in enumerate(names, 1):
        name = column = given or f"column {i}"
        while column in columns:
            met[name] += 1
            column = f"{name} {met[name] + 1}"
        columns[column] = given
    again = [x for x, given in columns.items() if given not in ("", x)]
    if again and where is not None:
        some = ", ".join(again[:9]) + ", …" * (len(again) > 9)
        warn(f"{where}: columns with the name of an earlier one are read as {some}.")
    return [*columns]
