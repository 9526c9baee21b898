"""Where each post's features are: 24 bytes a post, so that ten million fit in little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
