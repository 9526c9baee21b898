"""The registry of table formats: a new one is a file beside this one, and a line in `FORMATS`."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import TableFormat
from sgmft.data.tables.csv import CSV, TSV
from sgmft.data.tables.json import JSON, JSON_LINES


def _parquet(name: str) -> Callable[..., Any]:
    """Return a function of `parquet`, imported when it is called: Arrow takes long to load."""
    return lambda *args: getattr(import_module("sgmft.data.tables.parquet"), name)(*args)


PARQUET = TableFormat(
    (".parquet",),
    _parquet("open_parquet"),
    _parquet("ParquetWriter"),
    _parquet("read_column_types"),
)
FORMATS: tuple[TableFormat, ...] = (
    CSV,
    TSV,
    JSON_LINES,
    PARQUET,
    JSON,
)

READABLE = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
WRITABLE = tuple(suffix for kind in FORMATS if kind.write for suffix in kind.suffixes)
STREAMED = tuple(suffix for kind in FORMATS if kind.streamed for suffix in kind.suffixes)


def find_format(path: str | Path) -> TableFormat | None:
    """Return the format that a file's suffix names, or None."""
    suffix = Path(path).suffix.lower()
    return next((kind for kind in FORMATS if suffix in kind.suffixes), None)
