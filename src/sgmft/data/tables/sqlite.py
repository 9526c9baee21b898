"""SQLite databases."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import DAMAGED, RawRow, RawTable, TableFormat
from sgmft.data.tables.cells import replace_surrogates
from sgmft.data.tables.encoding import has_undecoded
from sgmft.errors import SgmftError

MAX_CELL = 2**28  # bytes


def list_database(path: Path) -> dict[str, list[str]]:
    """Return the columns of each table that has rows."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
    with _open(path) as database:
        names = [name for (name,) in database.execute(query) if not name.startswith("sqlite_")]
        first = {name: database.execute(f"{_select(name)} LIMIT 1") for name in names}
        return {
            name: [column[0] for column in found.description]
            for name, found in first.items()
            if found.fetchone() is not None
        }


def open_sqlite(path: Path) -> RawTable:
    """Open a table, FILE/TABLE, or the first of a file; the file is not changed.

    Raises:
        SgmftError: it is no SQLite database, damaged or locked, or has no such table with rows.
    """
    file, name = (path, None) if path.is_file() else (path.parent, path.name)
    tables = list_database(file)
    name = name or next(iter(tables), None)
    if name is None or name not in tables:
        there = ", ".join(tables) or "none"
        raise SgmftError(f"{file} has no table {name or 'with rows'}; those with rows: {there}.")
    shown = file.name if len(tables) == 1 else f"{file.name}/{name}"
    return RawTable(shown, file.parent, tables[name], _iter_rows(file, name, tables[name]))


SQLITE = TableFormat(
    (".sqlite", ".sqlite3", ".db"), open_sqlite, streamed=False, members=list_database
)


@contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    log = file.with_name(f"{file.name}-wal")
    at_rest = not log.exists() or not log.stat().st_size
    # Where nobody writes, it can be read without the files that SQLite would put beside it.
    address = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' * at_rest}"
    try:
        # A generator may be taken up by another thread than began it.
        with closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as database:
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL)
            database.execute("PRAGMA trusted_schema = OFF")
            database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            yield database
    except (sqlite3.Error, UnicodeError) as error:
        raise SgmftError(
            f"{file} is no SQLite database that can be read ({error}): "
            "check its name, and whether a program has it open."
        ) from error


def _iter_rows(file: Path, name: str, columns: list[str]) -> Iterator[RawRow]:
    with _open(file) as database:
        for number, cells in enumerate(database.execute(_select(name)), 1):
            values: dict[str, Any] = dict(zip(columns, cells, strict=True))
            if any(isinstance(cell, str) and has_undecoded(cell) for cell in cells):
                texts = {key: x for key, x in values.items() if isinstance(x, str)}
                values |= {key: replace_surrogates(text) for key, text in texts.items()}
                yield RawRow(number, values, DAMAGED)
            else:
                yield RawRow(number, values)


def _select(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'SELECT * FROM "{quoted}"'
