"""CSV and TSV."""

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sgmft.data.tables.base import DAMAGED, RawRow, RawTable, TableFormat, check_header
from sgmft.data.tables.cells import replace_surrogates, to_json
from sgmft.data.tables.encoding import TextEncoding, detect_encoding, has_undecoded
from sgmft.data.tables.label_studio import is_annotation_table
from sgmft.errors import Message, SgmftError, SgmftWarning

_DELIMITER_LINE = re.compile(r'"?sep=([,;\t|])"?\n?', re.IGNORECASE)  # the first, for Excel
_ESCAPED_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')
MAX_CELL = 2**26  # characters: beyond them, a quotation mark was surely never closed


def open_delimited(path: Path, delimiters: str) -> RawTable:
    """Open a CSV or TSV file.

    Args:
        path: in any encoding `detect_encoding` knows.
        delimiters: of which the one is taken that gives the first record the most cells.

    Raises:
        SgmftError: when there is no header, a column name comes twice, or the text cannot be
            decoded.
    """
    encoding = detect_encoding(path)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    with path.open(encoding=encoding.encoding, errors=encoding.errors) as file:
        named = _DELIMITER_LINE.fullmatch(file.readline(20))
    marks = delimiters if named is None else named[1]
    headers = {mark: _read_header(path, encoding, mark, named is not None) for mark in marks}
    delimiter = max(headers, key=lambda mark: len(headers[mark].cells))
    header = headers[delimiter]
    names = list(map(replace_surrogates, header.cells))
    columns = [name or _name_surplus(i, names) for i, name in enumerate(names)]
    check_header(path, columns)
    if is_annotation_table(columns):
        raise SgmftError(
            f"{path} is a CSV export of Label Studio, with one row for each annotation: export as "
            "JSON, in which annotators are counted and pictures are found."
        )
    escaped = _has_escaped_quotes(path, encoding, delimiter, len(columns))
    rows = _iter_rows(path, encoding, delimiter, columns, header.number, escaped)
    return RawTable(path.name, path.parent, columns, rows)


class DelimitedWriter:
    """Writes rows of plain values to a CSV or TSV file; lists and objects become JSON."""

    def __init__(self, path: Path, columns: list[str], *, delimiter: str, encoding: str) -> None:
        self._file = path.open("x", encoding=encoding, newline="")
        self._writer = csv.writer(self._file, delimiter=delimiter)
        self._writer.writerow(columns)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows."""
        self._writer.writerows(
            [to_json(x) if isinstance(x, (bool, list, dict)) else x for x in row] for row in rows
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


CSV = TableFormat(
    (".csv",),
    partial(open_delimited, delimiters=",;\t"),
    partial(DelimitedWriter, delimiter=",", encoding="utf-8-sig"),  # the mark is for Excel
)

TSV = TableFormat(
    (".tsv",),
    partial(open_delimited, delimiters="\t"),
    partial(DelimitedWriter, delimiter="\t", encoding="utf-8"),
)


class _Record(NamedTuple):
    number: int
    cells: list[str]
    unclosed: bool


def _read_header(path: Path, encoding: TextEncoding, delimiter: str, second: bool) -> _Record:
    """Return the first record that is not a blank line; the `second`, the first from line 2."""
    for record in _iter_records(path, encoding, delimiter):
        if second and record.number == 1:
            continue
        if record.unclosed:
            raise SgmftError(
                f"{path}, row {record.number} (the header), has a quotation mark that is never "
                "closed: close it."
            )
        if record.cells:
            return record
    raise SgmftError("{name} is empty: a table needs at least a header.", name=path)


def _has_escaped_quotes(path: Path, encoding: TextEncoding, delimiter: str, width: int) -> bool:
    r"""Return whether a quotation mark inside quotation marks is written \", with a warning.

    It is where fewer records are broken if it is read so than if it is read as the standard has it.
    """
    with path.open(encoding=encoding.encoding, errors="replace") as file:
        if not any('\\"' in line for line in file):
            return False

    def count_broken(escaped: bool) -> int:
        broken = 0
        with path.open(encoding=encoding.encoding, errors="replace", newline="") as file:
            lines = map(_double_quotes, file) if escaped else file
            records = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                try:
                    broken += len(next(records)) not in (0, width)
                except StopIteration:
                    return broken
                except csv.Error:
                    broken += 1

    if count_broken(True) >= count_broken(False):
        return False
    message = f'{path} writes quotation marks inside texts as \\", and is read so.'
    warnings.warn(message, SgmftWarning, stacklevel=2)
    return True


def _double_quotes(line: str) -> str:
    return _ESCAPED_QUOTE.sub(r'\1""', line)


def _iter_records(
    path: Path, encoding: TextEncoding, delimiter: str, escaped: bool = False
) -> Iterator[_Record]:
    number, ended = 0, False

    def lines(file: TextIO) -> Iterator[str]:
        nonlocal ended
        yield from map(_double_quotes, file) if escaped else file
        ended = True  # a further line was wanted: the record before it is not complete

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


def _iter_rows(
    path: Path,
    encoding: TextEncoding,
    delimiter: str,
    columns: list[str],
    header: int,
    escaped: bool,
) -> Iterator[RawRow]:
    width = len(columns)
    for number, cells, unclosed in _iter_records(path, encoding, delimiter, escaped):
        if number <= header or not cells:  # a blank line is counted, and is no record
            continue
        values: dict[str, Any] = dict(zip(columns, cells, strict=False))
        values.update(dict.fromkeys(columns[len(cells) :]))
        values.update({_name_surplus(i, columns): cells[i] for i in range(width, len(cells))})
        error = None
        if unclosed:
            error = (
                "a quotation mark is opened here and never closed, "
                "so that all lines after it became part of this row; close or remove it"
            )
        elif len(cells) > width:
            error = Message(
                "{cells} cells where the header has {width}; "
                "put a text that holds the delimiter between quotation marks",
                cells=len(cells),
                width=width,
            )
        elif encoding.errors != "strict" and any(map(has_undecoded, cells)):
            values = {name: value and replace_surrogates(value) for name, value in values.items()}
            error = DAMAGED
        yield RawRow(number, values, error)


def _name_surplus(index: int, columns: list[str]) -> str:
    """Name a cell without a header, as no column is named."""
    name = f"column {index + 1}"
    while name in columns:
        name = f"extra {name}"
    return name
