"""The raw rows of a table, whatever its format. Only a .json file is held in memory whole."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from sgmft.errors import SgmftError
from sgmft.tables.delimited import open_delimited
from sgmft.tables.encoding import detect_encoding, has_undecoded, has_utf16_bom
from sgmft.tables.folder import tables_in
from sgmft.tables.label_studio import flatten, post_of
from sgmft.tables.raw import DAMAGED, RawRow, RawTable, check_header, first_line, reading
from sgmft.tables.values import MAX_DEPTH, is_deep, mend

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".json")
_BATCH = 1024
_BATCH_BYTES = 64 * 1024 * 1024


def open_table(table: str | Path) -> RawTable:
    """Open one table by its suffix, or "-" (JSONL on stdin); of a folder, its only table.

    Raises:
        SgmftError: when it is missing, empty, damaged, of an unknown kind, or has two columns of
            one name. Damage further down is raised while the rows are read.
    """
    if str(table) == "-":
        return RawTable("standard input", Path(), None, _jsonl_rows(None, "standard input"))
    parts = tables_in(table)
    if len(parts) > 1:
        raise SgmftError(f"{table} holds {len(parts)} tables: give one of them.")
    path = Path(parts[0])
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SgmftError(
            f"{path} is no table sgmft can read: use one of {', '.join(SUFFIXES)}, "
            "or a folder with a metadata file."
        )
    with reading(path):
        if path.stat().st_size == 0:
            raise SgmftError(f"{path} is empty: a table needs at least a header.")
        if suffix in (".csv", ".tsv"):
            raw = open_delimited(path, "\t" if suffix == ".tsv" else None)
        elif suffix == ".parquet":
            raw = _open_parquet(path)
        elif suffix == ".json":
            raw = _open_json(path)
        else:
            raw = RawTable(path.name, path.parent, None, _jsonl_rows(path, str(path)))
        return replace(raw, rows=_read(path, raw.rows))


def _read(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    with reading(path):
        yield from rows


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
    return RawRow(number, {"line": mend(line[:500])}, error)


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
            line = mend("".join(islice(pieces, MAX_DEPTH))[:500])  # its beginning, however deep
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


# --- Parquet


def _open_parquet(path: Path) -> RawTable:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = list(pyarrow.parquet.read_schema(path).names)
    except Exception as error:  # hostile bytes make pyarrow raise nearly every exception there is
        if isinstance(error, OSError) and error.errno:  # the system's, told by `open_table`
            raise
        raise _damaged_parquet(path, error) from error
    check_header(path, columns)
    return RawTable(path.name, path.parent, columns, _parquet_rows(path, columns))


def _damaged_parquet(path: Path, error: Exception) -> SgmftError:
    reason = first_line(error)
    return SgmftError(f"{path} is a damaged Parquet file ({reason}): write it again.")


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_rows_at_once(file)):
                for cells in zip(*map(cells_of, batch.columns), strict=True):
                    number += 1
                    yield RawRow(number, dict(zip(columns, cells, strict=True)))
    except Exception as error:  # as above; a time zone that nobody knows is a KeyError
        raise _damaged_parquet(path, error) from error


def _rows_at_once(file: Any) -> int:
    """So many rows that a batch takes some 64 MiB; tables that hold pictures have long rows."""
    groups = range(file.num_row_groups)
    size: int = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    rows: int = file.metadata.num_rows
    return max(1, min(_BATCH, _BATCH_BYTES * rows // max(1, size)))


def cells_of(column: Any) -> list[Any]:
    """Turn a column into Python values; a text that is not UTF-8 stays bytes."""
    import pyarrow

    try:
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pyarrow.timestamp("us", column.type.tz))  # unless that loses any
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decoded(cell) for cell in column.cast(pyarrow.binary()).to_pylist()]
    except (ValueError, OverflowError):  # times Python has no type for
        values = column.cast(pyarrow.string()).to_pylist()
    return values


def _decoded(cell: bytes | None) -> str | bytes | None:
    try:
        return cell if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell
