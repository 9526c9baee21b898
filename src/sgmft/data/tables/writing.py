"""Tables out: CSV, TSV, JSON lines, Parquet; complete or not at all."""

from __future__ import annotations

import csv
import glob
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from sgmft.data.tables.cells import to_json, to_plain
from sgmft.data.tables.parquet import ParquetSink
from sgmft.errors import SgmftError
from sgmft.utils.files import leftovers, writing


class Sink(Protocol):
    """Where rows go; one per format."""

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows of plain values, in the order of the columns."""

    def close(self) -> None:
        """Write what is left and close the file."""


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
        self, path: Path | None, columns: Sequence[str], sink: Callable[[Path, list[str]], Sink]
    ) -> None:
        self.columns = _told_apart(str(to_plain(name)) for name in columns)
        if len(set(columns)) != len(columns):
            raise ValueError(f"a column is named twice in {list(columns)}")
        self._keys = list(columns)
        self._path = path
        self._open = sink
        self._sink: Sink | None = None
        self._temporary = Path()

    def __enter__(self) -> TableWriter:
        if self._path is not None:
            target = self._path.resolve()
            self._temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
            with _told(self._path):
                target.parent.mkdir(parents=True, exist_ok=True)
                for leftover in leftovers(target.parent, glob.escape(target.name)):
                    leftover.unlink(missing_ok=True)
        with _told(self._path):
            self._sink = self._open(self._temporary, self.columns)
        return self

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows. A key that is missing becomes null (an empty cell in CSV).

        Raises:
            ValueError: when a row has a key that is no column, or outside a ``with`` block.
            SgmftError: when the disk refuses.
        """
        if self._sink is None:
            raise ValueError("write is for use inside a with block")
        known = set(self._keys)
        for row in rows:
            if unknown := row.keys() - known:
                raise ValueError(f"{sorted(unknown)} are none of the columns {self._keys}")
        with _told(self._path):
            self._sink.write([[to_plain(row.get(key)) for key in self._keys] for row in rows])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            if kind is not None:
                with suppress(Exception):  # the exception under way is the one to be seen
                    sink.close()
                return
            with _told(self._path):
                sink.close()
                if self._path is not None:
                    self._temporary.replace(self._path.resolve())
        finally:
            if self._path is not None:
                with suppress(OSError):  # of a disk that has become read-only meanwhile
                    self._temporary.unlink(missing_ok=True)


def _told_apart(names: Iterable[str]) -> list[str]:
    """The names, which may have become equal where a lone surrogate became U+FFFD."""
    told: dict[str, None] = {}
    for name in names:
        while name in told:
            name += "\ufffd"
        told[name] = None
    return list(told)


def open_writer(path: str | Path, columns: Sequence[str]) -> TableWriter:
    """Open a table for writing; its suffix decides the format, "-" is JSONL on standard output.

    - ``.csv`` is UTF-8 with a byte order mark, so that Excel shows Chinese; ``.tsv`` is UTF-8.
      Lists and objects become JSON. Texts are written as they are, also those that begin with
      ``=``, ``+``, ``-`` or ``@``, which a spreadsheet may take for formulas.
    - ``.jsonl`` (or ``.ndjson``) is UTF-8, one object per line.
    - ``.parquet`` takes the type of each column from its values; see `ParquetSink`.

    In every format NaN becomes null, and a lone surrogate, which no encoding has room for,
    becomes U+FFFD; infinity is "inf" where it is JSON. A folder that does not exist is made.

    Raises:
        SgmftError: for a suffix that is none of these, or a path that cannot be written.
        ValueError: when a column is named twice.
    """
    if str(path) == "-":
        return TableWriter(None, columns, lambda _, names: _StandardOutput(names))
    path = Path(path)
    sink = _SINKS.get(path.suffix.lower())
    if sink is None:
        raise SgmftError(
            f"{path} is no table sgmft can write: end its name in {', '.join(_SINKS)}."
        )
    if path.is_dir():
        raise SgmftError(f"{path} is a folder: give the name of a file to write.")
    return TableWriter(path, columns, sink)


def _told(path: Path | None) -> AbstractContextManager[None]:
    """Turn the system's refusal into a sentence; a closed pipe is left to the caller."""
    return nullcontext() if path is None else writing(path)


class _Delimited:
    def __init__(self, path: Path, columns: list[str], delimiter: str, encoding: str) -> None:
        self._file = path.open("x", encoding=encoding, newline="")
        self._writer = csv.writer(self._file, delimiter=delimiter)
        self._writer.writerow(columns)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._writer.writerows([self._cell(value) for value in row] for row in rows)

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def _cell(value: Any) -> Any:
        return to_json(value) if isinstance(value, (bool, list, dict)) else value


def _json_line(columns: list[str], row: Sequence[Any]) -> str:
    return to_json(dict(zip(columns, row, strict=True))) + "\n"


class _JsonLines:
    def __init__(self, path: Path, columns: list[str]) -> None:
        self._columns = columns
        self._file = path.open("x", encoding="utf-8", newline="\n")

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._file.writelines(_json_line(self._columns, row) for row in rows)

    def close(self) -> None:
        self._file.close()


class _StandardOutput:
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        sys.stdout.flush()
        for row in rows:
            sys.stdout.buffer.write(_json_line(self._columns, row).encode())
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """Leave standard output open."""


_SINKS: dict[str, Callable[[Path, list[str]], Sink]] = {
    ".csv": lambda path, columns: _Delimited(path, columns, ",", "utf-8-sig"),
    ".tsv": lambda path, columns: _Delimited(path, columns, "\t", "utf-8"),
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
    ".parquet": ParquetSink,
}
