"""CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sgmft.errors import SgmftError
from sgmft.tables.encoding import Encoding, detect_encoding, has_undecoded
from sgmft.tables.label_studio import is_annotation_table
from sgmft.tables.raw import DAMAGED, RawRow, RawTable, check_header
from sgmft.tables.values import mend

MAX_CELL = 2**26
"""The longest cell, in characters: beyond it, a quotation mark was surely never closed."""


class _Record(NamedTuple):
    number: int
    cells: list[str]
    unclosed: bool


def open_delimited(path: Path, delimiter: str | None = None) -> RawTable:
    """Open a CSV or TSV file.

    Args:
        path: in any encoding `detect_encoding` knows.
        delimiter: None chooses among comma, semicolon and tab the one that gives the first record
            the most cells.

    Raises:
        SgmftError: when there is no header, a column name comes twice, or the text cannot be
            decoded.
    """
    encoding = detect_encoding(path)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    marks = delimiter or ",;\t"
    headers = {mark: _header(path, encoding, mark) for mark in marks}
    mark = max(marks, key=lambda mark: len(headers[mark].cells))
    header = headers[mark]
    columns = [name or f"column {i}" for i, name in enumerate(map(mend, header.cells), 1)]
    check_header(path, columns)
    if is_annotation_table(columns):
        raise SgmftError(
            f"{path} is a CSV export of Label Studio, with one row for each annotation: export as "
            "JSON, in which annotators are counted and pictures are found."
        )
    rows = _rows(path, encoding, mark, columns, header.number)
    return RawTable(path.name, path.parent, columns, rows)


def _header(path: Path, encoding: Encoding, delimiter: str) -> _Record:
    """Return the first record that is not a blank line."""
    for record in _records(path, encoding, delimiter):
        if record.unclosed:
            raise SgmftError(
                f"{path}, row {record.number} (the header), has a quotation mark that is never "
                "closed: close it."
            )
        if record.cells:
            return record
    raise SgmftError(f"{path} is empty: a table needs at least a header.")


def _records(path: Path, encoding: Encoding, delimiter: str) -> Iterator[_Record]:
    number, ended = 0, False

    def lines(file: TextIO) -> Iterator[str]:
        nonlocal ended
        yield from file
        ended = True  # asked for a further line: the record before it is not complete

    try:
        with path.open(encoding=encoding.encoding, errors=encoding.errors, newline="") as file:
            for number, cells in enumerate(csv.reader(lines(file), delimiter=delimiter), 1):
                yield _Record(number, cells, ended)
    except csv.Error as error:
        raise SgmftError(
            f"{path}, row {number + 1}, cannot be read ({error}): "
            "look there for a quotation mark that is never closed."
        ) from error
    except UnicodeError as error:
        raise SgmftError(
            f"{path}, row {number + 1}, is not valid {encoding.encoding}: save the file as UTF-8."
        ) from error


def _surplus(index: int, columns: list[str]) -> str:
    """What a cell without a header is called: as no column is."""
    name = f"column {index + 1}"
    while name in columns:
        name = f"extra {name}"
    return name


def _rows(
    path: Path, encoding: Encoding, delimiter: str, columns: list[str], header: int
) -> Iterator[RawRow]:
    width = len(columns)
    for number, cells, unclosed in _records(path, encoding, delimiter):
        if number <= header or not cells:  # a blank line is counted, and is no record
            continue
        values: dict[str, Any] = dict(zip(columns, cells, strict=False))
        values.update(dict.fromkeys(columns[len(cells) :]))
        values.update({_surplus(i, columns): cells[i] for i in range(width, len(cells))})
        error = None
        if unclosed:
            error = (
                "a quotation mark is opened here and never closed, "
                "so that all lines after it became part of this row; close or remove it"
            )
        elif len(cells) > width:
            error = (
                f"{len(cells)} cells where the header has {width}; "
                "put a text that holds the delimiter between quotation marks"
            )
        elif encoding.errors != "strict" and any(map(has_undecoded, cells)):
            values = {name: value and mend(value) for name, value in values.items()}
            error = DAMAGED
        yield RawRow(number, values, error)
