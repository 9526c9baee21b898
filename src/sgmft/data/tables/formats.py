"""The registries of table formats and of collecting tools, and what opens a table with them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sgmft.data.tables.archives import ARCHIVES, CLASS_FOLDERS, find_class_folders
from sgmft.data.tables.base import RawRow, RawTable, TableFormat, follow_headers, reading
from sgmft.data.tables.cells import is_missing
from sgmft.data.tables.collectors import COLUMNS, CRAWLERS, OWN, Collector, adapt_table, rebase
from sgmft.data.tables.columns import COMMENTS, IDS, find_columns, find_role, holds_posts
from sgmft.data.tables.csv import CSV, TSV
from sgmft.data.tables.json import JSON, JSON_LINES, read_standard_input
from sgmft.data.tables.sqlite import SQLITE
from sgmft.errors import TEXTS, SgmftError, SgmftNotice, raising, warn


def _late(module: str, name: str) -> Any:
    """Return a function of a module that is imported when it is called, for it loads long."""
    return lambda *args: getattr(import_module(f"sgmft.data.tables.{module}"), name)(*args)


_PARQUET = ("open_parquet", "ParquetWriter", "read_column_types")
PARQUET = TableFormat((".parquet",), *(_late("parquet", name) for name in _PARQUET))
_READ, _WRITE, _SHEETS = (_late("xlsx", x) for x in ("open_xlsx", "XlsxWriter", "list_sheets"))
XLSX = TableFormat((".xlsx",), _READ, _WRITE, streamed=False, members=_SHEETS)
FORMATS: tuple[TableFormat, ...] = (CSV, TSV, JSON_LINES, PARQUET, JSON, XLSX, SQLITE)
COLLECTORS: tuple[Collector, ...] = (*CRAWLERS, *ARCHIVES)

READABLE = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
WRITABLE = tuple(suffix for kind in FORMATS if kind.write for suffix in kind.suffixes)
STREAMED = tuple(suffix for kind in FORMATS if kind.streamed for suffix in kind.suffixes)
SEVERAL = tuple(suffix for kind in FORMATS if kind.members for suffix in kind.suffixes)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's ImageFolder
LOOK_AHEAD = 100  # damaged lines of JSON before the first that tells the columns
NAMES = (*(tool.name for tool in COLLECTORS), *(kind.suffixes[0][1:] for kind in FORMATS))
"""What ``--format`` may be."""


def find_format(path: str | Path) -> TableFormat | None:
    """Return the format that a file's suffix names, or None; of FILE/NAME, that of the file."""
    suffix = table_file(path).suffix.lower()
    return next((kind for kind in FORMATS if suffix in kind.suffixes), None)


def list_tables(table: str | Path, name: str | None = None) -> list[str | Path]:
    """List the tables of a path, in order; with a format or tool, one of `NAMES`, only its.

    A folder with ``metadata.csv|jsonl|parquet`` is an ImageFolder: that file is its table. A
    folder of tables is one table in parts: all its files of the `STREAMED` formats by name (or,
    without any, all that can be read), except those whose names begin with "." or "_", and those
    of its sub-folders. In any other folder the output of a tool is looked for, in its sub-folders
    as well. A file that holds several tables is listed as FILE/NAME for each that holds posts.
    Anything else, "-" included, stands for itself.
    """
    kind, tools = _chosen(name)
    if str(table) == "-":
        return [table]
    path = Path(table)
    with reading(path):
        if not path.is_dir():
            return [*_members(path, kind, tools)]
        suffixes = READABLE if kind is None else kind.suffixes
        there = sorted(x for x in path.iterdir() if x.name[0] not in "._")
        files = [x for x in there if x.suffix.lower() in suffixes and x.is_file()]
        named = (x for x in files if not kind and COMMENTS.search(x.stem))
        comments = [x for x in named if len(find_columns(_peek(x), IDS)) > 1]  # their posts', too
        files = [x for x in files if x not in comments]
        if len(metadata := [file for file in files if file.name in METADATA]) > 1:
            names = " and ".join(file.name for file in metadata)
            raise SgmftError(f"{path} holds {names}: give the one to read as the table.")
        if metadata:
            return [*metadata]
        made = [x for x in files if name is None and is_predicted(_peek(x))]
        files = [x for x in files if x not in made] or files  # a folder of predictions is one table
        parts = [x for x in files if kind is not None or x.suffix.lower() in STREAMED]
        parts = parts or [x for x in files if _peek(x)] or files
        found: list[Path] = []
        left = [x for x in [*comments, *made] if x not in files]
        left += [x for x in files if x not in parts and holds_posts(_peek(x))]
        plain = name is None and _are_plain(parts)
        if kind is None and (not plain or any(x.is_dir() for x in there)):
            found = list(_search(path, tools, folders=not plain))
            others = [x for x in parts if plain or x.suffix.lower() in STREAMED]
            others = [x for x in others if x not in found and find_columns(_peek(x), ("text",))]
            if name is None and not found and not any(holds_posts(_peek(x)) for x in parts):
                inner = sorted({x.parent for y in METADATA for x in path.glob(f"**/{y}")})  # splits
                found = [Path(x) for at in inner for x in list_tables(at)]
                found, others = found or find_class_folders(path), parts
            if found and not plain and name is None and (own := [*filter(_is_labelled, files)]):
                parts, plain = own, True
            if found:
                left += [x for x in [*found, *others] if x not in parts] if plain else others
            found = [] if plain else found
        left = [x for x in dict.fromkeys(left) if x not in (found or parts)]
        _say_left(path, left)
    if not found and (not parts or (kind is None and name is not None)):
        below = (x for x in path.rglob("*") if x.suffix.lower() in READABLE)
        names = ", ".join(sorted(os.path.relpath(x, path) for x in below)[:3])
        what = f"what {name} writes" if name else "tables of posts"
        given = {"metadata": ", ".join(METADATA), "kinds": ", ".join(READABLE), "names": names}
        text = TEXTS["no table below" if names else "no table there"]
        raise SgmftError(text, path=path, what=what, **given)
    return [*_read_once(found or [x for part in parts for x in _members(part, kind, tools)])]


def open_table(
    table: str | Path, name: str | None = None, base: str | Path | None = None
) -> RawTable:
    """Open one table by its suffix, or "-" (JSONL on stdin); of a folder, its only table.

    The output of a tool is recognised by its columns or by how its files lie; a table that has
    ``text`` and ``images`` already is nobody's. With a `name`, one of `NAMES`, it is of that format
    or tool. From `base`, where it holds them, start the paths of pictures in a tool's output.
    SgmftError for damage further down is raised while the rows are read.
    """
    kind, tools = _chosen(name)
    if str(table) == "-":
        return _adapt(follow_headers(read_standard_input()), Path(), tools)
    path = Path(table)
    if (tool := _reader_of(path, tools)) is None:
        if len(parts := list_tables(table, name)) > 1:
            raise SgmftError(f"{table} holds {len(parts)} tables: give one of them.")
        path = Path(parts[0])
        tool = _reader_of(path, tools)
    if tool is not None and tool.read is not None:
        wrong = f"{path} is not laid out as {tool.name} does it."
        with reading(path), raising(wrong, AttributeError, KeyError, TypeError, ValueError):
            raw = tool.read(path, tool.name)
    else:
        raw = _adapt(_open(path, kind), path, tools)
    raw = replace(raw, rows=_iter_rows(path, raw.rows))
    return raw if base is None else rebase(raw, Path(base))


def table_file(path: str | Path) -> Path:
    """Return the file of FILE/NAME, and any other path as it is."""
    path = Path(path)
    return path.parent if path.parent.suffix.lower() in SEVERAL and path.parent.is_file() else path


def _chosen(name: str | None) -> tuple[TableFormat | None, Sequence[Collector]]:
    kind = next((kind for kind in FORMATS if f".{name}" in kind.suffixes), None)
    tools = [tool for tool in COLLECTORS if name in (None, tool.name)]
    if name == CLASS_FOLDERS.name:
        tools = [replace(CLASS_FOLDERS, parts=partial(find_class_folders, alone=True))]
    if kind is None and not tools:
        raise SgmftError(f"There is no format {name!r}: use one of {', '.join(NAMES)}.")
    return kind, tools


def _open(path: Path, kind: TableFormat | None) -> RawTable:
    if (kind := kind or find_format(path)) is None:
        if not path.exists():
            raise SgmftError(f"There is no file or folder {path}: check its name.")
        raise SgmftError(TEXTS["no table"], path=path, kinds=", ".join(READABLE))
    with reading(path):
        if table_file(path).stat().st_size == 0:
            raise SgmftError("{name} is empty: a table needs at least a header.", name=path)
        return follow_headers(kind.read(path))


def _adapt(raw: RawTable, path: Path, tools: Sequence[Collector]) -> RawTable:
    with reading(path):
        raw, columns = _look_ahead(raw)
    tool = tools[0] if len(tools) == 1 else _tool_of(columns, tools)
    if tool is not None and tool.to_post is not None:
        return adapt_table(raw, tool.name, tool.to_post)
    return raw if tool is None or tool.adapt is None else tool.adapt(raw, path, tool.name)


def _look_ahead(raw: RawTable) -> tuple[RawTable, Sequence[str]]:
    """Return the table, and its columns or those of its first good record."""
    if raw.columns is not None:
        return raw, raw.columns
    ahead: list[RawRow] = []
    for row in islice(raw.rows, LOOK_AHEAD):
        ahead.append(row)
        if row.error is None:
            return replace(raw, rows=chain(ahead, raw.rows)), [*row.values]
    return replace(raw, rows=chain(ahead, raw.rows)), []


def _reader_of(path: Path, tools: Sequence[Collector]) -> Collector | None:
    with reading(path):
        return next((x for x in tools if x.parts and x.read and x.parts(path) == [path]), None)


def _tool_of(columns: Iterable[str], tools: Sequence[Collector]) -> Collector | None:
    there = {name.strip() for name in columns}
    known = (tool for tool in tools if any(there >= x for x in COLUMNS.get(tool.name, ())))
    return None if there >= {"text", "images"} else next(known, None)


def _are_plain(tables: Sequence[Path]) -> bool:
    """Return whether a folder is read by these tables, and not by what a tool has written there."""
    columns = [{*_peek(x)} for x in tables[:LOOK_AHEAD] if x.suffix.lower() in STREAMED]
    made = [x for x in columns if x >= {*OWN} or "suggested_rank" in x]  # of a tool's output
    usable = any(x not in made and holds_posts(x) for x in columns)
    return usable and not any(_tool_of(names, COLLECTORS) for names in columns)


def _peek(path: Path) -> Sequence[str]:
    """Return the columns of a table; none where it cannot be read."""
    with suppress(OSError, SgmftError):
        return _peek_once(path, table_file(path).stat().st_mtime_ns)
    return []


@lru_cache(4096)
def _peek_once(path: Path, _: int) -> Sequence[str]:
    return _look_ahead(_open(path, None))[1]


def is_predicted(columns: Iterable[str]) -> bool:
    """Return whether `predict` has written a table."""
    return {*columns} >= {"label", "probability", "error", "warning"}


def _is_labelled(path: Path) -> bool:
    """Return whether somebody has labelled all posts, in a table of our columns."""
    columns = {*_peek(path)}
    if not columns >= {*OWN} or columns & {"probability", "suggested_rank"}:
        return False
    with suppress(OSError, SgmftError):
        rows = (row.values for row in _open(path, None).rows)
        cells = (row[name] for row in rows for name in find_columns(row, ("label",)))
        return not all(map(is_missing, cells))
    return False


def _search(path: Path, tools: Sequence[Collector], folders: bool) -> Iterator[Path]:
    """Yield what tools have written into a folder and those in it; with `folders` also archives."""
    asked = [tool for tool in tools if tool is not CLASS_FOLDERS]
    for at, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "_")))
        lists = (tool.parts(Path(at)) for tool in asked if tool.parts and folders)
        if parts := [part for parts in lists for part in parts]:
            yield from dict.fromkeys(parts)  # two tools may know a folder: the first reads it
            inner.clear()
            continue
        tables = (name for name in names if name.lower().endswith(READABLE))
        for file in (Path(at, name) for name in sorted(tables) if name[0] not in "._"):
            with suppress(SgmftError):  # of a file that cannot be read, and may be anything
                yield from (x for x in _members(file, None, tools) if _tool_of(_peek(x), tools))


def _members(path: Path, kind: TableFormat | None, tools: Sequence[Collector]) -> list[Path]:
    """List the tables of a file: itself, or FILE/NAME for those in it that hold posts."""
    kind = kind or find_format(path)
    if kind is None or kind.members is None or not path.is_file():
        return [path]
    members = kind.members(path)
    if not (names := [name for name, columns in members.items() if _tool_of(columns, tools)]):
        others = [name for name in members if not COMMENTS.search(name)]
        usable = [name for name in members if holds_posts(members[name])]
        names = [x for x in usable if x in others]
        names = names or [x for x in usable if len(find_columns(members[x], IDS)) < 2]
        names = names or (others or [*members])[:1]
        roles = ("label", "image")  # of posts elsewhere, perhaps
        held = [x for x in others if any(find_role([x, *members[x]], role) for role in roles)]
        _say_left(path, [path / x for x in members if x in {*usable, *held} - {*names}])
    return [path / name for name in names] or [path]


def _say_left(path: Path, left: Sequence[Path]) -> None:
    if left:
        names = ", ".join(os.path.relpath(x, path) for x in left[:3])
        more = f" and {len(left) - 3} more" if left[3:] else ""
        warn(f"{path}: {names}{more} not read; give the path to read it.", SgmftNotice)


def _read_once(parts: list[Path]) -> Iterator[Path]:
    """Leave out tables whose posts another table of the same name, in another format, has too."""
    groups: dict[Path, dict[Path, int]] = {}
    for part in parts:
        file = table_file(part)  # MediaCrawler has a folder for each format
        home = file.parent.parent if file.parent.name == file.suffix[1:] else file.parent
        groups.setdefault(home / file.stem, {})[part] = file.stat().st_mtime_ns
    left: dict[Path, Path] = {}
    for same in groups.values():
        if len({table_file(part).suffix for part in same}) == len(same) > 1:
            left |= _contained(tuple(same.items()))
    for part, kept in left.items():
        warn(f"{part.name} holds the same posts as {kept.name}: they are read from that alone.")
    return (part for part in parts if part not in left)


@lru_cache(256)
def _contained(stamped: tuple[tuple[Path, int], ...]) -> dict[Path, Path]:
    """Return tables that another one contains, with that; of equal ones a labelled one is kept."""
    keys, labelled = dict[Path, set[int]](), set[Path]()
    for path, _ in stamped:
        keys[path] = set()
        for row in open_table(path).rows:
            labelled |= {path} if find_role(row.values, "label") else set()
            names = find_role(row.values, "id") or find_role(row.values, "text")
            keys[path].add(hash(str(row.values[names[0]]).strip() if names else ""))
    order = sorted(keys, key=lambda x: (-len(keys[x]), x not in labelled))
    larger = {x: [y for y in order[:i] if keys[x] <= keys[y]] for i, x in enumerate(order)}
    return {x: found[0] for x, found in larger.items() if found}


def _iter_rows(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    with reading(path):
        yield from rows
