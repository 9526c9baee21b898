"""Features of a training as files that are mapped into memory: more of them than it holds.

The store's shards are compressed, and shared by all trainings. What one training reads again and
again is laid out beside them in `_mapped/<digest>/`, where the digest is that of the posts: one
array a feature, post after post, and `index.safetensors` that says where each post lies. The
folder is written under a temporary name and then renamed, so one that is there is whole. It is
removed when the training ends; an interrupted training finds it again, and so do all processes of
one training, which share the pages that the system keeps of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sgmft.errors import SgmftError
from sgmft.features.features import Features
from sgmft.features.ragged import Ragged
from sgmft.features.store import FeatureStore
from sgmft.utils.files import error_reason

CHUNK = 256  # posts in memory at once while the files are written

FORMAT = 1  # of the files

INDEX = "index.safetensors"

UNUSED = 7 * 86_400  # seconds after which files of a training that was never resumed are removed


class MappedFeatures:
    """The files of the features of some posts.

    Args:
        store: has the features of all these posts.
        keys: content keys of N posts.
    """

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        self._store, self._keys = store, keys
        self._different = sorted(set(keys))
        digest = hashlib.sha256(f"mapped {FORMAT}".encode())
        for key in self._different:
            digest.update(f"\n{key}".encode())
        self.folder = store.folder / "_mapped" / digest.hexdigest()[:32]

    def features(self) -> Features:
        """Features of the N posts, in order; the files are written if they are not there.

        Raises:
            SgmftError: they cannot be written.
        """
        found = self._open()
        if found is None:
            self._write()
            found = self._open()
        if found is None:
            raise SgmftError(f"{self.folder} cannot be read: delete it and run again.")
        return found

    def remove(self) -> None:
        """Remove the files; whoever has them mapped can go on reading."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _columns(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Of each array, the type of its numbers and the shape of a row."""
        info = self._store.info
        columns = {
            "text": (torch.float32, (info.text_width,)),
            "image": (torch.float32, (info.image_width,)),
            "ngrams": (torch.int32, ()),
        }
        if self._store.tokens:
            columns["words"] = (torch.float16, (info.word_width,))
            columns["regions"] = (torch.float16, (info.image_width,))
        return columns

    def _open(self) -> Features | None:
        """The files as features; None if they are not there, or one is not as long as it must be:
        a crash of the machine itself may leave that.
        """
        try:
            with safe_open(self.folder / INDEX, "pt") as file:
                per_picture = int(file.metadata()["regions_per_picture"])
                index = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            count, values = len(index["place"]), {}
            for name, (dtype, row) in self._columns().items():
                rows = count if name in ("text", "image") else int(index[name].sum())
                values[name] = _map(self.folder / f"{name}.bin", dtype, (rows, *row))
            os.utime(self.folder)  # in use
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
        number = {key: i for i, key in enumerate(self._different)}
        at = index["place"][torch.tensor([number[key] for key in self._keys], dtype=torch.long)]
        ragged = {
            name: Ragged.packed(values[name], index[name]).take(at)
            for name in values.keys() - {"text", "image"}
        }
        return Features(
            values["text"],
            values["image"],
            index["has_text"][at],
            index["has_image"][at],
            ragged.get("words"),
            ragged.get("regions"),
            per_picture,
            ragged["ngrams"],
            None if torch.equal(at, torch.arange(count)) else at,
        )

    def _write(self) -> None:
        """Write the files from the store, in the order of its shards, each read once."""
        above = self.folder.parent
        try:
            above.mkdir(exist_ok=True)
            _remove_unused(above)
            temporary = Path(tempfile.mkdtemp(".tmp", f".{self.folder.name}.", above))
            try:
                self._write_into(temporary)
                shutil.rmtree(self.folder, ignore_errors=True)  # damaged, if it is there
                try:
                    temporary.rename(self.folder)
                except OSError:
                    if not self.folder.exists():  # else another process was faster
                        raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise SgmftError(
                f"The features of {len(self._different)} posts cannot be laid out in {above}: "
                f"{error_reason(error)}, or choose another folder with --features."
            ) from error

    def _write_into(self, folder: Path) -> None:
        keys = self._store.in_order(self._different)
        has: dict[str, list[Tensor]] = {"has_text": [], "has_image": []}
        lengths: dict[str, list[Tensor]] = {}
        per_picture = 0
        with ExitStack() as stack:
            files = {
                name: stack.enter_context((folder / f"{name}.bin").open("wb"))
                for name in self._columns()
            }
            for first in range(0, max(1, len(keys)), CHUNK):
                rows = self._store.read(keys[first : first + CHUNK])
                part = Features.of(rows, self._store.info, self._store.tokens)
                per_picture = part.regions_per_image or per_picture
                for name, file in files.items():
                    column = getattr(part, name)
                    if isinstance(column, Ragged):
                        lengths.setdefault(name, []).append(column.length)
                        column = column.values
                    column.numpy().tofile(file)
                for name, seen in has.items():
                    seen.append(getattr(part, name))
            for file in files.values():
                _to_disk(file)
        number = {key: i for i, key in enumerate(keys)}
        index = {name: torch.cat(parts) for name, parts in (has | lengths).items()}
        index["place"] = torch.tensor([number[key] for key in self._different], dtype=torch.long)
        save_file(index, folder / INDEX, {"regions_per_picture": str(per_picture)})


def _map(path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A file of numbers as a tensor that nobody may write to.

    Raises:
        ValueError: it is not as long as its shape says.
    """
    if path.stat().st_size != prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} is damaged")
    if not prod(shape):
        return torch.zeros(shape, dtype=dtype)
    mapped = np.memmap(path, torch.zeros(0, dtype=dtype).numpy().dtype, "r", shape=shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped)


def _to_disk(file: IO[Any]) -> None:
    """Before a file's name says that it is whole, all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _remove_unused(folder: Path) -> None:
    for old in folder.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > UNUSED:
                shutil.rmtree(old)
