"""Posts from the rows of a table."""

import os
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sgmft import errors
from sgmft.data.posts import SEEN_BEFORE, Attachment, MediaFile, Post, raise_first_error
from sgmft.data.tables import cells
from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.collectors import ADDRESSES, OWN, pick
from sgmft.data.tables.columns import SYNONYMS, USUAL, find_columns, find_role, fold_name
from sgmft.data.tables.formats import list_tables, open_table
from sgmft.data.tables.images import list_pictures, names_pictures, parse_image_cell, strip_bytes
from sgmft.data.tables.paths import PathResolver
from sgmft.errors import Message, SgmftError, SgmftNotice, hint, join_messages, make_printable, warn

LOOKED_AT = 100  # rows in which pictures are looked for in columns that are not read
LOOK_AHEAD = 1000  # rows of JSON lines within which a column that was named must occur
_OF_USER = (*SYNONYMS["user"], "name", "id")  # in an object
_BY_ID = [f"{at}{{}}.{x}" for at in ("", "images/", "image/", "img/") for x in ("jpg", "png")]
_SENTENCE = re.compile(r"[\u4e00-\u9fff]{3}.*[，。！？、]|[\u4e00-\u9fff]{6}|(?:[^\W\d_]+,? +){4}")


@dataclass(frozen=True)
class Columns:
    """Which column holds what; None finds it under its usual name, in any case.

    Usual names: ``text``; ``image``, ``images``, ``file_name`` and numbered ones (``image1``,
    ``image_2``, ...), whose pictures are taken together; ``id``; ``label``; ``user``; ``time``. In
    a table without, names such as ``content`` or ``正文``; see `sgmft.data.tables.columns`. With ""
    for the image no pictures are read, and a post needs nothing but an id.
    """

    text: str | None = None
    image: str | None = None
    id: str | None = None
    label: str | None = None
    user: str | None = None
    time: str | None = None
    weight: str | None = None  # how much a post counts in training; no name is usual


USUAL_COLUMNS = Columns()


def read_posts(
    table: str | Path,
    *,
    columns: Columns = USUAL_COLUMNS,
    where: Mapping[str, str] | None = None,
    allow_outside: bool = False,
    strict: bool = False,
    format: str | None = None,
) -> list[Post]:
    """Read a whole table of posts; see `iter_posts`."""
    options: dict[str, Any] = {"columns": columns, "where": where, "allow_outside": allow_outside}
    return list(iter_posts(table, **options, strict=strict, format=format))


def iter_posts(
    table: str | Path,
    *,
    columns: Columns = USUAL_COLUMNS,
    where: Mapping[str, str] | None = None,
    allow_outside: bool = False,
    strict: bool = False,
    format: str | None = None,
    base: str | Path | None = None,
) -> Iterator[Post]:
    """Read posts one at a time, in constant memory.

    Rows that repeat the header are left out, and those below another are read by that, with a
    warning that counts them. Two tables of a folder that hold the same posts are pointed out, too.

    Args:
        table: a file, a folder with ``metadata.csv|jsonl|parquet``, a folder of tables that are
            read one after another (see `list_tables`), what a tool has collected, or "-": JSON
            lines on standard input, with pictures relative to the current folder.
        columns: which column holds what, when they have other names than the usual.
        where: keep only rows whose columns equal these values as text. A row too damaged to have
            the column is kept, as a bad row.
        allow_outside: accept pictures outside the table's folder.
        strict: raise at the first bad row.
        format: of the table, or the tool that wrote it, one of `sgmft.data.tables.formats.NAMES`;
            by default it is recognised.
        base: the folder that picture paths of a tool's output are relative to; by default `table`,
            where it is a folder.

    Yields:
        One post per row, in order, with `error` where it cannot be used, and `warnings` of what is
        left out. Whether pictures can be opened is not checked. Those stored in the table come as
        `Attachment`s, and `Post.row` has their names in their place.

    SgmftError where the table cannot be read, has no text and no image column, or lacks a column
    that was named; with `strict`, for the first bad row or warning. A SgmftNotice says which tool's
    output was read, and in which columns.
    """
    if base is None and os.path.isdir(table):  # noqa: PTH112  False for what cannot be one
        base = table
    seen = _SeenPosts()
    for raw in _open_tables(table, format, base, seen):
        for post in iter_table(raw, columns, allow_outside, dict(where or {}), seen):
            if strict:
                raise_first_error([post])
            yield post


def _open_tables(
    table: str | Path, format: str | None, base: str | Path | None, seen: "_SeenPosts"
) -> Iterator[RawTable]:
    """Open the tables of a path; say in the end which posts came twice, and who wrote them."""
    tallies = defaultdict[str | None, Counter[str]](Counter)
    for part in list_tables(table, format):
        yield (raw := open_table(part, format, base))
        tallies[raw.tool].update(raw.counts)
    for pair, count in seen.twice.items():
        other, name = (seen.names[number] for number in pair)
        warn(Message(errors.TEXTS["same posts"], count=count, name=name, other=other))
    for tool, counts in tallies.items():
        if tool is not None:
            text = errors.TEXTS["read with others" if counts["left"] else "read as"]
            warn(Message(text, table=table, tool=tool, **counts), SgmftNotice)


def iter_table(
    raw: RawTable,
    columns: Columns,
    outside: bool | None,  # as in `PathResolver`
    where: Mapping[str, str] = MappingProxyType({}),
    seen: "_SeenPosts | None" = None,
) -> Iterator[Post]:
    """Yield the posts of a table; see `iter_posts`."""
    finder, seen = _ColumnFinder(raw, columns), seen or _SeenPosts()
    rows = _check_columns(raw, finder, columns, where)
    resolve = PathResolver(raw, outside)
    seen.begin(raw.name)
    unread, by_id = dict[tuple[str, str], None](), list[str]()
    for number, row in enumerate(rows):
        if _matches(row, where):
            looked_at = number < LOOKED_AT and raw.tool is None
            if looked_at and not row.values.keys() >= {*OWN}:
                unread.update(dict.fromkeys(finder.unread(row.values)))
            yield (post := _to_post(row, raw.name, finder, resolve, seen))
            key = post.id if looked_at and not finder.names(row.values)["image"] else None
            if key and "/" not in key:  # which may lead out of the folder
                by_id += filter(resolve.exists, (x.format(key) for x in _BY_ID))
    seen.end()
    if by_id and columns.image is None:
        warn(Message(errors.TEXTS["image by id"], name=raw.name, file=by_id[0]))
    if guesses := finder.guesses + resolve.guesses:
        counts = "; ".join(f"{count} x {guess}" for guess, count in guesses.items())
        warn(Message(errors.TEXTS["guesses"], name=raw.name, counts=counts), SgmftNotice)
    for role, column in unread:
        warn(Message(errors.TEXTS[f"{role} unread"], name=raw.name, column=column))


def iter_image_cells(
    table: str | Path, columns: Columns, format: str | None, allow_outside: bool
) -> Iterator[tuple[str, dict[str, Any], dict[str, list[str | Attachment]], PathResolver]]:
    """Yield of every row the place, the values, the pictures by their columns, and the paths."""
    for raw in _open_tables(table, format, None, _SeenPosts()):
        finder, resolve = _ColumnFinder(raw, columns), PathResolver(raw, allow_outside)
        for row in _check_columns(raw, finder, columns, {}):
            names = dict.fromkeys([*finder.names(row.values)["image"], ADDRESSES])
            given = {x: y for x in names if not cells.is_missing(y := row.values.get(x))}
            pictures = {x: list_pictures(y, resolve) for x, y in given.items()}
            yield f"{raw.name}, row {row.number}", row.values, pictures, resolve


def recognize_columns(table: str | Path) -> tuple[str | None, list[str], dict[str, list[str]]]:
    """Return the tool that wrote a table, the columns of its first rows, and those of each role."""
    raw = open_table(table)
    columns = dict.fromkeys(raw.columns or ())
    for row in islice(raw.rows, LOOK_AHEAD):
        if row.error is None:
            columns.update(dict.fromkeys(row.values))
    return raw.tool, list(columns), _ColumnFinder(raw, USUAL_COLUMNS).names(columns)


class _ColumnFinder:
    def __init__(self, raw: RawTable, columns: Columns) -> None:
        self._roles = {field.name: getattr(columns, field.name) for field in fields(Columns)}
        self.needed = ("id",) if columns.image == "" else ("text", "image")  # one of these
        self._labels = raw.label_columns
        self.may_be_rounded = raw.tool is None or raw.columns is not None  # in a spreadsheet
        self._is_tools = raw.tool is not None
        self.guesses = Counter[str]()
        self._found: Callable[[tuple[str, ...]], dict[str, list[str]]] = lru_cache(256)(
            lambda columns: {role: self._find(columns, role) for role in self._roles}
        )

    def names(self, columns: Iterable[str]) -> dict[str, list[str]]:
        """List for each role those of `columns` that can hold it, best first."""
        return self._found(tuple(columns))

    def guessed(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Return columns that count for a role under a name that is no usual one of it."""
        found = {role: names for role, names in self.names(columns).items() if names}
        usual = {role: (*USUAL[role], *self._labels, self._roles[role]) for role in found}
        return {x: y for x, y in found.items() if fold_name(y[0]) not in usual[x]}

    def cell(self, values: Mapping[str, Any], names: Iterable[str], role: str) -> Any:
        """Return the first cell of `names` that says something as a `role`, or None."""
        words = cells.NO_LABEL if role == "label" else cells.NOTHING
        for name in names:
            value = values[name]
            if not cells.says_nothing(value, words):
                return value
            if value and isinstance(value, str):
                self.guesses[f"a word for nothing in the column {name!r}"] += 1
        return None

    def unread(self, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        """List columns not read that seem to hold pictures, or texts where there are no others."""
        read = {name for names in self.names(values).values() for name in names}
        read |= {"error", "warning"}  # of an earlier prediction: sentences that may end in a name
        left = {name: cell for name, cell in values.items() if name not in read}
        found = [("image", name) for name in left if names_pictures(left[name])]
        if not self.names(values)["text"]:
            found += [("text", x) for x in left if _SENTENCE.search(str(left[x]))]
        return [(role, name) for role, name in found if self._roles[role] is None]

    def _find(self, columns: tuple[str, ...], role: str) -> list[str]:
        if named := self._roles[role]:
            return [named] if named in columns else []
        if role == "label" and self._labels != USUAL[role]:
            return find_columns(columns, self._labels)
        if self._is_tools or set(OWN) <= set(columns):  # or it was converted from a tool's
            return find_columns(columns, USUAL[role])
        return find_role(columns, role)


class _SeenPosts:
    """The row in which each id came first, and what each table holds."""

    def __init__(self) -> None:
        # SQLite's private database is on disk once it is large: sqlite.org/inmemorydb.html
        # A generator may be taken up by another thread than began it, though never by two at once.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.executescript(
            "PRAGMA journal_mode = OFF; "
            "CREATE TABLE seen (id BLOB PRIMARY KEY, part, row, content, core) WITHOUT ROWID; BEGIN"
        )
        self.names: list[str] = []  # of tables
        self._tables: dict[tuple[int, int], int] = {}  # those that were read, by sum and count
        self.twice = Counter[tuple[int, int]]()  # posts that two tables have, by their numbers

    def begin(self, table: str) -> None:
        self.names.append(table)
        self._part = len(self.names) - 1
        self._sum = self._count = 0  # of the table that is read

    def end(self) -> None:
        """End a table; one that holds the same posts as another may do so without ids."""
        other = self._tables.setdefault((self._sum, self._count), self._part)
        if other != self._part and self._count:
            self.twice[other, self._part] = self._count

    def warn(self, key: str, row: int, content: int, core: int) -> Message | None:
        """Return what is to be said of an id that came before; of two tables cores count."""
        self._sum, self._count = (self._sum + content) % 2**64, self._count + 1
        if not key:
            return None
        new = (key.encode("utf-8", "surrogatepass"), part := self._part, row, content, core)
        if self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?)", new).rowcount:
            return None
        found = self._rows.execute("SELECT * FROM seen WHERE id = ?", new[:1])
        _, before, first, *same = found.fetchone()
        if same[0] == content or (before != part and same[1] == core):
            if before != part:
                self.twice[before, part] += 1
            return Message(SEEN_BEFORE[before != part], row=first, table=self.names[before])
        if before == part:
            return Message("the id {id!r} is already that of row {row}", id=key, row=first)
        # Another post of another table may have the same id.
        self._rows.execute("REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", new)
        return None


def _to_post(
    row: RawRow, table: str, finder: _ColumnFinder, resolve: PathResolver, seen: _SeenPosts
) -> Post:
    lost = list[str]()  # of what a label could come from
    doubts, refused = list[str](), list[str]()
    texts = dict.fromkeys(("text", "id", "label", "user", "time", "weight"), "")
    names = finder.names(row.values)
    for role in texts:
        try:
            cell = finder.cell(row.values, names[role], role)
            if role == "user" and isinstance(cell, dict):
                cell = pick(cell, *find_columns(cell, _OF_USER)) or cell
            if role == "weight" and cell is not None:
                cell = cells.to_amount(cell)
            texts[role] = cells.to_label(cell) if role == "label" else cells.to_text(cell)
            if role == "text" and (above := names[role][1:]):
                title = cells.to_text(finder.cell(row.values, above, role))
                texts[role] = cells.join_texts(title, texts[role])
            elif role != "text" and (bare := texts[role].strip(cells.BLANKS)) != texts[role]:
                texts[role] = bare
                finder.guesses[f"spaces around the {role}, left out"] += 1
            # as pandas writes numbers of a column that has empty cells
            if role in ("id", "label") and re.fullmatch(r"\d+\.0", texts[role]):
                texts[role] = texts[role][:-2]
                finder.guesses[f"the {role} of a column with gaps, such as 1.0, read as 1"] += 1
        except ValueError as error:
            reason = Message(role + ": {reason}", reason=str(error))
            {"text": lost, "weight": refused}.get(role, doubts).append(reason)
    holders = names["image"]
    images, pictures = list[MediaFile](), list[str | Attachment]()
    for name in holders if "image" in finder.needed else ():
        try:
            pictures += parse_image_cell(row.values[name], resolve)
            lost += resolve.refused
        except ValueError as error:
            lost.append(str(error))
    for picture in dict.fromkeys(pictures) if len(holders) > 1 else pictures:
        try:
            images.append(picture if isinstance(picture, Attachment) else resolve(picture))
        except ValueError as error:
            lost.append(str(error))
    key, text, label = texts["id"], texts["text"], texts["label"] or None
    # Two tables may have a post with pictures of their own; without a time their names count.
    files = [str(x) if isinstance(x, Path) else x for x in images]
    short = (x.name if isinstance(x, Path) else x for x in images if not texts["time"])
    core = hash((*texts.values(), *short))
    if (again := seen.warn(key, row.number, hash((key, text, label, *files)), core)) is not None:
        doubts.append(again)
    if finder.may_be_rounded and _is_rounded(key, again is not None):
        doubts.append(Message(errors.TEXTS["rounded"], id=key))
    bad = row.error or next(iter(refused), None)
    if bad is None and not images and not text.strip() and "text" in finder.needed:
        nothing = errors.TEXTS["only on the web" if row.values.get(ADDRESSES) else "no content"]
        bad = join_messages(lost) or nothing
        lost = []
    return Post(
        text=text,
        images=images,
        id=key or None,
        label=label,
        user=texts["user"] or None,
        time=texts["time"] or None,
        error=bad and make_printable(bad),
        warnings=tuple(map(make_printable, lost + doubts)),
        place=f"{table}, row {row.number}",
        weight=float(texts["weight"] or 1),
        row=row.values | {name: strip_bytes(row.values[name]) for name in holders},
    )


def _is_rounded(key: str, again: bool) -> bool:
    """Return whether an id looks like one that Excel, which keeps 15 digits, has rounded."""
    if "+" in key and re.fullmatch(r"\d(\.\d+)?[Ee]\+\d+", key):
        return True
    digits = key.isdecimal() and len(key) >= (16 if again else 18)  # of 16, one in ten ends in 0
    return digits and not key[15:].strip("0")


def _matches(row: RawRow, where: Mapping[str, str]) -> bool:
    names = [name for name in where if row.error is None or name in row.values]
    try:
        return all(cells.to_text(row.values.get(x)).strip() == where[x].strip() for x in names)
    except ValueError:
        return False


def _check_columns(
    raw: RawTable, finder: _ColumnFinder, columns: Columns, where: Mapping[str, str]
) -> Iterator[RawRow]:
    """Return all rows; raise SgmftError where columns that were named are missing."""
    needed = [*filter(None, astuple(columns)), *where]
    explain = partial(_explain_missing, raw.name, needed, finder)
    problem, ahead = None, list[RawRow]()
    seen: dict[str, None] = dict.fromkeys(raw.columns or ())
    if raw.columns is None:  # read ahead until they have been seen
        for row in raw.rows:
            ahead.append(row)
            if row.error is None:
                seen.update(dict.fromkeys(row.values))
            if len(ahead) >= LOOK_AHEAD or explain(seen) is None:
                break
        if any(row.error is None for row in ahead):
            problem = explain(seen)
    elif raw.columns or needed:
        problem = explain(raw.columns)
    if problem is not None:
        raise SgmftError(make_printable(problem))
    if guessed := finder.guessed(list(seen)):
        named = ((role, " and ".join(map(repr, names))) for role, names in guessed.items())
        reason = [Message("{role} is read from {columns}", role=x, columns=y) for x, y in named]
        warn(Message("{name}: {reason}", name=raw.name, reason=join_messages(reason)), SgmftNotice)
    return chain(ahead, raw.rows)


def _explain_missing(
    table: str, needed: list[str], finder: _ColumnFinder, columns: Iterable[str]
) -> str | None:
    """Return which columns are missing, in a sentence; None where none is."""
    columns = list(columns)
    there = ", ".join(columns) or "none"
    for name in needed:
        if name not in columns:
            return f"{table} has no column {name!r}; its columns are {there}.{hint(name, columns)}"
    if any(finder.names(columns)[role] for role in finder.needed):
        return None
    is_post = any(_SENTENCE.search(x) or names_pictures(x) for x in columns)
    why = "no id" if "text" not in finder.needed else "no header" if is_post else "no post column"
    return Message(errors.TEXTS[why], name=table, columns=there)
