"""The feature store: Parquet shards keyed by what a post contains, one folder per encoder setting.

A shard is written under a temporary name and then renamed, so a shard that is there is whole; a
process killed at any moment loses at most the shard it was computing. Its name has the digest of
its bytes, so damage is seen on reading: the shard is set aside, and its posts are no longer in the
store. Nothing is keyed by a post's place: any table that holds the same post finds its features.
"""

import errno
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.base import EncoderInfo, PostFeatures
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import error_reason, leftovers, set_aside, write_whole, writing

# of shards that are read. 3: the first posts were cleaned while the emoji were still being loaded
FORMAT = 3
OPEN_BYTES = 64 << 20  # of shards that stay in memory: posts that come again are found there
INDEX_BYTES = 64 << 20  # of the index in memory
STALE = 86_400  # seconds after which temporary files are taken for those of a killed process


class FeatureStore:
    """Features on disk of one encoder setting, in a folder of its own, which processes share."""

    def __init__(self, folder: str | Path, info: EncoderInfo, tokens: bool) -> None:
        self.info, self.tokens = info, tokens
        kind = f"{'tokens' if tokens else 'pooled'}-{FORMAT}"
        self.folder = Path(folder) / f"{info.fingerprint}-{kind}"
        columns = [
            ("key", pa.string()),
            ("text", pa.list_(pa.float32(), info.text_width)),
            ("words", pa.list_(pa.list_(pa.float16(), info.word_width))),
            ("images", pa.list_(pa.list_(pa.float32(), info.image_width))),
            ("regions", pa.list_(pa.list_(pa.float16(), info.image_width))),
            ("ngrams", pa.list_(pa.int32())),
            ("joint", pa.list_(pa.float32(), info.joint_width)),
        ]
        self._schema = pa.schema(columns if info.joint_width else columns[:-1])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            description = json.dumps({**asdict(info), "tokens": tokens}, indent=2)
            # The underscore hides it from readers that take the whole folder for one table.
            if not (self.folder / "_encoder.json").exists():  # so a finished store may be read-only
                write_whole(self.folder / "_encoder.json", description.encode())
        except OSError as error:
            raise SgmftError(TEXTS["no store"], folder=folder, reason=error.strerror) from error
        for leftover in leftovers(self.folder):  # younger ones may still be in use
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > STALE:
                    leftover.unlink()
        self._index = StoreIndex()
        self._shards: list[Path] = []  # by their numbers in the index
        self._open: dict[Path, tuple[pa.Table, int]] = {}  # the one read last at its end
        for shard in sorted(self.folder.glob("part-*.parquet")):
            try:
                # Unchecked: a damaged key is a post not found, which is encoded again.
                # `pq.read_table` would import pyarrow.dataset, and pandas with it.
                with suppress(FileNotFoundError), _reading(shard), pq.ParquetFile(shard) as file:
                    keys = file.read(columns=["key"])["key"].cast(pa.string())
                    self._register(shard, keys.to_pylist())
            except _DamagedError:  # a missing one another process has set aside
                _set_aside(shard)

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def __len__(self) -> int:
        return len(self._index)

    def write(self, rows: Mapping[str, PostFeatures]) -> None:
        """Add one shard of these posts, whole or not at all; SgmftError if it cannot be written."""
        if not rows:
            return
        fields = list(self._schema)[1:]
        columns = (_column([getattr(x, y.name) for x in rows.values()], y.type) for y in fields)
        table = pa.Table.from_arrays([text_column(rows), *columns], schema=self._schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()
        shard = self.folder / _name(data)
        with writing(f"The feature shard {shard}"):
            write_whole(shard, data)
        self._register(shard, list(rows))

    def read(self, keys: Sequence[str]) -> list[PostFeatures]:
        """Read the features of these posts, in order; KeyError for one that the store never had."""
        for key in keys:
            if key not in self:
                raise KeyError(key)
        rows = self.find(keys)
        if any(key not in rows for key in keys):
            raise SgmftError(TEXTS["damaged features"], folder=self.folder)
        return [rows[key] for key in keys]

    def find(self, keys: Iterable[str]) -> dict[str, PostFeatures]:
        """Read the features of those of these posts that are in the store and whole."""
        own = defaultdict[int, dict[str, int]](dict)  # rows of keys, by shard
        for key, (number, row) in self._index.find(keys).items():
            own[number][key] = row
        rows: dict[str, PostFeatures] = {}
        for number, places in sorted(own.items()):
            try:
                table = self._table(self._shards[number])
            except (_DamagedError, FileNotFoundError) as error:
                self._index.forget(number)
                if isinstance(error, _DamagedError):
                    _set_aside(self._shards[number])
                continue
            rows |= {key: _row(table, row) for key, row in places.items()}
        return rows

    def in_order(self, keys: Iterable[str]) -> list[str]:
        """Sort these keys, each once, so that every shard is opened once when they are read."""
        places = self._index.find(keys)
        return sorted(places, key=places.__getitem__)

    def _table(self, shard: Path) -> pa.Table:
        if (known := self._open.pop(shard, None)) is None:
            table = _read(shard)
            known = table, table.nbytes  # which takes a while to count
        self._open[shard] = known
        while len(self._open) > 1 and sum(size for _, size in self._open.values()) > OPEN_BYTES:
            del self._open[next(iter(self._open))]
        return known[0]

    def _register(self, shard: Path, keys: Sequence[str]) -> None:
        self._index.add(keys, len(self._shards))
        self._shards.append(shard)


class StoreIndex:
    """The shard and row of each key, in SQLite's private database, on disk beyond `INDEX_BYTES`."""

    def __init__(self) -> None:
        # Threads may look up while one adds, which SQLite lets in one after another.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA cache_size = -{INDEX_BYTES >> 10}; "
            "CREATE TABLE places (key BLOB PRIMARY KEY, shard, row) WITHOUT ROWID; BEGIN"
        )

    def __len__(self) -> int:
        return int(self._rows.execute("SELECT count(*) FROM places").fetchone()[0])

    def __contains__(self, key: str) -> bool:
        return bool(self.find([key]))

    def find(self, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return the shard and the row of each key that is known."""
        query = "SELECT shard, row FROM places WHERE key = ?"
        found = {key: self._rows.execute(query, (_pack(key),)).fetchone() for key in keys}
        return {key: place for key, place in found.items() if place is not None}

    def add(self, keys: Iterable[str], shard: int) -> None:
        """Note that these keys are the rows of a shard, in order; ValueError if one is no key."""
        rows = [(_pack(key), shard, row) for row, key in enumerate(keys)]
        self._rows.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", rows)

    def forget(self, shard: int) -> None:
        """Forget the keys of a shard."""
        self._rows.execute("DELETE FROM places WHERE shard = ?", (shard,))


def _pack(key: str) -> bytes:
    """Pack a key of 32 hexadecimal digits into half the room."""
    if len(key) != 32:
        raise ValueError("a key has 32 hexadecimal digits")
    return bytes.fromhex(key)


def text_column(values: Iterable[str]) -> pa.Array:
    """Return texts as a column; see `_column` for why not by `pa.array`."""
    cells = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, cells)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(cells))]
    return pa.Array.from_buffers(pa.string(), len(cells), buffers)


def _column(values: Sequence[NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    """Return N lists of numbers, or rows of equal width, as a column: `pa.array` imports pandas."""
    known = [x for x in values if x is not None]
    missing = len(known) < len(values)
    bits = np.packbits([x is not None for x in values], bitorder="little")
    buffers = [pa.py_buffer(bits) if missing else None]
    rows = kind if pa.types.is_fixed_size_list(kind) else kind.value_type
    number, parts = rows, known
    if pa.types.is_fixed_size_list(rows):
        number = rows.value_type
        if any(x.shape[-1] != rows.list_size for x in known):
            raise ValueError(f"features of width {rows.list_size} have another one")
    if rows is kind:  # also a list that is missing has its place
        parts = [np.zeros(kind.list_size) if x is None else x for x in values]
    else:
        ends = np.cumsum([0, *(0 if x is None else len(x) for x in values)], dtype=np.int32)
        buffers.append(pa.py_buffer(ends))
    dtype = number.to_pandas_dtype()
    flat = np.concatenate([np.zeros(0, dtype), *(x.ravel() for x in parts)]).astype(dtype)
    content = pa.Array.from_buffers(number, len(flat), [None, pa.py_buffer(flat)])
    if rows is not kind and rows is not number:
        content = pa.FixedSizeListArray.from_arrays(content, rows.list_size)
    return pa.Array.from_buffers(kind, len(values), buffers, children=[content])


def _row(table: pa.Table, position: int) -> PostFeatures:
    def cell(name: str) -> Any:
        scalar = table[name][position]
        if not scalar.is_valid:
            return None
        flat = scalar.values
        if pa.types.is_fixed_size_list(flat.type):
            return _numbers(flat.flatten()).reshape(-1, flat.type.list_size)
        return _numbers(flat)

    return PostFeatures(**{x: cell(x) for x in table.column_names if x != "key"})


def _numbers(values: pa.Array) -> NDArray[Any]:
    """Return a copy of an array of numbers; its `to_numpy` would import pandas."""
    return np.array(np.from_dlpack(values)) if len(values) else values.to_numpy()


def _name(data: Any) -> str:
    return f"part-{short_digest(data)}.parquet"


class _DamagedError(Exception):
    """A shard does not hold what was written."""


_UNREADABLE = (OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError)


@contextmanager
def _reading(shard: Path) -> Iterator[None]:
    """Tell damage, which is a _DamagedError, from what the system refuses, an SgmftError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
            reason = error_reason(error)
            raise SgmftError(f"The feature shard {shard} cannot be read: {reason}.") from error
        raise _DamagedError from error


def _read(shard: Path) -> pa.Table:
    """Read a shard, checked against the digest in its name: Parquet itself checks little."""
    with _reading(shard):
        data = shard.read_bytes()
    if shard.name != _name(data):
        raise _DamagedError
    return pq.ParquetFile(pa.BufferReader(data)).read()


def _set_aside(shard: Path) -> None:
    """Give a damaged shard a name that is no shard's; it is kept for whoever wants to look."""
    number = 1
    while (aside := shard.with_name(f"_{shard.name}.damaged{number}")).exists():
        number += 1
    set_aside(shard, aside, "feature shard", "its posts are encoded anew")
