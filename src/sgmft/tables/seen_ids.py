"""Which ids of a table have been seen, in memory that does not grow with it."""

from __future__ import annotations

import sqlite3


class SeenIds:
    """The row in which each id came first.

    In a private database that SQLite keeps in memory while it is small and on disk beyond that
    (a file name of "" asks for one; sqlite.org/inmemorydb.html).
    """

    def __init__(self) -> None:
        # A generator may be taken up by another thread than began it, though never by two at once.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        self._rows.execute("BEGIN")

    def first(self, key: str, row: int) -> int:
        """The row that had this id first: `row`, if none had it before."""
        coded = key.encode("utf-8", "surrogatepass")
        new = self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (coded, row))
        if new.rowcount:
            return row
        found = self._rows.execute("SELECT row FROM seen WHERE id = ?", (coded,)).fetchone()
        return int(found[0])
