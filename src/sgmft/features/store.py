"""The feature store: Parquet shards keyed by what a post contains, one folder per encoder setting.

A shard is written under a temporary name and then renamed, so a shard that is there is whole; a
process killed at any moment loses at most the shard it was computing. Its name has the digest of
its bytes, so damage is seen on reading: the shard is set aside, and its posts are no longer in the
store. Nothing is keyed by a post's place: any table that holds the same post finds its features.
"""

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.base import EncoderInfo, PostFeatures
from sgmft.features.features import Features
from sgmft.features.ragged import Ragged
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import error_reason, leftovers, set_aside, write_whole, writing

# of shards that are read. 3: the first posts were cleaned while the emoji were still being loaded
FORMAT = 3
OPEN_BYTES = 64 << 20  # of shards that stay in memory: posts that come again are found there
INDEX_BYTES = 64 << 20  # of the index in memory
STALE = 86_400  # seconds after which temporary files are taken for those of a killed process
MAPPED_CHUNK = 256  # posts in memory at once while mapped files are written
MAPPED_FORMAT = 1  # of these files
INDEX = "index.safetensors"
POOLED = ("text", "image", "joint")  # have one row a post there
UNUSED = 7 * 86_400  # seconds after which files of a training that was never resumed are removed
Columns = dict[str, tuple[DTypeLike, tuple[int, ...]]]


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
    bits = np.packbits([x is not None for x in values], bitorder="little")
    buffers = [pa.py_buffer(bits) if len(known) < len(values) else None]
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


class MappedFeatures:
    """Features of content keys (N,), all in the store, as files that are mapped into memory.

    What one training reads again and again, more than memory holds, is laid out beside the store's
    shards, which are compressed, in `_mapped/<digest of the posts>/`: one array a feature, post
    after post, and where each post lies. The folder is renamed once it is whole, and removed when
    the training ends; an interrupted one finds it again, and so do all processes of one training,
    which share the pages that the system keeps.
    """

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        self._store, self._keys = store, keys
        self._unique = sorted(set(keys))
        listed = "\n".join([f"mapped {MAPPED_FORMAT}", *self._unique])
        self.folder = store.folder / "_mapped" / hashlib.sha256(listed.encode()).hexdigest()[:32]

    def features(self) -> Features:
        """Open the features of the N posts, in order; write the files if they are not there."""
        if (found := self._open()) is None:
            self._write()
            found = self._open()
        if found is None:
            raise SgmftError(f"{self.folder} cannot be read: delete it and run again.")
        return found

    def remove(self) -> None:
        """Remove the files; whoever has them mapped can go on reading."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _columns(self) -> Columns:
        """Name of each array, type of its numbers and shape of a row."""
        info = self._store.info
        columns: Columns = {
            "text": (np.float32, (info.text_width,)),
            "image": (np.float32, (info.image_width,)),
            "ngrams": (np.int32, ()),
        }
        if self._store.tokens:
            columns["words"] = (np.float16, (info.word_width,))
            columns["regions"] = (np.float16, (info.image_width,))
        if info.joint_width:
            columns["joint"] = (np.float32, (info.joint_width,))
        return columns

    def _open(self) -> Features | None:
        """Map the files; None if one is not there, or cut off, as by a crash of the machine."""
        try:
            with safe_open(self.folder / INDEX, "np") as file:
                per_image = int(file.metadata()["regions_per_picture"])
                index = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            count, values = len(index["place"]), {}
            for name, (dtype, row) in self._columns().items():
                rows = count if name in POOLED else int(index[name].sum())
                values[name] = _map(self.folder / f"{name}.bin", dtype, (rows, *row))
            os.utime(self.folder)  # in use
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
        number = {key: i for i, key in enumerate(self._unique)}
        at = index["place"][np.array([number[key] for key in self._keys], np.int64)]
        names = values.keys() - set(POOLED)
        ragged = {name: Ragged.packed(values[name], index[name])[at] for name in names}
        pooled = values["text"], values["image"], index["has_text"][at], index["has_image"][at]
        tokens = ragged.get("words"), ragged.get("regions"), per_image
        chosen = None if np.array_equal(at, np.arange(count)) else at
        return Features(*pooled, *tokens, ragged["ngrams"], chosen, values.get("joint"))

    def _write(self) -> None:
        above = self.folder.parent
        try:
            above.mkdir(exist_ok=True)
            for old in above.iterdir():
                with suppress(OSError):
                    if time.time() - old.stat().st_mtime > UNUSED:
                        shutil.rmtree(old)
            with tempfile.TemporaryDirectory(".tmp", f".{self.folder.name}.", above, True) as name:
                self._write_into(Path(name))
                shutil.rmtree(self.folder, ignore_errors=True)  # damaged, if it is there
                try:
                    Path(name).rename(self.folder)
                except OSError:
                    if not self.folder.exists():  # else another process was faster
                        raise
        except (OSError, SafetensorError) as error:
            why = {"count": len(self._unique), "folder": above, "reason": error_reason(error)}
            raise SgmftError(TEXTS["not laid out"], **why) from error

    def _write_into(self, folder: Path) -> None:
        keys = self._store.in_order(self._unique)
        columns = self._columns()
        ragged = [name for name in columns if name not in POOLED]
        parts = {name: list[NDArray[Any]]() for name in ("has_text", "has_image", *ragged)}
        per_image = 0
        with ExitStack() as stack:
            files = {x: stack.enter_context((folder / f"{x}.bin").open("wb")) for x in columns}
            for first in range(0, max(1, len(keys)), MAPPED_CHUNK):
                rows = self._store.read(keys[first : first + MAPPED_CHUNK])
                posts = Features.of(rows, self._store.info, self._store.tokens)
                per_image = posts.regions_per_image or per_image
                for name, file in files.items():
                    column = getattr(posts, name)
                    (column.values if isinstance(column, Ragged) else column).tofile(file)
                for name, lengths in parts.items():
                    column = getattr(posts, name)
                    lengths.append(column.length if isinstance(column, Ragged) else column)
            for file in files.values():  # on the disk before a name says that it is whole
                file.flush()
                os.fsync(file.fileno())
        index = {name: np.concatenate(values) for name, values in parts.items()}
        place = {key: i for i, key in enumerate(keys)}
        index["place"] = np.array([place[key] for key in self._unique], np.int64)
        save_file(index, folder / INDEX, {"regions_per_picture": str(per_image)})


def _map(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    if path.stat().st_size != prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{path} is damaged")
    if not prod(shape):  # nothing to map
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=shape))
