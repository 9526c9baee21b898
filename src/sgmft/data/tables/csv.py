"""CSV and TSV."""

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sgmft.data.tables.base import DAMAGED, SURPLUS, RawRow, RawTable, TableFormat
from sgmft.data.tables.cells import replace_surrogates, to_json
from sgmft.data.tables.columns import find_header, holds_posts, number_columns
from sgmft.data.tables.encoding import TextEncoding, detect_encoding, has_undecoded
from sgmft.errors import TEXTS, Message, SgmftError, warn

_double_quotes = partial(re.compile(r'(?<!\\)((?:\\\\)*)\\"').sub, r'\1""')
MAX_CELL = 2**26  # characters: beyond them, a quotation mark was surely never closed


def open_delimited(path: Path, delimiters: str = ",;\t|") -> RawTable:
    """Open a file by the delimiter with which its first row is a header of posts, of most cells."""
    encoding = detect_encoding(path)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    with path.open(encoding=encoding.encoding, errors="replace") as text:
        named = re.fullmatch(r'(?i)"?sep=([,;\t|])"?\n?', text.readline(20))  # for Excel
    headers, problems = list[tuple[Any, _File, int, list[str]]](), list[SgmftError]()
    for mark in delimiters if named is None else named[1]:
        file = _File(path, encoding, mark)
        try:
            header, names = find_header(_iter_headers(file, named is not None))
            held = holds_posts([name for name in names if "\t" not in name])
            headers.append(((held, -header if held else 0, len(names)), file, header, names))
        except SgmftError as error:  # of another delimiter, perhaps
            problems.append(error)
    if not headers:
        raise problems[0]
    _, file, header, names = max(headers, key=lambda found: found[0])
    if not names:
        raise SgmftError("{name} is empty: a table needs at least a header.", name=path)
    columns = number_columns(names, path)
    if {"annotation_id", "annotator", "lead_time"} <= {*columns}:
        raise SgmftError(TEXTS["csv of label studio"], path=path)
    file = file._replace(escaped=_has_escaped_quotes(file, len(columns)))
    return RawTable(path.name, path.parent, columns, _iter_rows(file, columns, header))


class DelimitedWriter:
    """Writes rows of plain values to a CSV or TSV file; lists and objects become JSON."""

    def __init__(self, path: Path, columns: list[str], delimiter: str = ",") -> None:
        encoding = "utf-8-sig" if delimiter == "," else "utf-8"  # the mark is for Excel
        self._file = path.open("x", encoding=encoding, newline="")
        self._writer = csv.writer(self._file, delimiter=delimiter)
        self._writer.writerow(columns)
        self.close = self._file.close

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows."""
        cells = ([to_json(x) if isinstance(x, (bool, list, dict)) else x for x in y] for y in rows)
        self._writer.writerows(cells)


CSV = TableFormat((".csv",), open_delimited, DelimitedWriter)
_TABBED = partial(open_delimited, delimiters="\t,;|"), partial(DelimitedWriter, delimiter="\t")
TSV = TableFormat((".tsv",), *_TABBED)


class _File(NamedTuple):
    path: Path
    encoding: TextEncoding
    delimiter: str
    escaped: bool = False


def _iter_headers(file: _File, second: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the first records, of which one is the header; without line 1 for the `second`."""
    begun = False
    for number, cells, unclosed in _iter_records(file):
        if unclosed:
            if begun:
                return  # perhaps the delimiter is another
            raise SgmftError(TEXTS["unclosed header"], path=file.path, number=number)
        if number > second:
            names = map(replace_surrogates, cells)
            yield number, [re.sub(r'^\ufeff+"?(.*?)"?$', r"\1", x) for x in names]  # marked twice
            begun = True


def _has_escaped_quotes(file: _File, width: int) -> bool:
    r"""Return whether \" is a quotation mark: fewer records are broken if it is; warns of it."""
    encoding = file.encoding.encoding
    with file.path.open(encoding=encoding, errors="replace") as lines:
        if not any('\\"' in line for line in lines):
            return False

    def count_broken(escaped: bool) -> int:
        broken = 0
        with file.path.open(encoding=encoding, errors="replace", newline="") as lines:
            text = map(_double_quotes, lines) if escaped else lines
            records = csv.reader(text, delimiter=file.delimiter, strict=True)
            while True:
                try:
                    broken += len(next(records)) not in (0, width)
                except StopIteration:
                    return broken
                except csv.Error:
                    broken += 1

    if count_broken(True) >= count_broken(False):
        return False
    warn(f'{file.path} writes quotation marks inside texts as \\", and is read so.')
    return True


def _iter_records(file: _File) -> Iterator[tuple[int, list[str], bool]]:
    path, (encoding, errors), delimiter, escaped = file
    number, ended = 0, False

    def lines(text: TextIO) -> Iterator[str]:
        nonlocal ended
        yield from map(_double_quotes, text) if escaped else text
        ended = True  # a further line was wanted: the record before it is not complete

    try:
        with path.open(encoding=encoding, errors=errors, newline="") as text:
            for number, cells in enumerate(csv.reader(lines(text), delimiter=delimiter), 1):
                yield number, cells, ended
    except csv.Error as error:
        raise SgmftError(TEXTS["bad csv"], path=path, number=number + 1, error=error) from error
    except UnicodeError as error:
        raise SgmftError(TEXTS["no text"], path=path, number=number + 1, kind=encoding) from error


def _iter_rows(file: _File, columns: list[str], header: int) -> Iterator[RawRow]:
    width, short, first = len(columns), 0, 0  # rows with too few cells, and the first of them
    for number, cells, unclosed in _iter_records(file):
        if number <= header or not cells:  # a blank line is counted, and is no record
            continue
        if len(cells) < width and not unclosed and any(cells):
            short, first = short + 1, first or number
        values: dict[str, Any] = dict.fromkeys(columns) | dict(zip(columns, cells, strict=False))
        if surplus := any(cells[width:]):
            names = number_columns([*columns, *[""] * (len(cells) - width)])
            values = dict(zip(names, cells, strict=True))
        error = None
        if unclosed:
            error = TEXTS["unclosed"]
        elif surplus:
            error = Message(SURPLUS, cells=len(cells), width=width)
        elif file.encoding.errors != "strict" and any(map(has_undecoded, cells)):
            values = {name: value and replace_surrogates(value) for name, value in values.items()}
            error = DAMAGED
        yield RawRow(number, values, error)
    if short:
        warn(Message(TEXTS["short rows"], name=file.path.name, count=short, row=first))
