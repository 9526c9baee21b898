"""Parquet out, for rows whose types are only known as they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgmft.tables.arrow_types import ColumnTypes, array_of

GROUP_ROWS = 4096
"""Rows per row group; they wait in memory until so many have come."""


class ParquetSink:
    """Writes rows of plain values to a Parquet file.

    A column gets the narrowest type that holds its values in the first row group; see
    `ColumnTypes`. When later values do not fit, what was written is copied into a wider type, in
    which texts stay as they are and other values are JSON where it is text.
    """

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._path = path
        self._columns = columns
        self._waiting: list[Sequence[Any]] = []
        self._types: list[Any] = []
        self._seen = ColumnTypes()
        self._writer: Any = None
        path.touch(exist_ok=False)  # a path that cannot be written is told now

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take rows of plain values, in the order of the columns."""
        self._waiting.extend(rows)
        while len(self._waiting) >= GROUP_ROWS:
            self._write_group(self._waiting[:GROUP_ROWS])
            del self._waiting[:GROUP_ROWS]

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._waiting or self._writer is None:
            self._write_group(self._waiting)
        self._waiting = []
        self._writer.close()

    def _write_group(self, rows: Sequence[Sequence[Any]]) -> None:
        cells = [[row[i] for row in rows] for i in range(len(self._columns))]
        self._seen.take(dict(zip(self._columns, cells, strict=True)))
        types = list(self._seen.types.values())
        if self._writer is None:
            self._start(types)
        elif types != self._types:
            self._copy_into(types)
        self._writer.write_table(self._table(cells))

    def _start(self, types: list[Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._types = types
        schema = pa.schema(list(zip(self._columns, types, strict=True)))
        self._writer = pyarrow.parquet.ParquetWriter(self._path, schema)

    def _copy_into(self, types: list[Any]) -> None:
        """Start again with wider types, and what was written so far."""
        import pyarrow.parquet

        self._writer.close()
        narrow = self._path.replace(self._path.with_suffix(".narrow"))
        try:
            self._start(types)
            with pyarrow.parquet.ParquetFile(narrow) as file:
                for batch in file.iter_batches(GROUP_ROWS):
                    self._writer.write_table(self._table(_columns_of(batch)))
        finally:
            narrow.unlink()

    def _table(self, cells: Sequence[list[Any]]) -> Any:
        import pyarrow as pa

        arrays = [array_of(values, kind) for values, kind in zip(cells, self._types, strict=True)]
        return pa.table(arrays, schema=self._writer.schema)


def _columns_of(batch: Any) -> list[list[Any]]:
    return [column.to_pylist() for column in batch.columns]
