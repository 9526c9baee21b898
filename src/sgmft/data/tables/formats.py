"""The registry of table formats, and what opens a table with it.

A new format is a file beside this one, and a line in `FORMATS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RawRow, RawTable, TableFormat, reading
from sgmft.data.tables.csv import CSV, TSV
from sgmft.data.tables.json import JSON, JSON_LINES, read_standard_input
from sgmft.errors import SgmftError


def _parquet(name: str) -> Callable[..., Any]:
    """Return a function of `parquet`, imported when it is called: Arrow takes long to load."""
    return lambda *args: getattr(import_module("sgmft.data.tables.parquet"), name)(*args)


PARQUET = TableFormat(
    (".parquet",),
    _parquet("open_parquet"),
    _parquet("ParquetWriter"),
    _parquet("read_column_types"),
)
FORMATS: tuple[TableFormat, ...] = (CSV, TSV, JSON_LINES, PARQUET, JSON)

READABLE = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
WRITABLE = tuple(suffix for kind in FORMATS if kind.write for suffix in kind.suffixes)
STREAMED = tuple(suffix for kind in FORMATS if kind.streamed for suffix in kind.suffixes)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The table of a Hugging Face ImageFolder, by its convention."""


def find_format(path: str | Path) -> TableFormat | None:
    """Return the format that a file's suffix names, or None."""
    suffix = Path(path).suffix.lower()
    return next((kind for kind in FORMATS if suffix in kind.suffixes), None)


def list_tables(table: str | Path) -> list[str | Path]:
    """List the tables of a path, in order.

    A folder with ``metadata.csv|jsonl|parquet`` is an ImageFolder: that file is its table. Any
    other folder is one table in parts: all its files of the `STREAMED` formats by name, except
    those whose names begin with "." or "_", and those of its sub-folders. Anything else, "-"
    included, stands for itself.

    Raises:
        SgmftError: a folder holds none of these or more than one metadata file, or cannot be read.
    """
    if str(table) == "-":
        return [table]
    folder = Path(table)
    with reading(folder):
        if not folder.is_dir():
            return [table]
        found = [folder / name for name in METADATA if (folder / name).is_file()]
        parts = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in STREAMED
            and not file.name.startswith((".", "_"))
            and file.is_file()
        )
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise SgmftError(f"{folder} holds {names}: give the one to read as the table.")
    if not found and not parts:
        raise SgmftError(
            f"{folder} is a folder without any of {', '.join(METADATA)}, and without tables "
            f"({', '.join(STREAMED)}): add one."
        )
    return [*(found or parts)]


def open_table(table: str | Path) -> RawTable:
    """Open one table by its suffix, or "-" (JSONL on stdin); of a folder, its only table.

    Raises:
        SgmftError: when it is missing, empty, damaged, of an unknown format, or has two columns of
            one name. Damage further down is raised while the rows are read.
    """
    if str(table) == "-":
        return read_standard_input()
    parts = list_tables(table)
    if len(parts) > 1:
        raise SgmftError(f"{table} holds {len(parts)} tables: give one of them.")
    path = Path(parts[0])
    table_format = find_format(path)
    if table_format is None:
        raise SgmftError(
            f"{path} is no table sgmft can read: use one of {', '.join(READABLE)}, "
            "or a folder with a metadata file."
        )
    with reading(path):
        if path.stat().st_size == 0:
            raise SgmftError("{name} is empty: a table needs at least a header.", name=path)
        raw = table_format.read(path)
        return replace(raw, rows=_iter_rows(path, raw.rows))


def _iter_rows(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    with reading(path):
        yield from rows
