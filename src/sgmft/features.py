"""What encoders produce for posts, in memory: one post's features, and many posts' as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmft.nn.batch import Batch


class PostFeatures(NamedTuple):
    """Features of one post; None where it has no text or picture, or tokens were not asked for.

    Token features are float16: half the disk, and far below the encoders' own noise.
    """

    text: NDArray[np.float32] | None  # (Dt,)
    words: NDArray[np.float16] | None  # (n, Dt)
    images: NDArray[np.float32] | None  # (k, Dv), one row a picture
    regions: NDArray[np.float16] | None  # (k r, Dv), r regions a picture, picture after picture


@dataclass(frozen=True)
class Ragged:
    """N sequences of unequal length, one after another."""

    values: Tensor  # (sum of lengths, D)
    offsets: Tensor  # (N + 1,) int64

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.float16] | None], width: int) -> Ragged:
        """Sequences (n_i, width); None is an empty one."""
        lengths = [0 if row is None else len(row) for row in rows]
        real = [row for row in rows if row is not None]
        values = np.concatenate(real) if real else np.zeros((0, width), np.float16)
        return cls(torch.from_numpy(values), torch.tensor([0, *lengths]).cumsum(0))

    def take(self, rows: Tensor) -> Ragged:
        """The chosen sequences, in that order."""
        start = self.offsets[rows]
        length = self.offsets[rows + 1] - start
        offsets = torch.cat([length.new_zeros(1), length.cumsum(0)])
        where = torch.repeat_interleave(start - offsets[:-1], length) + torch.arange(
            int(offsets[-1])
        )
        return Ragged(self.values[where], offsets)

    def pad(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen sequences as float32 (B, n, D) padded with zeros, and their mask; n >= 1."""
        start = self.offsets[rows]
        length = self.offsets[rows + 1] - start
        position = torch.arange(max(1, int(length.max()) if len(rows) else 1))
        mask = position < length[:, None]
        values = self.values.new_zeros((len(rows), len(position), self.values.shape[1]))
        values[mask] = self.values[(start[:, None] + position)[mask]]
        return values.float(), mask


@dataclass(frozen=True)
class Features:
    """Features of N posts as tensors, from which batches are cut without a loop over posts."""

    text: Tensor  # (N, Dt), zeros where missing
    image: Tensor  # (N, Dv), mean over the post's pictures, zeros where missing
    has_text: Tensor  # (N,) bool
    has_image: Tensor  # (N,) bool
    words: Ragged | None = None
    regions: Ragged | None = None
    regions_per_picture: int = 0

    @classmethod
    def of(
        cls, rows: Sequence[PostFeatures], text_width: int, image_width: int, tokens: bool
    ) -> Features:
        """Stack the features of posts, in order."""
        text = np.zeros((len(rows), text_width), np.float32)
        image = np.zeros((len(rows), image_width), np.float32)
        per_picture = 0
        for i, row in enumerate(rows):
            if row.text is not None:
                text[i] = row.text
            if row.images is not None:
                image[i] = row.images.mean(0)
                if row.regions is not None:
                    per_picture = len(row.regions) // len(row.images)
        return cls(
            torch.from_numpy(text),
            torch.from_numpy(image),
            torch.tensor([row.text is not None for row in rows], dtype=torch.bool),
            torch.tensor([row.images is not None for row in rows], dtype=torch.bool),
            Ragged.of([row.words for row in rows], text_width) if tokens else None,
            Ragged.of([row.regions for row in rows], image_width) if tokens else None,
            per_picture,
        )

    def __len__(self) -> int:
        return len(self.text)

    def take(self, rows: Tensor) -> Features:
        """The posts at these positions, in that order."""
        return Features(
            self.text[rows],
            self.image[rows],
            self.has_text[rows],
            self.has_image[rows],
            None if self.words is None else self.words.take(rows),
            None if self.regions is None else self.regions.take(rows),
            self.regions_per_picture,
        )

    def batch(self, rows: Tensor) -> Batch:
        """The posts at these positions (B,) as a batch."""
        pooled = (self.text[rows], self.image[rows], self.has_text[rows], self.has_image[rows])
        if self.words is None or self.regions is None:
            return Batch(*pooled)
        regions, mask = self.regions.pad(rows)
        index = torch.arange(regions.shape[1]) // max(1, self.regions_per_picture)
        return Batch(*pooled, *self.words.pad(rows), regions, mask, index.expand(len(rows), -1))
