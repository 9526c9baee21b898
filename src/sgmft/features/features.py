"""Features of many posts as tensors, from which batches are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sgmft.features.batch import Batch
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.post_features import PostFeatures, stack_features
from sgmft.features.ragged import Flat, Ragged

PART = 8192  # rows of a feature that are in memory together where all are looked at


@dataclass(frozen=True)
class Features:
    """Features of N posts, from which batches are cut.

    The values may be those of more posts, in another order, and in files that are mapped into
    memory (`sgmft.features.memmap`): `take` copies none of them. So `text` and `image` are read
    through `pooled`, `texts`, `images` and `batch`, which know whose the rows are.
    """

    text: Tensor  # (M, Dt), zeros where missing
    image: Tensor  # (M, Dv), mean over the post's images, zeros where missing
    has_text: Tensor  # (N,) bool
    has_image: Tensor  # (N,) bool
    words: Ragged | None = None  # N sequences, as of the regions and n-grams
    regions: Ragged | None = None
    regions_per_image: int = 0
    ngrams: Ragged | None = None
    rows: Tensor | None = None  # (N,) of `text` and `image`; None where they are all, in order

    @classmethod
    def of(cls, rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool) -> Features:
        """Stack the features of posts, in order; see `stack_features`."""
        posts = stack_features(rows, info, tokens)
        text, image, has_text, has_image = map(torch.from_numpy, posts[:4])
        return cls(text, image, has_text, has_image, *posts[4:])

    def __len__(self) -> int:
        return len(self.has_text)

    def take(self, rows: Tensor) -> Features:
        """Choose the posts at these positions, in that order."""
        return Features(
            self.text,
            self.image,
            self.has_text[rows],
            self.has_image[rows],
            None if self.words is None else self.words.take(rows),
            None if self.regions is None else self.regions.take(rows),
            self.regions_per_image,
            None if self.ngrams is None else self.ngrams.take(rows),
            rows if self.rows is None else self.rows[rows],
        )

    @property
    def texts(self) -> Flat:
        """Pooled features of the texts there are, part by part."""
        return self._flat(self.text, self.has_text)

    @property
    def images(self) -> Flat:
        """Pooled features of the posts that have images, part by part."""
        return self._flat(self.image, self.has_image)

    def pooled(self, rows: Tensor | slice | None = None) -> tuple[Tensor, Tensor]:
        """Return pooled features (B, Dt) and (B, Dv) of the posts at these positions, or of all.

        Of a slice they are not copied, where the posts are all, in order.
        """
        at: Tensor | slice | None = self.rows
        if rows is not None:
            at = rows if self.rows is None else self.rows[rows]
        return (self.text, self.image) if at is None else (self.text[at], self.image[at])

    def contents(self) -> Iterator[Tensor]:
        """Yield all numbers that tell posts from others: pooled features and n-grams, in parts."""
        everything = torch.ones(len(self), dtype=torch.bool)
        for values in (self.text, self.image):
            yield from self._flat(values, everything).split(PART)
        if self.ngrams is not None:
            yield from self.ngrams.flat().split(PART)

    def _flat(self, values: Tensor, has: Tensor) -> Flat:
        rows = torch.arange(len(self)) if self.rows is None else self.rows
        return Ragged(values.numpy(), rows.numpy(), has.long().numpy()).flat()

    def batch(self, rows: Tensor | slice | None, ngrams: bool = False) -> Batch:
        """Cut the posts at these positions (B,), or all, on request with their n-grams.

        See `pooled`.
        """
        has_text, has_image = self.has_text, self.has_image
        if rows is not None:
            has_text, has_image = has_text[rows], has_image[rows]
        batch = Batch(*self.pooled(rows), has_text, has_image)
        if ngrams and self.ngrams is not None:
            batch = batch._replace(ngrams=torch.from_numpy(self.ngrams.pad(rows, -1)[0]))
        if self.words is None or self.regions is None:
            return batch
        words, text_mask = map(torch.from_numpy, self.words.pad(rows))
        regions, image_mask = map(torch.from_numpy, self.regions.pad(rows))
        index = torch.arange(regions.shape[1]) // max(1, self.regions_per_image)
        return batch._replace(
            text_tokens=words.float(),
            text_mask=text_mask,
            image_tokens=regions.float(),
            image_mask=image_mask,
            image_index=index.expand(len(batch.has_text), -1),
        )


class LabelledFeatures(NamedTuple):
    """Features of N posts and their classes (N,)."""

    features: Features
    labels: Tensor

    def take(self, rows: Tensor) -> LabelledFeatures:
        """Choose the posts at these positions, or where a mask (N,) is True."""
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
        return LabelledFeatures(self.features.take(rows), self.labels[rows])
