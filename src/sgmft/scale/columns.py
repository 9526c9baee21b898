"""The columns of tables and their types, before any of them is written again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sgmft.answers import Layout
from sgmft.tables import open_table
from sgmft.tables.arrow_types import ColumnTypes
from sgmft.tables.plain import plain
from sgmft.tables.reading import cells_of

_BATCH = 4096


def input_types(tables: Sequence[str]) -> dict[str, Any]:
    """The Arrow type of every column that any of the tables has.

    Parquet tables say it themselves; the others are read through.
    """
    seen = ColumnTypes()
    for table in tables:
        if Path(table).suffix.lower() == ".parquet":
            seen.join(_said(table))
            continue
        raw = open_table(table)
        seen.take({name: [] for name in raw.columns or ()})
        rows = (row.values for row in raw.rows)
        while part := list(islice(rows, _BATCH)):
            names = dict.fromkeys(name for row in part for name in row)
            seen.take({name: [plain(row.get(name)) for row in part] for name in names})
    return seen.types


def output_types(layout: Layout, given: dict[str, Any]) -> dict[str, Any]:
    """The Arrow type of every column of a table of predictions; `given` are the input's."""
    import pyarrow as pa

    texts = ("label", "abstained", "error")
    added = {name: pa.string() if name in texts else pa.float64() for name in layout.added}
    if "set" in added:
        added["set"] = pa.list_(pa.string())
    return {layout.renamed[name]: kind for name, kind in given.items()} | added


def _said(table: str) -> dict[str, Any]:
    """What a Parquet table says of its columns, as the types of the plain values they become."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_table(table)  # says what is wrong with a damaged one
    with pq.ParquetFile(table) as file:
        types = {field.name: _plain_type(field.type) for field in file.schema_arrow}
        times = [name for name, kind in types.items() if pa.types.is_temporal(kind)]
        for batch in file.iter_batches(columns=times) if times else ():
            late = [name for name in times if _is_read_as_text(batch[name])]
            types.update(dict.fromkeys(late, pa.string()))
    return types


def _is_read_as_text(times: Any) -> bool:
    """Whether Python has no word for some of these times; the first or the last, if any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = pa.array(pc.min_max(times).values(), times.type)
    return any(isinstance(cell, str) for cell in cells_of(ends))


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

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
