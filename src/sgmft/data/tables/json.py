"""JSON lines, and JSON lists of records, among them the exports of Label Studio."""

import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from sgmft.data.tables.base import DAMAGED, RawRow, RawTable, TableFormat
from sgmft.data.tables.cells import MAX_DEPTH, is_deep, replace_surrogates, to_json
from sgmft.data.tables.columns import (
    COMMENTS,
    USUAL,
    find_columns,
    find_role,
    holds_posts,
    number_columns,
)
from sgmft.data.tables.encoding import detect_encoding, detect_utf16, has_undecoded
from sgmft.data.tables.label_studio import find_post, flatten, is_task, local_path
from sgmft.errors import TEXTS, Message, SgmftError, SgmftNotice, raising, warn


def open_json_lines(path: Path) -> RawTable:
    """Open a file of JSON lines, in UTF-8 or UTF-16; also JSON under that name."""
    rows = _iter_file(path)
    first = next(rows)
    line = str(first.values["line"]).strip() if first.error and "line" in first.values else ""
    if line[:1] == "[" or line == "{" or line[-1:] == ",":
        with suppress(SgmftError):
            return open_json(path)
    return RawTable(path.name, path.parent, None, chain([first], rows))


def read_standard_input() -> RawTable:
    """Open JSON lines on standard input, which is left open; paths start at the current folder."""

    def rows() -> Iterator[RawRow]:
        stream = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", "surrogateescape")
        try:
            yield from _iter_lines(stream, "standard input")
        finally:
            stream.detach()

    return RawTable("standard input", Path(), None, rows())


def open_json(path: Path) -> RawTable:
    """Open a list of records, alone or in an object, one record, or an export of Label Studio."""
    encoding, bad = detect_encoding(path), f"{path} is not valid JSON ({{error}}): export it again."
    with raising(bad, ValueError, RecursionError):
        text = path.read_text(*encoding).lstrip()
        with suppress(ValueError, RecursionError):  # lines, under a name that many give them
            first, _, others = text.partition("\n")
            if others.strip() and isinstance(json.loads(first), dict):
                return RawTable(path.name, path.parent, None, _iter_file(path))
        items = _parse_all(text)
    about: dict[str, Any] = {}
    if isinstance(items, dict):
        items, about = _find_records(items, path)
    if not isinstance(items, list):
        raise SgmftError(f"{path} is not a list of records: give a list, or JSON lines as .jsonl.")
    items = [*map(_unwrap, _join_lists(items))]
    posts: dict[str | int, tuple[int, list[Any]]] = {}  # their records, by the number of the first
    for number, item in enumerate(items, 1):
        key = (find_post(item) if _reject(item) is None else None) or number
        posts.setdefault(key, (number, []))[1].append(item)
    rows, columns, controls = list[RawRow](), dict[str, None](), set[str]()
    for number, records in posts.values():
        if (reason := _reject(records[0])) is not None:
            pieces = json.JSONEncoder(ensure_ascii=False).iterencode(records[0])
            line = "".join(islice(pieces, MAX_DEPTH))[:500]  # the beginning, however deep it is
            rows.append(RawRow(number, {"line": replace_surrogates(line)}, reason))
            continue
        values, names = flatten(records)
        controls |= names
        text = "" if encoding.errors == "strict" else json.dumps(values, ensure_ascii=False)
        rows.append(RawRow(number, values, DAMAGED if has_undecoded(text) else None))
        columns.update(dict.fromkeys(values))
    labels = tuple(controls) if len(controls) == 1 else ("label", "choice", "choices")
    return RawTable(path.name, path.parent, list(columns), iter(rows), labels, local_path, about)


class JsonLinesWriter:
    """Writes one JSON object per line, to a new file or else to standard output, left open."""

    def __init__(self, path: Path | None, columns: list[str]) -> None:
        self._columns, self._path = columns, path
        self._file = sys.stdout.buffer if path is None else path.open("xb")
        self.close = (lambda: None) if path is None else self._file.close

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows."""
        lines = (to_json(dict(zip(self._columns, row, strict=True))) + "\n" for row in rows)
        if self._path is None:
            sys.stdout.flush()
        self._file.writelines(map(str.encode, lines))
        self._file.flush()


def _number_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; a key that comes again gets a number, as a column of that name does."""
    if len(found := dict(pairs)) == len(pairs):
        return found
    names, cells = zip(*pairs, strict=True)
    return dict(zip(number_columns(names, "JSON"), cells, strict=True))


_DECODER = json.JSONDecoder(object_pairs_hook=_number_keys)
_WRAPS = ("_source", "properties", "row", "post", "node", "mblog")
_GAP = re.compile(r"[\s,]*")
JSON_LINES = TableFormat((".jsonl", ".ndjson"), open_json_lines, JsonLinesWriter)
JSON = TableFormat((".json",), open_json, streamed=False)


def _iter_file(path: Path) -> Iterator[RawRow]:
    encoding = detect_utf16(path) or "utf-8-sig"
    with suppress(SgmftError):  # of no encoding that fits all: the lines that do not are told
        encoding = detect_encoding(path).encoding
    with path.open(encoding=encoding, errors="surrogateescape") as stream:
        yield from _iter_lines(stream, str(path))


def _iter_lines(stream: TextIO, name: str) -> Iterator[RawRow]:
    empty = True
    with raising(f"{name} is not valid UTF-16: save it as UTF-8.", UnicodeError):
        for number, line in enumerate(stream, 1):
            if not line.isspace():
                empty = False
                yield from _parse_line(number, line.rstrip("\n"))
    if empty:
        raise SgmftError(f"{name} is empty: a table needs at least one record.")


def _parse_line(number: int, line: str) -> list[RawRow]:
    """Return the record of a line, or those of a page, which has one list of posts and no text."""
    try:
        value: Any = None if (damaged := has_undecoded(line)) else _unwrap(_DECODER.decode(line))
        if (reason := _reject(value)) is None:
            lists = {} if {"text", "id"} & value.keys() else _find_usable(value)
            pages = {name: x for name, x in lists.items() if holds_posts(_unwrap(x[0]))}
            if len(pages) == 1 and not find_role(value, "text"):
                return [RawRow(number, _unwrap(x)) for x in pages.popitem()[1]]
            wrong = Message(TEXTS["several pages"], names=", ".join(pages)) if pages else None
            return [RawRow(number, value, wrong)]
        error = DAMAGED if damaged else f"JSON, but {reason}"
    except json.JSONDecodeError as problem:
        values = {"problem": problem.msg.removesuffix(" starting at"), "column": problem.colno}
        error = Message("not JSON: {problem} at column {column}", **values)
    except (ValueError, RecursionError) as problem:
        error = f"not JSON that can be read: {problem}"
    return [RawRow(number, {"line": replace_surrogates(line[:500])}, error)]


def _parse_all(text: str) -> Any:
    """Return the value of a JSON text; the records of all where several follow each other."""
    items, at = list[Any](), 0
    while at < len(text) or not items:
        value, end = _DECODER.raw_decode(text, at)
        at = next(gap.end() for gap in _GAP.finditer(text, end))
        if not items and at == len(text):
            return value
        items += value if isinstance(value, list) else [value]
    return items


def _turn(item: dict[str, Any]) -> Any:
    """Return the records of an object that pandas wrote by columns; any other as it is."""
    cells = [[*x.values()] if isinstance(x, dict) else x for x in item.values()]
    sizes = {len(x) if isinstance(x, list) else 0 for x in cells}
    texts = [x for name, x in zip(item, cells, strict=True) if name in find_role(item, "text")]
    if not texts or 0 in sizes or len(sizes) > 1 or isinstance(texts[0][0], dict):
        return item
    return [dict(zip(item, row, strict=True)) for row in zip(*cells, strict=True)]


def _unwrap(item: Any) -> Any:
    """Return the record that a server or a database has wrapped, with what stands beside it."""
    there = item if isinstance(item, dict) else {}
    name = next((x for x in _WRAPS if isinstance(there.get(x), dict)), None)
    if name is None or holds_posts(there):
        return item
    return {key: value for key, value in there.items() if key != name} | there[name]


def _find_records(item: dict[str, Any], path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Return the records in an object, see `_iter_lists`, and what stands beside; or itself."""
    if (records := _turn(item)) is not item:
        return records, {}
    lists, usable = dict(_iter_lists(item)), _find_usable(item)
    name = next(iter(usable), None)
    if len(usable) > 1:
        raise SgmftError(TEXTS["several lists"], path=path, names=", ".join(usable))
    if left := [x for x in lists if x and x != name and (name or holds_posts(lists[x][0]))]:
        warn(Message(TEXTS["other lists"], path=path, names=", ".join(left)), SgmftNotice)
    if name is None:
        return [item], {}
    return usable[name], {key: value for key, value in item.items() if key != name.split(".")[0]}


def _find_usable(item: dict[str, Any]) -> dict[str, list[Any]]:
    """Return those of the lists in an object that hold posts; none where it is a post itself."""
    lists = dict(_iter_lists(item))
    own = item["data"] if is_task(item) else item
    held = [*lists.values(), *(x for x in own.values() if isinstance(x, dict))]
    said = [x for x in (*find_role(own, "text"), *find_role(own, "image")) if own[x] not in held]
    some = {name: x for name, x in lists.items() if not COMMENTS.search(name)}
    usable = {name: x for name, x in some.items() if holds_posts(_unwrap(x[0]))}
    # A "message" or "caption" beside posts may be a server's, or of all: a post has an id, too.
    if said and (find_columns(said, USUAL["text"]) or find_role(own, "id") or not usable):
        return {}
    return usable or ({} if is_task(item) else some or lists)


def _iter_lists(value: Any, name: str = "", depth: int = 3) -> Iterator[tuple[str, list[Any]]]:
    """Yield lists of records in an object and objects in it, and values with ids as keys."""
    if isinstance(value, list):
        if value and all(isinstance(x, dict) for x in value):
            yield name, value
    elif isinstance(value, dict) and value and depth:
        if all(isinstance(x, dict) and holds_posts(x) for x in value.values()):
            yield name, [{"id": key, **x} for key, x in value.items()]
            return
        for key, inner in value.items():
            yield from _iter_lists(inner, f"{name}.{key}" if name else key, depth - 1)


def _join_lists(items: list[Any]) -> list[Any]:
    """Return the records of objects that hold one list of posts each; else what was given."""
    joined: list[Any] = []
    for item in items:
        if not isinstance(item, dict) or is_task(item):
            return items
        records = [x for x in _find_usable(item).values() if find_role(x[0], "text")]
        if len(records) != 1:
            return items
        joined += records[0]
    return joined


def _reject(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "not an object of columns and values"
    return f"nested more than {MAX_DEPTH} deep" if is_deep(record) else None
