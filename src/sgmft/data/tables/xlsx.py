"""Excel workbooks; imported by `formats` when one is opened, for openpyxl loads long."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from openpyxl import Workbook, load_workbook
from openpyxl.cell import WriteOnlyCell

from sgmft.data.tables.base import RawRow, RawTable, open_member, parsing
from sgmft.data.tables.cells import is_missing, to_json
from sgmft.data.tables.columns import USUAL, find_role, holds_posts
from sgmft.errors import SgmftError, warn

MAX_ROWS, MAX_CELL = 2**20, 2**15 - 1  # of a sheet, and UTF-16 units of a cell: Excel's limits
MAX_UNPACKED = 2**31  # bytes
TITLE_ROWS = 10  # above the header, at most
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_EXACT = 10**15  # Excel keeps 15 digits of a number


def list_sheets(path: Path) -> dict[str, list[str]]:
    """Return the header of each sheet that has one."""
    with _open(path) as book:
        headers = {
            x.title: _read_header(x)[1] for x in book.worksheets if x.sheet_state == "visible"
        }
        if hidden := ", ".join(x.title for x in book.worksheets if x.title not in headers):
            warn(f"{path}: sheets that are hidden are not read: {hidden}; unhide what is needed.")
        if any(name.startswith("xl/media/") for name in zipfile.ZipFile(path).namelist()):
            inside = f"{path}: pictures that lie in the workbook itself are not read"
            warn(f"{inside}; give the paths of files.")
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
            warn(
                f"{self._changed:,} cells hold more than {MAX_CELL:,} characters, or characters "
                "that Excel has not: they were cut or replaced; a .csv or .jsonl keeps them."
            )

    def _cell(self, value: Any) -> Any:
        if value is None or (isinstance(value, (int, float)) and abs(value) < _EXACT):
            return value
        text = to_json(value) if isinstance(value, (list, dict)) else str(value)
        units = text.encode("utf-16-le", "surrogatepass")
        fits = _NO_XML.sub("\ufffd", units[: 2 * MAX_CELL].decode("utf-16-le", "ignore"))
        self._changed += fits != text
        cell = WriteOnlyCell(self._sheet, fits)
        cell.data_type = "s"
        return cell


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    what = "no .xlsx workbook, or a damaged or protected one"
    with parsing(file, what, "save it again as .xlsx or .csv"):
        with zipfile.ZipFile(file) as packed:
            if sum(member.file_size for member in packed.infolist()) > MAX_UNPACKED:
                raise SgmftError(f"{file} unpacks to more than 2 GiB: save it as .csv.")
        with closing(load_workbook(file, read_only=True, data_only=True)) as book:
            yield book


def _read_header(sheet: Any) -> tuple[int, list[str]]:
    """Return the first row that names columns of posts, with its number; else that with cells."""
    sheet.reset_dimensions()  # which some programs write wrong
    longest, first = 0, (0, list[str]())
    for number, cells in enumerate(sheet.iter_rows(max_row=MAX_ROWS, values_only=True), 1):
        names = ["" if is_missing(cell) else str(cell).strip() for cell in cells]
        while names and not names[-1]:
            names.pop()
        found = number, [name or f"column {i}" for i, name in enumerate(names, 1)]
        # Below another row it is longer than those above, or names little else: a cell may be 图片.
        roles = {name for role in USUAL for name in find_role(names, role)}
        if holds_posts(names) and (len(names) > longest or 2 * len(roles) > len({*names} - {""})):
            return found
        longest = max(longest, len(names))
        first = first if first[1] else found
        if first[1] and number > first[0] + TITLE_ROWS:
            break
    return first


def _iter_rows(file: Path, title: str, columns: list[str]) -> Iterator[RawRow]:
    with _open(file) as book:
        header, _ = _read_header(book[title])
        rows = book[title].iter_rows(min_row=header + 1, max_row=MAX_ROWS, values_only=True)
        for number, cells in enumerate(rows, header + 1):
            values = dict.fromkeys(columns) | {
                columns[i] if i < len(columns) else f"column {i + 1}": cell
                for i, cell in enumerate(cells)
                if i < len(columns) or cell is not None
            }
            if not all(map(is_missing, values.values())):
                yield RawRow(number, values)
