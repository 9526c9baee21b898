"""Parquet out, for rows whose types are only known as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from sgmft.tables.plain import as_json

GROUP_ROWS = 4096
"""Rows per row group; they wait in memory until so many have come."""

_MAX_EXACT = 2**53  # larger integers may change when they become doubles


class ParquetSink:
    """Writes rows of plain values to a Parquet file.

    A column gets the type of its values in the first row group: boolean, 64-bit integer, double,
    text, date, time stamp, or a list of one of these; text if all are null. When later values do
    not fit, what was written is copied into a wider type: integers become doubles if that loses
    nothing, and anything else becomes text, in which texts stay as they are and other values are
    JSON. Objects, and lists of lists, are always JSON text.
    """

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._path = path
        self._columns = columns
        self._waiting: list[Sequence[Any]] = []
        self._types: list[Any] = []
        self._big = [False] * len(columns)
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
        import pyarrow as pa

        cells = [[row[i] for row in rows] for i in range(len(self._columns))]
        types = []
        for i, values in enumerate(cells):
            self._big[i] = self._big[i] or any(map(_is_big, values))
            old = self._types[i] if self._types else pa.null()
            kind = _settled(_join(old, _infer(values)))
            types.append(pa.string() if self._big[i] and _is_double(kind) else kind)
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

        arrays = [_array(values, kind) for values, kind in zip(cells, self._types, strict=True)]
        return pa.table(arrays, schema=self._writer.schema)


def _columns_of(batch: Any) -> list[list[Any]]:
    return [column.to_pylist() for column in batch.columns]


def _infer(values: Sequence[Any]) -> Any:
    """Give the type of all values, null if there are none, and text if they differ."""
    import pyarrow as pa

    cells = (cell for value in values for cell in _members(value))
    if len({(type(day), getattr(day, "tzinfo", None)) for day in cells if _is_day(day)}) > 1:
        return pa.string()  # Arrow would make them one kind, and drop hours or time zones
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.string()
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return pa.string() if pa.types.is_nested(inner) else kind


def _join(one: Any, other: Any) -> Any:
    """Give the narrowest type that holds the values of both."""
    import pyarrow as pa

    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = {one.value_type, other.value_type} - {pa.null()}
        return pa.list_(inner.pop()) if len(inner) == 1 else pa.string()
    return pa.string()


def _settled(kind: Any) -> Any:
    """Take text for what has no values yet."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_settled(kind.value_type))
    return pa.string() if pa.types.is_null(kind) else kind


def _is_double(kind: Any) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_floating(inner))


def _array(values: Sequence[Any], kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = [value if value is None else _text(value) for value in values]
    return pa.array(values, kind)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if _is_day(value) else as_json(value)


def _is_day(value: Any) -> bool:
    return isinstance(value, date)


def _is_big(value: Any) -> bool:
    return any(isinstance(v, int) and abs(v) > _MAX_EXACT for v in _members(value))


def _members(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else (value,)
