"""CSV and TSV."""

from __future__ import annotations

import codecs
import csv
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sgmft.data.tables.cells import replace_surrogates
from sgmft.data.tables.label_studio import is_annotation_table
from sgmft.data.tables.raw import DAMAGED, RawRow, RawTable, check_header
from sgmft.errors import Message, SgmftError, SgmftWarning

_ESCAPED = re.compile("[\udc80-\udcff]")

_PRIVATE = re.compile("[\ue000-\uf8ff]")  # what Big5 or Shift-JIS often is in GB18030, and no text


class TextEncoding(NamedTuple):
    """How to open a text file: ``path.open(encoding=..., errors=...)``."""

    encoding: str
    errors: str


def has_undecoded(text: str) -> bool:
    """Tell whether `text`, decoded with surrogateescape, holds bytes that were no characters."""
    return not text.isascii() and _ESCAPED.search(text) is not None


def has_utf16_bom(start: bytes) -> bool:
    """Tell whether a file that begins with `start` says that it is UTF-16."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def detect_encoding(path: Path) -> TextEncoding:
    """Find the encoding of a file: UTF-16 with its mark, UTF-8 with or without one, or GB18030.

    The last is told in an `SgmftWarning`, for much of what is in other encodings fits it.

    The whole file is read, a line at a time. An encoding fits when it decodes more of the lines
    that are not ASCII than it fails; errors="surrogateescape" then lets the damaged lines be seen.
    (Asking for every line would take a UTF-8 file with one damaged line for GB18030, which accepts
    most bytes and would turn every text into another.)

    Raises:
        SgmftError: when no encoding fits, naming the first line that is not UTF-8.
    """
    with path.open("rb") as file:
        if has_utf16_bom(file.read(2)):
            return TextEncoding("utf-16", "strict")
    utf8 = _count(path, "utf-8")
    if utf8.fits:
        return TextEncoding("utf-8-sig", utf8.errors)
    gb18030 = _count(path, "gb18030", _PRIVATE)
    if gb18030.fits:
        told = f"{path} is not UTF-8 and is read as GB18030. If texts look wrong, save it as UTF-8."
        warnings.warn(told, SgmftWarning, stacklevel=2)
        return TextEncoding("gb18030", gb18030.errors)
    raise SgmftError(
        Message(
            "{name}, line {line}, is neither UTF-8 nor GB18030: save the file as UTF-8.",
            name=path,
            line=utf8.first_bad,
        )
    )


class _Count(NamedTuple):
    good: int
    bad: int
    first_bad: int

    @property
    def fits(self) -> bool:
        return not self.bad or self.good > self.bad

    @property
    def errors(self) -> str:
        return "surrogateescape" if self.bad else "strict"


def _count(path: Path, encoding: str, never: re.Pattern[str] | None = None) -> _Count:
    """Count the lines that are not ASCII and become text, which has no `never`, or do not."""
    good, bad, first = 0, 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                text = None
            if text is None or (never is not None and never.search(text)):
                bad, first = bad + 1, first or number
            else:
                good += 1
    return _Count(good, bad, first)


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
    columns = [
        name or f"column {i}" for i, name in enumerate(map(replace_surrogates, header.cells), 1)
    ]
    check_header(path, columns)
    if is_annotation_table(columns):
        raise SgmftError(
            f"{path} is a CSV export of Label Studio, with one row for each annotation: export as "
            "JSON, in which annotators are counted and pictures are found."
        )
    rows = _rows(path, encoding, mark, columns, header.number)
    return RawTable(path.name, path.parent, columns, rows)


def _header(path: Path, encoding: TextEncoding, delimiter: str) -> _Record:
    """Return the first record that is not a blank line."""
    for record in _records(path, encoding, delimiter):
        if record.unclosed:
            raise SgmftError(
                f"{path}, row {record.number} (the header), has a quotation mark that is never "
                "closed: close it."
            )
        if record.cells:
            return record
    raise SgmftError(Message("{name} is empty: a table needs at least a header.", name=path))


def _records(path: Path, encoding: TextEncoding, delimiter: str) -> Iterator[_Record]:
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
    path: Path, encoding: TextEncoding, delimiter: str, columns: list[str], header: int
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
            values = {name: value and replace_surrogates(value) for name, value in values.items()}
            error = DAMAGED
        yield RawRow(number, values, error)
