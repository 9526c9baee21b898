"""Tables out, whatever their format; complete or not at all."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from sgmft.data.tables.base import RowWriter
from sgmft.data.tables.cells import to_plain
from sgmft.data.tables.formats import WRITABLE, find_format
from sgmft.data.tables.json import JsonLinesWriter
from sgmft.errors import SgmftError
from sgmft.utils.files import leftovers, temporary_of, writing


def open_writer(path: str | Path, columns: Sequence[str]) -> TableWriter:
    """Open a table for writing; its suffix decides the format, "-" is JSONL on standard output.

    - ``.csv`` is UTF-8 with a byte order mark, so that Excel shows Chinese; ``.tsv`` is UTF-8.
      Lists and objects become JSON. Texts are written as they are, also those that begin with
      ``=``, ``+``, ``-`` or ``@``, which a spreadsheet may take for formulas.
    - ``.jsonl`` (or ``.ndjson``) is UTF-8, one object per line.
    - ``.parquet`` takes the type of each column from its values; see `ParquetWriter`.

    In every format NaN becomes null, and a lone surrogate, which no encoding has room for,
    becomes U+FFFD; infinity is "inf" where it is JSON. A folder that does not exist is made.

    Raises:
        SgmftError: for a suffix that is none of these, or a path that cannot be written.
        ValueError: when a column is named twice.
    """
    if str(path) == "-":
        return TableWriter(None, columns, lambda _, names: JsonLinesWriter(None, names))
    path = Path(path)
    table_format = find_format(path)
    if table_format is None or table_format.write is None:
        raise SgmftError(
            f"{path} is no table sgmft can write: end its name in {', '.join(WRITABLE)}."
        )
    if path.is_dir():
        raise SgmftError(f"{path} is a folder: give the name of a file to write.")
    return TableWriter(path, columns, table_format.write)


class TableWriter:
    """Writes rows to a table; use it in a ``with`` statement.

    A file is written under a temporary name in the same folder, and gets its own name when the
    ``with`` block ends well. After an exception the temporary file is removed, and a file that was
    there before is as it was. What a process that was killed left behind is removed by the next one
    that writes the same file. Standard output is flushed after each `write`.

    Attributes:
        columns: the columns, in order.
    """

    def __init__(
        self,
        path: Path | None,
        columns: Sequence[str],
        create: Callable[[Path, list[str]], RowWriter],
    ) -> None:
        self.columns = _make_distinct(str(to_plain(name)) for name in columns)
        if len(set(columns)) != len(columns):
            raise ValueError(f"a column is named twice in {list(columns)}")
        self._keys = list(columns)
        self._path = path
        self._temporary = Path()
        self._create = create
        self._rows: RowWriter | None = None

    def __enter__(self) -> TableWriter:
        with self._writing():
            if self._path is not None:
                target = self._path.resolve()
                target.parent.mkdir(parents=True, exist_ok=True)
                for leftover in leftovers(target.parent, glob.escape(target.name)):
                    leftover.unlink(missing_ok=True)
                self._temporary = temporary_of(target)
            self._rows = self._create(self._temporary, self.columns)
        return self

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows. A key that is missing becomes null (an empty cell in CSV).

        Raises:
            ValueError: when a row has a key that is no column, or outside a ``with`` block.
            SgmftError: when the disk refuses.
        """
        if self._rows is None:
            raise ValueError("write is for use inside a with block")
        known = set(self._keys)
        for row in rows:
            if unknown := row.keys() - known:
                raise ValueError(f"{sorted(unknown)} are none of the columns {self._keys}")
        with self._writing():
            self._rows.write([[to_plain(row.get(key)) for key in self._keys] for row in rows])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        rows, self._rows = self._rows, None
        if rows is None:
            return
        try:
            if kind is not None:
                with suppress(Exception):  # the exception under way is the one to be seen
                    rows.close()
                return
            with self._writing():
                rows.close()
                if self._path is not None:
                    self._temporary.replace(self._path.resolve())
        finally:
            if self._path is not None:
                with suppress(OSError):  # of a disk that has become read-only meanwhile
                    self._temporary.unlink(missing_ok=True)

    def _writing(self) -> AbstractContextManager[None]:
        """Raise SgmftError where the system refuses; a closed pipe is left to the caller."""
        return nullcontext() if self._path is None else writing(self._path)


def _make_distinct(names: Iterable[str]) -> list[str]:
    """Lengthen names that have become equal where a lone surrogate became U+FFFD."""
    distinct: dict[str, None] = {}
    for name in names:
        while name in distinct:
            name += "\ufffd"
        distinct[name] = None
    return list(distinct)
