"""The raw rows of a table, whatever its format. Only a .json file is held in memory whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sgmft.data.tables.csv import open_delimited
from sgmft.data.tables.folder import list_tables
from sgmft.data.tables.json import _jsonl_rows, _open_json
from sgmft.data.tables.parquet import _open_parquet
from sgmft.data.tables.raw import RawRow, RawTable, reading
from sgmft.errors import Message, SgmftError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".json")


def open_table(table: str | Path) -> RawTable:
    """Open one table by its suffix, or "-" (JSONL on stdin); of a folder, its only table.

    Raises:
        SgmftError: when it is missing, empty, damaged, of an unknown kind, or has two columns of
            one name. Damage further down is raised while the rows are read.
    """
    if str(table) == "-":
        return RawTable("standard input", Path(), None, _jsonl_rows(None, "standard input"))
    parts = list_tables(table)
    if len(parts) > 1:
        raise SgmftError(f"{table} holds {len(parts)} tables: give one of them.")
    path = Path(parts[0])
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SgmftError(
            f"{path} is no table sgmft can read: use one of {', '.join(SUFFIXES)}, "
            "or a folder with a metadata file."
        )
    with reading(path):
        if path.stat().st_size == 0:
            raise SgmftError(
                Message("{name} is empty: a table needs at least a header.", name=path)
            )
        if suffix in (".csv", ".tsv"):
            raw = open_delimited(path, "\t" if suffix == ".tsv" else None)
        elif suffix == ".parquet":
            raw = _open_parquet(path)
        elif suffix == ".json":
            raw = _open_json(path)
        else:
            raw = RawTable(path.name, path.parent, None, _jsonl_rows(path, str(path)))
        return replace(raw, rows=_read(path, raw.rows))


def _read(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    with reading(path):
        yield from rows
