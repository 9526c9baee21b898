"""Excel workbooks; imported by `formats` when one is opened, for openpyxl loads long."""

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from openpyxl import Workbook, load_workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.utils import column_index_from_string
from openpyxl.utils.escape import unescape

from sgmft.data.tables.base import RawRow, RawTable, open_member, parsing
from sgmft.data.tables.cells import is_missing, to_json
from sgmft.data.tables.columns import find_header, number_columns
from sgmft.errors import TEXTS, Message, SgmftError, warn

MAX_ROWS, MAX_CELL = 2**20, 2**15 - 1  # of a sheet, and UTF-16 units of a cell: Excel's limits
MAX_UNPACKED = 2**31  # bytes
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_DAY = re.compile(r'(?i)\S+ 00:00:00 (?:"[^"]*"|\[[^]]*\]|\\.|[^hs"\\[])*')  # and its format
_LITERAL = re.compile("_(?=x[0-9A-Fa-f]{4}_)")  # would be read as the escape of a character
_FORMULA = re.compile(rb"<f\b[^>]*(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v></v>)?\s*</c>")  # without value
_EXACT = 10**15  # Excel keeps 15 digits of a number


def list_sheets(path: Path) -> dict[str, list[str]]:
    """Return the header of each sheet that has one."""
    with _open(path) as book:
        shown = [x for x in book.worksheets if x.sheet_state == "visible"]
        found = {x.title: [*map(str.strip, find_header(_iter_cells(x))[1])] for x in shown}
        headers = {title: number_columns(names, path / title) for title, names in found.items()}
        if hidden := ", ".join(x.title for x in book.worksheets if x.title not in headers):
            warn(f"{path}: sheets that are hidden are not read: {hidden}; unhide what is needed.")
        if any(name.startswith("xl/media/") for name in zipfile.ZipFile(path).namelist()):
            warn(Message(TEXTS["pictures inside"], path=path))
    return {title: header for title, header in headers.items() if header}


def open_xlsx(path: Path) -> RawTable:
    """Open a sheet, FILE/SHEET, or the first of a file; of formulas the values, as saved."""
    return open_member(path, list_sheets, _iter_rows, "sheet")


class XlsxWriter:
    """Writes rows of plain values to a workbook of one sheet.

    Texts stay texts, also those that look like a formula or a number. Numbers of more digits than
    Excel keeps, and dates, become texts; lists and objects JSON.
    """

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._path, self._rows, self._changed = path, 0, 0
        path.touch(exist_ok=False)
        self._book = Workbook(write_only=True)
        self._sheet = self._book.create_sheet("posts")
        self.write([columns])

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows."""
        self._rows += len(rows)
        if self._rows > MAX_ROWS:
            raise SgmftError(f"A sheet has no more than {MAX_ROWS:,} rows: write a .csv or .jsonl.")
        for row in rows:
            self._sheet.append([self._cell(value) for value in row])

    def close(self) -> None:
        """Close the file; warns of texts that Excel has no room for."""
        self._book.save(self._path)
        if self._changed:
            warn(Message(TEXTS["changed in a workbook"], count=self._changed, most=MAX_CELL))

    def _cell(self, value: Any) -> Any:
        if value is None or (isinstance(value, (int, float)) and abs(value) < _EXACT):
            return value
        text = to_json(value) if isinstance(value, (list, dict)) else str(value)
        text = _LITERAL.sub("_x005F_", text)
        units = text.encode("utf-16-le", "surrogatepass")
        fits = _NO_XML.sub("\ufffd", units[: 2 * MAX_CELL].decode("utf-16-le", "ignore"))
        self._changed += fits != text
        cell = WriteOnlyCell(self._sheet, fits)
        cell.data_type = "s"
        return cell


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    with parsing(file, TEXTS["no workbook"], "save it again as .xlsx or .csv"):
        with zipfile.ZipFile(file) as packed:
            if sum(member.file_size for member in packed.infolist()) > MAX_UNPACKED:
                raise SgmftError(f"{file} unpacks to more than 2 GiB: save it as .csv.")
        with closing(load_workbook(file, read_only=True, data_only=True)) as book:
            yield book


def _iter_cells(sheet: Any, merged: bool = False) -> Iterator[tuple[int, list[Any]]]:
    """Yield rows with their numbers; with `merged`, cells of one column that are have one value."""
    sheet.reset_dimensions()  # which some programs write wrong
    end, lost = b"", False  # what openpyxl reads, but passes over in a workbook that is only read
    with sheet._get_source() as source:
        while merged and (part := source.read(2**20)):
            lost = lost or _FORMULA.search(end[-(2**15) :] + part) is not None
            end = (end + part)[-(2**21) :]
    if lost:
        warn(Message(TEXTS["formulas"], name=sheet.title))
    starts, held = defaultdict[int, list[Any]](list), dict[int, tuple[int, Any]]()
    for name, top, bottom in re.findall(rb'<mergeCell ref="([A-Z]+)(\d+):\1(\d+)"', end):
        starts[int(top)].append((column_index_from_string(name.decode()) - 1, int(bottom)))
    for number, row in enumerate(sheet.iter_rows(max_row=MAX_ROWS), 1):
        cells = [unescape(x.value) if isinstance(x.value, str) else x.value for x in row]
        for i, cell in enumerate(row):  # openpyxl makes midnights of days
            if cell.data_type == "d" and _DAY.fullmatch(f"{cell.value} {cell.number_format}"):
                cells[i] = cell.value.date()
        held |= {i: (bottom, cells[i]) for i, bottom in starts[number] if i < len(cells)}
        for i, (bottom, value) in held.items():
            if number <= bottom:
                cells += [None] * (i + 1 - len(cells))
                cells[i] = value
        while cells and is_missing(cells[-1]):
            cells.pop()
        yield number, cells


def _iter_rows(file: Path, title: str, columns: list[str]) -> Iterator[RawRow]:
    with _open(file) as book:
        header, _ = find_header(_iter_cells(book[title]))
        for number, cells in _iter_cells(book[title], merged=True):
            names = [*columns, *(f"column {i + 1}" for i in range(len(columns), len(cells)))]
            there = zip(names, cells, strict=False)
            values = dict.fromkeys(columns) | {x: y for x, y in there if y is not None}
            if number > header and cells:
                yield RawRow(number, values)
