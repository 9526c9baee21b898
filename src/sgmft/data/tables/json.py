"""TODO."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from sgmft.data.tables.cells import MAX_DEPTH, is_deep, replace_surrogates
from sgmft.data.tables.csv import detect_encoding, has_undecoded, has_utf16_bom
from sgmft.data.tables.label_studio import flatten, post_of
from sgmft.data.tables.raw import DAMAGED, RawRow, RawTable
from sgmft.errors import SgmftError

# --- JSON lines


def _jsonl_rows(path: Path | None, name: str) -> Iterator[RawRow]:
    """Read lines of JSON; None means standard input, which is left open."""
    if path is None:
        stream = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", "surrogateescape")
        try:
            yield from _parsed_lines(stream, name)
        finally:
            stream.detach()
        return
    with path.open("rb") as file:
        code = "utf-16" if has_utf16_bom(file.read(2)) else "utf-8-sig"
    with path.open(encoding=code, errors="surrogateescape") as stream:
        yield from _parsed_lines(stream, name)


def _parsed_lines(stream: TextIO, name: str) -> Iterator[RawRow]:
    empty = True
    try:
        for number, line in enumerate(stream, 1):
            if not line.isspace():
                empty = False
                yield _parse_line(number, line.rstrip("\n"))
    except UnicodeError as error:
        raise SgmftError(f"{name} is not valid UTF-16: save it as UTF-8.") from error
    if empty:
        raise SgmftError(f"{name} is empty: a table needs at least one record.")


def _parse_line(number: int, line: str) -> RawRow:
    if has_undecoded(line):
        error = DAMAGED
    else:
        try:
            value = json.loads(line)
        except json.JSONDecodeError as problem:
            error = f"not JSON: {problem.msg} at column {problem.colno}"
        except (ValueError, RecursionError) as problem:
            error = f"not JSON that can be read: {problem}"
        else:
            reason = _unfit(value)
            if reason is None:
                return RawRow(number, value)
            error = f"JSON, but {reason}"
    return RawRow(number, {"line": replace_surrogates(line[:500])}, error)


def _unfit(record: Any) -> str | None:
    """Why a JSON value cannot be a row, or None."""
    if not isinstance(record, dict):
        return "not an object of columns and values"
    return f"nested more than {MAX_DEPTH} deep" if is_deep(record) else None


# --- JSON lists: Label Studio's exports, and plain records


def _open_json(path: Path) -> RawTable:
    encoding = detect_encoding(path)
    try:
        text = path.read_text(encoding=encoding.encoding, errors=encoding.errors)
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SgmftError(f"{path} is not valid JSON ({error}): export it again.") from error
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list):
        raise SgmftError(f"{path} is not a list of records: give a list, or JSON lines as .jsonl.")
    rows: list[RawRow] = []
    columns: dict[str, None] = {}
    controls: set[str] = set()
    for number, records in _by_post(items):
        reason = _unfit(records[0])
        if reason is not None:
            pieces = json.JSONEncoder(ensure_ascii=False).iterencode(records[0])
            line = replace_surrogates(
                "".join(islice(pieces, MAX_DEPTH))[:500]
            )  # its beginning, however deep
            rows.append(RawRow(number, {"line": line}, reason))
            continue
        values, names = flatten(records)
        controls |= names
        damaged = encoding.errors != "strict" and has_undecoded(
            json.dumps(values, ensure_ascii=False)
        )
        rows.append(RawRow(number, values, DAMAGED if damaged else None))
        columns.update(dict.fromkeys(values))
    labels = tuple(controls) if len(controls) == 1 else ("label", "choice", "choices")
    return RawTable(path.name, path.parent, list(columns), iter(rows), labels, True)


def _by_post(items: list[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Records that belong together, each with the place of the first of them."""
    places: dict[str | int, tuple[int, list[Any]]] = {}
    for number, item in enumerate(items, 1):
        post = post_of(item) if _unfit(item) is None else None
        places.setdefault(number if post is None else post, (number, []))[1].append(item)
    yield from places.values()
