"""Features of a training as files that are mapped into memory: more of them than it holds.

What one training reads again and again is laid out beside the store's shards, which are compressed,
in `_mapped/<digest of the posts>/`: one array a feature, post after post, and where each post lies.
The folder is renamed once it is whole, and removed when the training ends; an interrupted one finds
it again, and so do all processes of one training, which share the pages that the system keeps.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.features import Features
from sgmft.features.ragged import Ragged
from sgmft.features.store import FeatureStore
from sgmft.utils.files import error_reason

CHUNK = 256  # posts in memory at once while the files are written
FORMAT = 1  # of the files
INDEX = "index.safetensors"
POOLED = ("text", "image", "joint")  # have one row a post
UNUSED = 7 * 86_400  # seconds after which files of a training that was never resumed are removed
Columns = dict[str, tuple[DTypeLike, tuple[int, ...]]]


class MappedFeatures:
    """The files of the features of posts with these content keys (N,); the store has them all."""

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        self._store, self._keys = store, keys
        self._unique = sorted(set(keys))
        listed = "\n".join([f"mapped {FORMAT}", *self._unique])
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
            for first in range(0, max(1, len(keys)), CHUNK):
                rows = self._store.read(keys[first : first + CHUNK])
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
