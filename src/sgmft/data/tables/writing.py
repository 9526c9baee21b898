"""Tables out, whatever their format; complete or not at all."""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RowWriter
from sgmft.data.tables.cells import to_plain
from sgmft.data.tables.formats import WRITABLE, find_format
from sgmft.data.tables.json import JsonLinesWriter
from sgmft.errors import TEXTS, Message, SgmftError, warn
from sgmft.utils.files import leftovers, temporary_of, writing

_CHANGED = re.compile(r"[=@]|[+-](?![\d.,]+$)|0\d+$|\d{16,}$")  # cells


class TableWriter:
    """Writes rows to the table that `open_writer` has opened."""

    def __init__(self, rows: RowWriter, columns: list[str], path: Path | None) -> None:
        self._rows, self._columns, self._path = rows, columns, path
        self._checked = path is not None and path.suffix.lower() in (".csv", ".tsv")
        self.changed: dict[str, None] = {}  # columns of which a spreadsheet would change cells

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; a missing key becomes null. ValueError where a key is no column."""
        for row in rows:
            if unknown := row.keys() - self._columns:
                raise ValueError(f"{sorted(unknown)} are none of the columns {self._columns}")
        plain = [[to_plain(row.get(name)) for name in self._columns] for row in rows]
        for i, name in enumerate(self._columns if self._checked else ()):
            if name not in self.changed and any(_CHANGED.match(str(row[i])) for row in plain):
                self.changed[name] = None
        with nullcontext() if self._path is None else writing(self._path):
            self._rows.write(plain)


@contextmanager
def open_writer(path: str | Path, columns: Sequence[str]) -> Iterator[TableWriter]:
    """Write a table in a ``with`` statement; its suffix decides the format.

    - ``.csv`` is UTF-8 with a byte order mark, so that Excel shows Chinese; ``.tsv`` is UTF-8.
      Lists and objects become JSON. Texts are written as they are; a warning names the columns
      that a spreadsheet would change: formulas, which begin with ``=``, ``+``, ``-`` or ``@``, and
      numbers of more than 15 digits or with zeros before them.
    - ``.jsonl`` (or ``.ndjson``) is UTF-8, one object per line.
    - ``.parquet`` takes the type of each column from its values; see `ParquetWriter`.

    In every format NaN becomes null, and a lone surrogate, which no encoding has room for,
    becomes U+FFFD; infinity is "inf" where it is JSON. A folder that does not exist is made.

    A file is written under a temporary name in the same folder, and gets its own name when the
    ``with`` block ends well. After an exception the temporary file is removed, and a file that was
    there before is as it was. What a killed process left behind is removed by the next one that
    writes the same file.

    The path "-" is JSON lines on standard output, flushed after each `write`. SgmftError for a
    suffix that is none of these, or a path that cannot be written; ValueError for a column twice.
    """
    keys = list(columns)
    if len(set(keys)) != len(keys):
        raise ValueError(f"a column is named twice in {keys}")
    names: list[str] = []
    for name in (str(to_plain(key)) for key in keys):
        while name in names:  # two that became equal, by U+FFFD for a lone surrogate
            name += "\ufffd"
        names.append(name)
    if str(path) == "-":
        yield TableWriter(JsonLinesWriter(None, names), keys, None)
        return
    path = Path(path)
    table_format = find_format(path)
    if table_format is None or table_format.write is None:
        known = ", ".join(WRITABLE)
        raise SgmftError(f"{path} is no table sgmft can write: end its name in {known}.")
    if path.is_dir():
        raise SgmftError(f"{path} is a folder: give the name of a file to write.")
    with writing(path):
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in leftovers(target.parent, glob.escape(target.name)):
            leftover.unlink(missing_ok=True)
        temporary = temporary_of(target)
        rows = table_format.write(temporary, names)
    try:
        try:
            yield (table := TableWriter(rows, keys, path))
        except BaseException:
            with suppress(Exception):  # the exception under way is the one to be seen
                rows.close()
            raise
        with writing(path):
            rows.close()
            temporary.replace(path.resolve())
        if table.changed:
            changed = ", ".join(map(str, table.changed))
            warn(Message(TEXTS["changed by a spreadsheet"], path=path.name, columns=changed))
    finally:
        with suppress(OSError):  # of a disk that has become read-only meanwhile
            temporary.unlink(missing_ok=True)
