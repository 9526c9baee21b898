"""The feature store: Parquet shards keyed by what a post contains, one folder per encoder setting.

`store/<fingerprint>-<kind>/part-<digest>.parquet` has the columns key, text, words, images,
regions, ngrams (see `PostFeatures`), which pandas, DuckDB and Ray read as they are. A shard is
written under a temporary name and then renamed, so a shard that is there is whole; a process killed
at any moment loses at most the shard it was computing. A shard's name is the digest of its bytes,
so damage is seen on reading: the shard is set aside as `_part-<digest>.parquet.damaged`, which no
reader takes for a shard, and its posts are no longer in the store. Nothing is keyed by a post's
place in a table, so features are found again from any table that holds the same post.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgmft.errors import SgmftError
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.post_features import PostFeatures
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import error_reason, leftovers, set_aside, write_whole

Keys = NDArray[np.bytes_]

Places = NDArray[np.int64]


class _Part(NamedTuple):
    """Some keys in order, and where each one is."""

    keys: Keys  # (N,) of 16 bytes
    shards: NDArray[np.uint32]  # (N,)
    rows: NDArray[np.uint32]  # (N,)


class StoreIndex:
    """Keys of posts to the shard and the row of their features; a key's first place counts.

    Kept as a few sorted arrays, each at least twice as long as the next: a shard is added in time
    that grows with the logarithm of what is there, and so is a key found. Arrays are replaced, not
    changed, so other threads may look up keys while one adds some.
    """

    def __init__(self) -> None:
        self._parts: tuple[_Part, ...] = ()

    def __len__(self) -> int:
        return sum(len(part.keys) for part in self._parts)

    def __contains__(self, key: str) -> bool:
        packed = _packed([key])  # ten times as quick as `find` for a single one
        for part in self._parts:
            at = int(part.keys.searchsorted(packed)[0])
            if (part.keys[at : at + 1] == packed).any():
                return True
        return False

    def find(self, keys: Sequence[str]) -> tuple[Places, Places]:
        """The shard and the row of each of N keys, (N,) and (N,); -1 for those that are unknown."""
        return self._find(_packed(keys))

    def add(self, keys: Sequence[str], shard: int) -> None:
        """Note that these keys are the rows of a shard, in order."""
        packed, rows = np.unique(_packed(keys), return_index=True)
        new = self._find(packed)[0] < 0
        if not new.any():
            return
        numbers = np.full(new.sum(), shard, np.uint32)
        parts = [*self._parts, _Part(packed[new], numbers, rows[new].astype(np.uint32))]
        while len(parts) > 1 and len(parts[-2].keys) < 2 * len(parts[-1].keys):
            parts[-2:] = [_merged(*parts[-2:])]
        self._parts = tuple(parts)

    def forget(self, shard: int) -> None:
        """Forget the keys of a shard."""
        kept = (part.shards != shard for part in self._parts)
        self._parts = tuple(
            _Part(*(column[keep] for column in part))
            for part, keep in zip(self._parts, kept, strict=True)
        )

    def _find(self, packed: Keys) -> tuple[Places, Places]:
        shards, rows = np.full((2, len(packed)), -1, np.int64)
        for part in self._parts:
            if len(part.keys):
                at = np.searchsorted(part.keys, packed).clip(max=len(part.keys) - 1)
                there = part.keys[at] == packed
                shards[there], rows[there] = part.shards[at[there]], part.rows[at[there]]
        return shards, rows


def _merged(one: _Part, other: _Part) -> _Part:
    """Both, which share no key."""
    at = np.searchsorted(one.keys, other.keys)
    return _Part(*(np.insert(a, at, b) for a, b in zip(one, other, strict=True)))


def _packed(keys: Sequence[str]) -> Keys:
    """Keys of 32 hexadecimal digits as they are, in half the room; others as their digests."""
    joined = "".join(keys)
    try:
        data = bytes.fromhex(joined)
    except ValueError:
        data = b""
    if data.hex() != joined or any(len(key) != 32 for key in keys):
        data = b"".join(map(_pack, keys))
    return np.frombuffer(data, "S16")


def _pack(key: str) -> bytes:
    try:
        data = bytes.fromhex(key)
    except ValueError:
        data = b""
    if len(data) == 16 and data.hex() == key:  # fromhex reads capitals and spaces too
        return data
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16]


FORMAT = 2  # of the shards; a store of another format is not read

OPEN_BYTES = 64 << 20  # of shards that stay in memory: posts that come again are found there


class FeatureStore:
    """Features on disk for one encoder setting. Several processes may read and write one folder.

    A damaged shard is set aside, when the store is opened or read, and an `SgmftWarning` names it.

    Args:
        folder: where stores live; this one takes the sub-folder named by its fingerprint.
        info: the encoder; its fingerprint tells stores apart.
        tokens: whether word and region features are kept beside the pooled ones.

    Raises:
        SgmftError: the folder cannot be written, or a damaged shard cannot be set aside.
    """

    def __init__(self, folder: str | Path, info: EncoderInfo, tokens: bool) -> None:
        self.info, self.tokens = info, tokens
        kind = f"{'tokens' if tokens else 'pooled'}-{FORMAT}"
        self.folder = Path(folder) / f"{info.fingerprint}-{kind}"
        self._schema = pa.schema(
            [
                ("key", pa.string()),
                ("text", pa.list_(pa.float32(), info.text_width)),
                ("words", pa.list_(pa.list_(pa.float16(), info.word_width))),
                ("images", pa.list_(pa.list_(pa.float32(), info.image_width))),
                ("regions", pa.list_(pa.list_(pa.float16(), info.image_width))),
                ("ngrams", pa.list_(pa.int32())),
            ]
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            description = json.dumps({**asdict(info), "tokens": tokens}, indent=2)
            # The underscore hides it from readers that take the whole folder for one table.
            if not (self.folder / "_encoder.json").exists():  # so a finished store may be read-only
                write_whole(self.folder / "_encoder.json", description.encode())
        except OSError as error:
            raise SgmftError(
                f"The feature store {folder} cannot be written ({error.strerror}): make room, "
                "allow it, or choose another folder with --features."
            ) from error
        _clear_leftovers(self.folder)
        self._index = StoreIndex()
        self._shards: list[Path] = []  # by their numbers in the index
        self._open: dict[Path, tuple[pa.Table, int]] = {}  # the one asked for last at its end
        for shard in sorted(self.folder.glob("part-*.parquet")):
            try:
                self._register(shard, _read_keys(shard))
            except _DamagedError:
                _set_aside(shard)
            except FileNotFoundError:  # another process has set it aside
                continue

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def __len__(self) -> int:
        return len(self._index)

    def write(self, rows: Mapping[str, PostFeatures]) -> None:
        """Add one shard holding these posts, whole or not at all.

        Raises:
            SgmftError: the disk is full or read-only.
        """
        if not rows:
            return
        columns = {
            "key": list(rows),
            **{name: [_lists(getattr(row, name)) for row in rows.values()] for name in _FIELDS},
        }
        table = pa.table(
            [pa.array(columns[field.name], field.type) for field in self._schema],
            schema=self._schema,
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()
        shard = self.folder / _name(data)
        try:
            write_whole(shard, data)
        except OSError as error:
            raise SgmftError(
                f"The feature shard {shard} cannot be written: {error_reason(error)}."
            ) from error
        self._register(shard, list(rows))

    def read(self, keys: Sequence[str]) -> list[PostFeatures]:
        """Features of these posts, in order.

        Raises:
            KeyError: a key is not in the store.
            SgmftError: it was, in a shard that is damaged.
        """
        for key in keys:
            if key not in self:
                raise KeyError(key)
        rows = self.find(keys)
        if any(key not in rows for key in keys):
            raise SgmftError(
                f"Features in {self.folder} were damaged and are set aside: run the same command "
                "again; only their posts are encoded anew."
            )
        return [rows[key] for key in keys]

    def find(self, keys: Sequence[str]) -> dict[str, PostFeatures]:
        """Features of those of these posts that are in the store and whole.

        A damaged shard is set aside, and one that is gone is forgotten: its posts are then no
        longer in the store.

        Raises:
            SgmftError: a shard cannot be read, or is damaged and cannot be set aside.
        """
        wanted = list(dict.fromkeys(keys))
        shards, places = self._index.find(wanted)
        rows: dict[str, PostFeatures] = {}
        for number in np.unique(shards[shards >= 0]).tolist():
            try:
                table = self._table(self._shards[number])
            except (_DamagedError, FileNotFoundError) as error:
                self._index.forget(number)
                if isinstance(error, _DamagedError):
                    _set_aside(self._shards[number])
                continue
            for i in np.flatnonzero(shards == number).tolist():
                rows[wanted[i]] = _row(table, int(places[i]))
        return rows

    def _table(self, shard: Path) -> pa.Table:
        """A whole shard; those that were asked for last stay in memory."""
        if (known := self._open.pop(shard, None)) is None:
            table = _read(shard)
            known = table, table.nbytes  # which takes a while to count
        self._open[shard] = known
        while len(self._open) > 1 and sum(size for _, size in self._open.values()) > OPEN_BYTES:
            del self._open[next(iter(self._open))]
        return known[0]

    def in_order(self, keys: Iterable[str]) -> list[str]:
        """Each of these keys once, in the order that opens every shard once when it is read."""
        wanted = sorted(set(keys))
        shards, places = self._index.find(wanted)
        return [wanted[i] for i in np.lexsort((places, shards)).tolist()]

    def _register(self, shard: Path, keys: Sequence[str]) -> None:
        self._index.add(keys, len(self._shards))
        self._shards.append(shard)


_FIELDS = PostFeatures._fields


def _lists(value: Any) -> Any:
    return None if value is None else list(value) if value.ndim == 2 else value


def _row(table: pa.Table, position: int) -> PostFeatures:
    def cell(name: str) -> Any:
        scalar = table[name][position]
        if not scalar.is_valid:
            return None
        flat = scalar.values
        if pa.types.is_fixed_size_list(flat.type):
            width = flat.type.list_size
            return flat.flatten().to_numpy(zero_copy_only=False).reshape(-1, width).copy()
        return np.array(flat.to_numpy(zero_copy_only=False))

    return PostFeatures(*(cell(name) for name in _FIELDS))


def _name(data: Any) -> str:
    return f"part-{short_digest(data)}.parquet"


class _DamagedError(Exception):
    """A shard does not hold what was written."""


def _read(shard: Path) -> pa.Table:
    """The whole shard, checked against the digest in its name: Parquet itself checks little."""
    try:
        data = shard.read_bytes()
    except OSError as error:
        if error.errno == errno.EIO:  # a sector that cannot be read
            raise _DamagedError from error
        raise _refused(shard, "read", error) from error
    if shard.name != _name(data):
        raise _DamagedError
    return pq.read_table(pa.BufferReader(data))


def _read_keys(shard: Path) -> list[str]:
    """The keys alone, unchecked: a damaged key is a post not found, which is encoded again."""
    try:
        keys = pq.read_table(shard, columns=["key"], partitioning=None)["key"]
    except (OSError, pa.ArrowException, ValueError, LookupError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
            raise _refused(shard, "read", error) from error
        raise _DamagedError from error
    if keys.type != pa.string() or keys.null_count:
        raise _DamagedError
    return list(keys.to_pylist())


def _refused(shard: Path, what: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError) and what == "read":
        return error
    return SgmftError(f"The feature shard {shard} cannot be {what}: {error_reason(error)}.")


def _set_aside(shard: Path) -> None:
    """Give a damaged shard a name that is no shard's; it is kept for whoever wants to look."""
    number = 1
    while (aside := shard.with_name(f"_{shard.name}.damaged{number}")).exists():
        number += 1
    set_aside(shard, aside, "feature shard", "its posts are encoded anew")


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left a day ago or earlier; younger files may still be in use.

    With a clock that is wrong, one that is in use may be taken: it is then written again.
    """
    for leftover in leftovers(folder):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 86_400:
                leftover.unlink()
