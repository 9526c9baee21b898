"""Features of many posts as tensors, from which batches are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmft.encoders.base import EncoderInfo
from sgmft.nn.batch import Batch
from sgmft.post_features import PostFeatures


@dataclass(frozen=True)
class Ragged:
    """N sequences of unequal length, one after another."""

    values: Tensor  # (sum of lengths, ...)
    offsets: Tensor  # (N + 1,) int64

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any] | None], empty: NDArray[Any]) -> Ragged:
        """Sequences (n_i, ...); None is an `empty` one (0, ...)."""
        lengths = [0 if row is None else len(row) for row in rows]
        values = np.concatenate([empty, *(row for row in rows if row is not None)])
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

    def pad(self, rows: Tensor, fill: int = 0) -> tuple[Tensor, Tensor]:
        """Chosen sequences (B, n, ...), padded, and their mask (B, n); n >= 1."""
        start = self.offsets[rows]
        length = self.offsets[rows + 1] - start
        position = torch.arange(max(1, int(length.max()) if len(rows) else 1))
        mask = position < length[:, None]
        values = self.values.new_full((*mask.shape, *self.values.shape[1:]), fill)
        values[mask] = self.values[(start[:, None] + position)[mask]]
        return values, mask


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
    ngrams: Ragged | None = None

    @classmethod
    def of(cls, rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool) -> Features:
        """Stack the features of posts, in order."""
        text = np.zeros((len(rows), info.text_width), np.float32)
        image = np.zeros((len(rows), info.image_width), np.float32)
        no_words = np.zeros((0, info.word_width), np.float16)
        no_regions = np.zeros((0, info.image_width), np.float16)
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
            Ragged.of([row.words for row in rows], no_words) if tokens else None,
            Ragged.of([row.regions for row in rows], no_regions) if tokens else None,
            per_picture,
            Ragged.of([row.ngrams for row in rows], np.zeros(0, np.int32)),
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
            None if self.ngrams is None else self.ngrams.take(rows),
        )

    def batch(self, rows: Tensor, ngrams: bool = False) -> Batch:
        """The posts at these positions (B,) as a batch, on request with their n-grams."""
        pooled = (self.text[rows], self.image[rows], self.has_text[rows], self.has_image[rows])
        batch = Batch(*pooled)
        if ngrams and self.ngrams is not None:
            batch = batch._replace(ngrams=self.ngrams.pad(rows, -1)[0])
        if self.words is None or self.regions is None:
            return batch
        words, text_mask = self.words.pad(rows)
        regions, image_mask = self.regions.pad(rows)
        index = torch.arange(regions.shape[1]) // max(1, self.regions_per_picture)
        return batch._replace(
            text_tokens=words.float(),
            text_mask=text_mask,
            image_tokens=regions.float(),
            image_mask=image_mask,
            image_index=index.expand(len(rows), -1),
        )
