"""Parquet out, for rows whose types are only known as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from sgmft.data.tables.cells import to_json
from sgmft.data.tables.raw import RawRow, RawTable, check_header, first_line
from sgmft.errors import SgmftError

_MAX_EXACT = 2**53  # larger integers may change when they become doubles


class ColumnTypes:
    """The narrowest types that hold all plain values taken so far.

    A column is boolean, 64-bit integer, double, text, date, time stamp, or a list of one of these;
    text while all its values are null. Where values do not fit together, integers become doubles if
    that loses nothing, and anything else becomes text. Objects, and lists of lists, are text.
    """

    def __init__(self) -> None:
        self._joined: dict[str, Any] = {}
        self._big: set[str] = set()

    def take(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Widen the types so that they hold these values too."""
        import pyarrow as pa

        for name, values in columns.items():
            if any(map(_is_big, values)):
                self._big.add(name)
            self._joined[name] = _join(self._joined.get(name, pa.null()), _infer(values))

    def join(self, types: Mapping[str, Any]) -> None:
        """Widen the types so that they hold what columns of these Arrow types hold too."""
        import pyarrow as pa

        for name, kind in types.items():
            if pa.types.is_integer(kind):
                self._big.add(name)  # perhaps: nobody has looked
            self._joined[name] = _join(self._joined.get(name, pa.null()), kind)

    @property
    def types(self) -> dict[str, Any]:
        """The Arrow type of each column, in the order in which they came."""
        import pyarrow as pa

        settled = {name: _settled(kind) for name, kind in self._joined.items()}
        return {
            name: pa.string() if name in self._big and _is_double(kind) else kind
            for name, kind in settled.items()
        }


def to_arrow(values: Sequence[Any], kind: Any) -> Any:
    """Plain values as an Arrow array; in a column of text, what is no text is JSON."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = [value if value is None else _text(value) for value in values]
    return pa.array(values, kind)


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


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if _is_day(value) else to_json(value)


def _is_day(value: Any) -> bool:
    return isinstance(value, date)


def _is_big(value: Any) -> bool:
    return any(isinstance(v, int) and abs(v) > _MAX_EXACT for v in _members(value))


def _members(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else (value,)


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

        arrays = [to_arrow(values, kind) for values, kind in zip(cells, self._types, strict=True)]
        return pa.table(arrays, schema=self._writer.schema)


def _columns_of(batch: Any) -> list[list[Any]]:
    return [column.to_pylist() for column in batch.columns]


_BATCH = 1024

_BATCH_BYTES = 64 * 1024 * 1024


# --- Parquet


def _open_parquet(path: Path) -> RawTable:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = list(pyarrow.parquet.read_schema(path).names)
    except Exception as error:  # hostile bytes make pyarrow raise nearly every exception there is
        if isinstance(error, OSError) and error.errno:  # the system's, told by `open_table`
            raise
        raise _damaged_parquet(path, error) from error
    check_header(path, columns)
    return RawTable(path.name, path.parent, columns, _parquet_rows(path, columns))


def _damaged_parquet(path: Path, error: Exception) -> SgmftError:
    reason = first_line(error)
    return SgmftError(f"{path} is a damaged Parquet file ({reason}): write it again.")


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_rows_at_once(file)):
                for cells in zip(*map(to_python, batch.columns), strict=True):
                    number += 1
                    yield RawRow(number, dict(zip(columns, cells, strict=True)))
    except Exception as error:  # as above; a time zone that nobody knows is a KeyError
        raise _damaged_parquet(path, error) from error


def _rows_at_once(file: Any) -> int:
    """So many rows that a batch takes some 64 MiB; tables that hold pictures have long rows."""
    groups = range(file.num_row_groups)
    size: int = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    rows: int = file.metadata.num_rows
    return max(1, min(_BATCH, _BATCH_BYTES * rows // max(1, size)))


def to_python(column: Any) -> list[Any]:
    """Turn a column into Python values; a text that is not UTF-8 stays bytes."""
    import pyarrow

    try:
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pyarrow.timestamp("us", column.type.tz))  # unless that loses any
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decoded(cell) for cell in column.cast(pyarrow.binary()).to_pylist()]
    except (ValueError, OverflowError):  # times Python has no type for
        values = column.cast(pyarrow.string()).to_pylist()
    return values


def _decoded(cell: bytes | None) -> str | bytes | None:
    try:
        return cell if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell
