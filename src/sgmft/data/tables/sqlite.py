"""SQLite databases."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sgmft.data.tables.base import DAMAGED, RawRow, RawTable, TableFormat, open_member, parsing
from sgmft.data.tables.cells import replace_surrogates
from sgmft.data.tables.encoding import has_undecoded

MAX_CELL = 2**28  # bytes


def _members(path: Path) -> dict[str, list[str]]:
    """Return the columns of each table that has rows."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
    with _open(path) as database:
        names = [name for (name,) in database.execute(query) if not name.startswith("sqlite_")]
        first = {name: database.execute(f"{_select(name)} LIMIT 1") for name in names}
        held = [name for name, found in first.items() if found.fetchone() is not None]
        return {name: [column[0] for column in first[name].description] for name in held}


def open_sqlite(path: Path) -> RawTable:
    """Open a table, FILE/TABLE, or the first with rows of a file; the file is not changed."""
    return open_member(path, _members, _iter_rows, "table")


SQLITE = TableFormat((".sqlite", ".sqlite3", ".db"), open_sqlite, streamed=False, members=_members)


@contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    log = file.with_name(f"{file.name}-wal")
    at_rest = not log.exists() or not log.stat().st_size
    # Where nobody writes, it can be read without the files that SQLite would put beside it.
    address = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' * at_rest}"
    what = "no SQLite database that can be read"
    with (
        parsing(file, what, "check its name, and whether a program has it open"),
        # A generator may be taken up by another thread than began it.
        closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as database,
    ):
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL)
        database.execute("PRAGMA trusted_schema = OFF")
        database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        yield database


def _iter_rows(file: Path, name: str, columns: list[str]) -> Iterator[RawRow]:
    with _open(file) as database:
        for number, cells in enumerate(database.execute(_select(name)), 1):
            values = dict(zip(columns, cells, strict=True))
            texts = {key: x for key, x in values.items() if isinstance(x, str) and has_undecoded(x)}
            values |= {key: replace_surrogates(text) for key, text in texts.items()}
            yield RawRow(number, values, DAMAGED if texts else None)


def _select(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'SELECT * FROM "{quoted}"'
