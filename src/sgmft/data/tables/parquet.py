"""Parquet; imported by `formats` when a file is opened, for Arrow takes long to import."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgmft.data.tables.base import RawRow, RawTable, parsing
from sgmft.data.tables.cells import to_json
from sgmft.data.tables.columns import find_role, number_columns
from sgmft.errors import TEXTS, SgmftError

GROUP_ROWS = 4096  # rows per row group; they wait in memory until so many have come
_DAMAGED = "a damaged Parquet file", "write it again"
_BATCH_ROWS = 64  # read at once, for a cell may be packed a thousandfold
_BATCH_BYTES = 64 * 1024 * 1024  # read at once, by the sizes that the file declares
_MAX_RATIO = 200  # of a row group's size, unpacked, to the file's: no posts pack as well
_EMPTY = {pa.null(): pa.string(), pa.list_(pa.null()): pa.list_(pa.string())}  # without values yet
_MAX_EXACT = 2**53  # larger integers may change when they become doubles


def open_parquet(path: Path) -> RawTable:
    """Open a Parquet file; classes of Hugging Face's `ClassLabel` by their names."""
    with parsing(path, *_DAMAGED):
        about = pq.read_metadata(path)
        schema = about.schema.to_arrow_schema()
        groups = map(about.row_group, range(about.num_row_groups))
        size = max((x.total_byte_size for x in groups), default=0)  # a damaged column's aborts
        if size > max(_BATCH_BYTES, _MAX_RATIO * path.stat().st_size):
            raise SgmftError(TEXTS["unpacks to more"], path=path, size=size / 2**20)
    columns = number_columns(schema.names, path)
    classes = () if find_role(columns, "label") else tuple(_class_names(schema))
    labels = classes if len(classes) == 1 else ("label",)
    return RawTable(path.name, path.parent, columns, _iter_rows(path, columns), labels)


def _class_names(schema: Any) -> dict[str, dict[int, str | None]]:
    """Return the names that numbers stand for, of each column with a `ClassLabel`; -1 is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        listed = {x: y["names"] for x, y in features.items() if y.get("_type") == "ClassLabel"}
        return {
            name: {-1: None, **dict(enumerate(map(str, names)))}
            for name, names in listed.items()
            if isinstance(names, list) and name in schema.names
            if pa.types.is_integer(schema.field(name).type)
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def read_column_types(path: Path) -> dict[str, Any]:
    """Return the Arrow types of a file's columns as plain values; only times are read for that."""
    open_parquet(path)
    with pq.ParquetFile(path) as file:
        types = {field.name: _plain_type(field.type) for field in file.schema_arrow}
        types |= dict.fromkeys(_class_names(file.schema_arrow), pa.string())
        times = [name for name, kind in types.items() if pa.types.is_temporal(kind)]
        for batch in file.iter_batches(columns=times) if times else ():
            for name in times:
                ends = pa.array(pc.min_max(batch[name]).values(), batch[name].type)
                if any(isinstance(cell, str) for cell in to_python(ends)):
                    types[name] = pa.string()
    return types


class ParquetWriter:
    """Writes rows of plain values to a Parquet file, of the narrowest `ColumnTypes`."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._path, self._columns = path, columns
        self._waiting: list[Sequence[Any]] = []
        self._seen = ColumnTypes()
        self._writer: Any = None
        path.touch(exist_ok=False)  # so that a path that cannot be written is refused now

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
        self._writer.close()

    def _write_group(self, rows: Sequence[Sequence[Any]]) -> None:
        cells = [[row[i] for row in rows] for i in range(len(self._columns))]
        self._seen.update(dict(zip(self._columns, cells, strict=True)))
        schema = pa.schema(self._seen.types)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, schema)
        elif schema != self._writer.schema:
            self._widen(schema)
        self._write_cells(cells)

    def _widen(self, schema: Any) -> None:
        """Copy what was written into wider types, as later rows do not fit the first group's."""
        self._writer.close()
        narrow = self._path.replace(self._path.with_suffix(".narrow"))
        try:
            self._writer = pq.ParquetWriter(self._path, schema)
            with pq.ParquetFile(narrow) as file:
                for batch in file.iter_batches(GROUP_ROWS):
                    self._write_cells([column.to_pylist() for column in batch.columns])
        finally:
            narrow.unlink()

    def _write_cells(self, cells: Sequence[list[Any]]) -> None:
        schema = self._writer.schema
        arrays = [to_arrow(values, kind) for values, kind in zip(cells, schema.types, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=schema))


class ColumnTypes:
    """The narrowest types that hold all plain values seen so far.

    A column is boolean, 64-bit integer, double, text, date, time stamp, or a list of one of these;
    text while all its values are null. Where values do not fit together, integers become doubles if
    that loses nothing, and anything else becomes text. Objects, and lists of lists, are text.
    """

    def __init__(self) -> None:
        self._joined: dict[str, Any] = {}
        self._big: set[str] = set()

    def update(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Widen the types so that they hold these values too."""
        for name, values in columns.items():
            members = (x for value in values for x in _members(value))
            if any(isinstance(x, int) and abs(x) > _MAX_EXACT for x in members):
                self._big.add(name)
            self._joined[name] = _join(self._joined.get(name, pa.null()), _infer(values))

    def join(self, types: Mapping[str, Any]) -> None:
        """Widen the types so that they hold what columns of these Arrow types hold too."""
        for name, kind in types.items():
            if pa.types.is_integer(kind):
                self._big.add(name)  # perhaps: nobody has looked
            self._joined[name] = _join(self._joined.get(name, pa.null()), kind)

    @property
    def types(self) -> dict[str, Any]:
        """The Arrow type of each column, in the order in which they came."""
        types = {name: _EMPTY.get(kind, kind) for name, kind in self._joined.items()}
        doubles = (pa.float64(), pa.list_(pa.float64()))  # in which large integers may change
        lossy = (name for name in self._big if types[name] in doubles)
        return types | dict.fromkeys(lossy, pa.string())


def to_arrow(values: Sequence[Any], kind: Any) -> Any:
    """Convert plain values to an Arrow array; in a column of text, what is no text is JSON."""
    if pa.types.is_string(kind):
        values = [str(x) if isinstance(x, date) else x for x in values]
        values = [x if x is None or isinstance(x, str) else to_json(x) for x in values]
    return pa.array(values, kind)


def to_python(column: Any) -> list[Any]:
    """Convert an Arrow column to Python values; a text that is not UTF-8 stays bytes."""
    try:
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pa.timestamp("us", column.type.tz))  # unless that loses any
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_decode(cell) for cell in column.cast(pa.binary()).to_pylist()]
    except (ValueError, OverflowError):  # times Python has no type for
        return list(column.cast(pa.string()).to_pylist())


def _iter_rows(path: Path, columns: list[str]) -> Iterator[RawRow]:
    number = 0
    with parsing(path, *_DAMAGED), pq.ParquetFile(path) as file:
        classes = _class_names(file.schema_arrow)
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        size = max(1, sum(group.total_byte_size for group in groups))
        fit = _BATCH_BYTES * file.metadata.num_rows // size  # pictures make long rows
        for batch in file.iter_batches(max(1, min(_BATCH_ROWS, fit))):
            for cells in zip(*map(to_python, batch.columns), strict=True):
                number += 1
                row = dict(zip(columns, cells, strict=True))
                for name, names in classes.items():
                    row[name] = names.get(row[name], row[name])
                yield RawRow(number, row)


def _decode(cell: bytes | None) -> str | bytes | None:
    with suppress(UnicodeDecodeError):
        return cell and cell.decode()
    return cell


def _infer(values: Sequence[Any]) -> Any:
    """Return the type of all values: null if there are none, and text if they differ."""
    cells = (cell for value in values for cell in _members(value))
    if len({(type(x), getattr(x, "tzinfo", None)) for x in cells if isinstance(x, date)}) > 1:
        return pa.string()  # Arrow would make them one kind, and drop hours or time zones
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.string()
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return pa.string() if pa.types.is_nested(inner) else kind


def _join(one: Any, other: Any) -> Any:
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


def _plain_type(kind: Any) -> Any:
    """Return the type of a column of type `kind` once its cells are plain values."""
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return kind
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _plain_type(kind.value_type)
        return pa.string() if pa.types.is_nested(inner) else pa.list_(inner)
    return pa.string()


def _members(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)
