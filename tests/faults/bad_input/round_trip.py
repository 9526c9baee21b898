"""Rows that were read are written again in one of the formats, and keep their values."""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bad_input.target import promise
from bad_input.watch import watched

from sgmft.data.tables import open_table, open_writer
from sgmft.data.tables.cells import to_json, to_plain

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
Rows = Sequence[Mapping[str, Any]]


def written_and_read(rows: Rows, data: bytes, folder: Path) -> None:
    """Write rows in a format that depends on `data`, read that, and compare."""
    columns = list(dict.fromkeys([*(name for row in rows for name in row), "error"]))
    suffix = FORMATS[zlib.crc32(data) % len(FORMATS)]
    path = folder / f"again{suffix}"
    given = list(rows)
    with watched(folder):
        with open_writer(path, columns) as writer:
            writer.write(given)
        read = [row.values for row in open_table(path).rows]
    promise(len(read) == len(given), f"{suffix}: {len(given)} rows were written, {len(read)} read")
    for before, after in zip(given, read, strict=True):
        promise(len(after) == len(columns), f"{suffix}: {len(columns)} columns, {len(after)} read")
        for name, cell in zip(columns, after.values(), strict=True):
            held = to_plain(before.get(name))
            promise(
                _same(held, cell, suffix), f"{suffix}: {name!r} was {held!r:.200}, is {cell!r:.200}"
            )


def _same(held: Any, read: Any, suffix: str) -> bool:
    if suffix in (".csv", ".tsv"):
        return (read or "") == ("" if held is None else _as_text(held))
    if suffix == ".jsonl":
        return to_json(read) == to_json(held)
    return read == held or read == _as_text(held) or _is_same_number(held, read)


def _as_text(value: Any) -> str:
    if isinstance(value, (bool, list, dict)):
        return to_json(value)
    return value if isinstance(value, str) else str(value)


def _is_same_number(held: Any, read: Any) -> bool:
    if isinstance(held, list) and isinstance(read, list) and len(held) == len(read):
        return all(x == y or _is_same_number(x, y) for x, y in zip(held, read, strict=True))
    numbers = isinstance(held, (int, float)) and isinstance(read, (int, float))
    return bool(numbers and math.isclose(held, read, rel_tol=0))
