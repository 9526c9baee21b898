"""The feature store: Parquet shards keyed by what a post contains, one folder per encoder setting.

`store/<fingerprint>-<kind>/part-<digest>.parquet` has the columns key, text, words, images,
regions, ngrams (see `PostFeatures`), which pandas, DuckDB and Ray read as they are. A shard is
written under a temporary name and then renamed, so a shard that is there is whole; a process killed
at any moment loses at most the shard it was computing. A shard's name is the digest of its bytes,
so damage is seen on reading. Nothing is keyed by a post's place in a table, so features are found
again from any table that holds the same post.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgmft.encoders.base import EncoderInfo
from sgmft.errors import SgmftError
from sgmft.files import write_whole
from sgmft.post_features import PostFeatures

FORMAT = 2  # of the shards; a store of another format is not read


class FeatureStore:
    """Features on disk for one encoder setting.

    Args:
        folder: where stores live; this one takes the sub-folder named by its fingerprint.
        info: the encoder; its fingerprint tells stores apart.
        tokens: whether word and region features are kept beside the pooled ones.

    Raises:
        SgmftError: a shard cannot be read, or the folder cannot be written.
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
                f"The feature store {folder} cannot be written ({error.strerror}): "
                "choose another folder with --features."
            ) from error
        _clear_leftovers(self.folder)
        self._where: dict[str, tuple[Path, int]] = {}
        self._open: tuple[Path, pa.Table] | None = None
        for shard in sorted(self.folder.glob("part-*.parquet")):
            self._register(shard, _read_keys(shard))

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

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
            raise SgmftError(f"The feature shard {shard} cannot be written: {error}.") from error
        self._register(shard, list(rows))

    def read(self, keys: Sequence[str]) -> list[PostFeatures]:
        """Features of these posts, in order.

        Raises:
            KeyError: a key is not in the store.
        """
        rows: dict[str, PostFeatures] = {}
        for key in self.in_order(keys):
            path, position = self._where[key]
            if self._open is None or self._open[0] != path:
                self._open = (path, _read(path))
            rows[key] = _row(self._open[1], position)
        return [rows[key] for key in keys]

    def in_order(self, keys: Iterable[str]) -> list[str]:
        """Each of these keys once, in the order that opens every shard once when it is read."""
        return sorted(set(keys), key=self._where.__getitem__)

    def _register(self, shard: Path, keys: Sequence[str]) -> None:
        for position, key in enumerate(keys):
            self._where.setdefault(key, (shard, position))


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
    return f"part-{hashlib.sha256(data).hexdigest()[:16]}.parquet"


def _read(shard: Path) -> pa.Table:
    """The whole shard, checked against the digest in its name: Parquet itself checks little."""
    try:
        data = shard.read_bytes()
        if shard.name != _name(data):
            raise _damaged(shard)
        return pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException) as error:
        raise _damaged(shard) from error


def _read_keys(shard: Path) -> list[str]:
    """The keys alone, unchecked: a damaged key is a post not found, which is encoded again."""
    try:
        return list(pq.read_table(shard, columns=["key"], partitioning=None)["key"].to_pylist())
    except (OSError, pa.ArrowException, ValueError, LookupError, AttributeError) as error:
        raise _damaged(shard) from error


def _damaged(shard: Path) -> SgmftError:
    return SgmftError(
        f"The feature shard {shard} is damaged: delete it and run again; only its posts are "
        "encoded anew."
    )


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left a day ago or earlier; younger files may still be in use."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 86_400:
                leftover.unlink()
