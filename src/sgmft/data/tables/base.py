"""Raw tables, which every format is read into, and the description of a format."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sgmft.data.tables.columns import NAMES, fold_name, number_columns
from sgmft.errors import TEXTS, Message, SgmftError, make_printable, warn

DAMAGED = "holds bytes that are no text in the encoding of the table"  # else UTF-8 or GB18030
SURPLUS = TEXTS["surplus"]


@dataclass(frozen=True)
class RawRow:
    """One record as it was read; what has no column is under "line" (JSONL) or "column 7" (CSV)."""

    number: int  # as a spreadsheet or an editor counts: a CSV header is row 1; JSONL lines from 1
    values: dict[str, Any]
    error: str | None = None  # why it is damaged


@dataclass(frozen=True)
class RawTable:
    """An open table."""

    name: str  # for messages
    folder: Path  # what the picture paths are relative to
    columns: list[str] | None  # the header; None for JSON lines, which have none
    rows: Iterator[RawRow]  # read lazily
    label_columns: tuple[str, ...] = ("label",)  # usual names of the label column, best first
    to_path: Callable[[str, Path], str] | None = None  # of a picture's address, and the folder
    about: Mapping[str, Any] = field(default_factory=dict)  # beside the records in a JSON file
    tool: str | None = None  # that wrote it; see `collectors.adapt_table`
    counts: Counter[str] = field(default_factory=Counter)  # of what was read of a tool's output


class RowWriter(Protocol):
    """Writes the rows of one file: plain values (see `cells.to_plain`) in the columns' order."""

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows."""

    def close(self) -> None:
        """Write what is left and close the file."""


Members = Callable[[Path], dict[str, list[str]]]  # the tables in a file, and their columns
MemberRows = Callable[[Path, str, list[str]], Iterator[RawRow]]


@dataclass(frozen=True)
class TableFormat:
    """One kind of table files; `formats.FORMATS` lists all of them."""

    suffixes: tuple[str, ...]  # in lower case
    read: Callable[[Path], RawTable]  # damage further down may be raised while rows are read
    write: Callable[[Path, list[str]], RowWriter] | None = None  # a file with these columns
    column_types: Callable[[Path], dict[str, Any]] | None = None  # Arrow's, if a file has them
    streamed: bool = True  # in constant memory; others are no parts of a folder, nor for a server
    members: Members | None = None  # of a file of several, such as a workbook; FILE/NAME is one


def open_member(path: Path, list_members: Members, iter_rows: MemberRows, what: str) -> RawTable:
    """Open FILE/NAME, or the first table of a file; SgmftError where there is none such."""
    file, name = (path, None) if path.is_file() else (path.parent, path.name)
    members = list_members(file)
    name = name or next(iter(members), None)
    if name is None or name not in members:
        there = ", ".join(members) or "none"
        raise SgmftError(f"{file} has no {what} {name or 'with cells'}; there are: {there}.")
    shown = file.name if len(members) == 1 else f"{file.name}/{name}"
    return RawTable(shown, file.parent, members[name], iter_rows(file, name, members[name]))


def follow_headers(raw: RawTable) -> RawTable:
    """Leave out headers among the rows, with a warning; those after another one are read by it."""
    usual = (*NAMES, *raw.columns) if raw.columns else ()  # rows of JSON lines have their own
    known = {fold_name(name): name for name in usual if not name.isdecimal()}

    def rows() -> Iterator[RawRow]:
        names = dict[str, str]()  # by the first header's, while another one holds
        met = defaultdict[str, list[int]](list)
        for row in raw.rows:
            if header := _as_header(row, known):
                names = {} if all(x == y for x, y in header.items()) else header
                met["other header" if names else "same header"].append(row.number)
            elif names:
                there = {x: y for x, y in row.values.items() if x in names or y not in (None, "")}
                error = None if getattr(row.error, "template", "") == SURPLUS else row.error
                if error is None and len(there) > len(names):
                    error = Message(SURPLUS, cells=len(there), width=len(names))
                columns = number_columns(names.get(x, x) for x in there)
                yield RawRow(row.number, dict(zip(columns, there.values(), strict=True)), error)
            else:
                yield row
        for key, found in met.items():
            warn(Message(TEXTS[key], name=raw.name, count=len(found), row=found[0]))

    return replace(raw, rows=rows())


def _as_header(row: RawRow, known: Mapping[str, str]) -> dict[str, str] | None:
    """Return the names that columns get where a row is a header: most are known ones."""
    for x in row.values.values():  # an id, a day or a long text tells that it is a post
        if x is None:
            continue
        if not isinstance(x, str) or len(x) > 99 or (x[:1].isdigit() and x not in row.values):
            return None
    cells = [x for x in row.values.values() if x]
    if (folded := [*map(fold_name, cells)]) == [*map(fold_name, row.values)]:
        return {x: x for x in row.values}
    found = sum(x in known for x in folded)
    most = found > 1 and 2 * found > len(cells) == len({*folded})
    return {x: known.get(fold_name(y), y) for x, y in row.values.items() if y} if most else None


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Raise SgmftError, with the reason, where the system refuses to read a file or folder."""
    try:
        yield
    except FileNotFoundError:
        raise SgmftError(f"There is no file {path}: check its name and folder.") from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise SgmftError(f"{path} cannot be read: {reason}.") from error


@contextmanager
def parsing(path: Path, what: str, fix: str) -> Iterator[None]:
    """Raise SgmftError, with the reason and the fix, where a library cannot read a file."""
    try:
        yield
    except SgmftError:
        raise
    except Exception as error:  # hostile bytes make libraries raise nearly every exception there is
        if isinstance(error, OSError) and error.errno:  # the system's, which `reading` explains
            raise
        raise SgmftError(f"{path} is {what} ({first_line(error)}): {fix}.") from error


def first_line(error: Exception) -> str:
    """Shorten the message of a library, which may be long or empty, to part of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return make_printable(lines[0][:300]).rstrip(".")
