"""Features of many posts, and batches cut from them: the input of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import EncoderInfo, FloatArray, PostFeatures
from sgmft.features.ragged import Ragged

Positions = NDArray[np.int64]  # of posts
Mask = NDArray[np.bool_]
PARTS = ("nothing", "text", "pictures", "text and pictures")  # that a post has
PART = 8192  # rows of a feature that are in memory together where all are looked at


def parts_of(has_text: Mask, has_image: Mask) -> NDArray[np.int8]:
    """Return the place in `PARTS` of what posts have (N,)."""
    return has_text.astype(np.int8) + 2 * has_image.astype(np.int8)


def keep_modalities(has_text: Any, has_image: Any, share: float, draws: Any) -> tuple[Any, Any]:
    """Return which modalities posts have (B,) after dropout; see `Batch.drop_modalities`."""
    dropped, text = has_text & has_image & (draws[0] < share), draws[1] < 0.5
    return has_text & ~(dropped & text), has_image & ~(dropped & ~text)


class Batch(NamedTuple):
    """Features of B posts, arrays or tensors. What stands in for a missing one is not read."""

    text: Any  # (B, Dt) pooled
    image: Any  # (B, Dv) pooled, mean over the post's images
    has_text: Any  # (B,) bool
    has_image: Any  # (B,) bool
    text_tokens: Any = None  # (B, n, Dt)
    text_mask: Any = None  # (B, n) True where real
    image_tokens: Any = None  # (B, m, Dv), the regions of all images one after another
    image_mask: Any = None  # (B, m)
    image_index: Any = None  # (B, m) which of the post's images a region belongs to
    ngrams: Any = None  # (B, g) of the text, int32, padded with -1; always an array
    joint: Any = None  # (B, Dj) of text and images together, zeros where there is none
    attributes: Any = None  # (B, A) of other columns, see `sgmft.features.attributes`

    @property
    def has_joint(self) -> Any:
        """Which posts have a joint feature (B,): none that lacks, or is to lack, a modality."""
        known = False if self.joint is None else (self.joint != 0).any(-1)
        return self.has_text & self.has_image & known

    def drop_modalities(self, share: float, draws: Any) -> "Batch":
        """Drop one modality of a share of posts with both; draws (2, B) say whether, and which."""
        has_text, has_image = keep_modalities(self.has_text, self.has_image, share, draws)
        return self._replace(has_text=has_text, has_image=has_image)

    def with_parts(self, parts: int) -> "Batch":
        """Return the posts as if they had no others than these `PARTS`."""
        has_text, has_image = self.has_text & bool(parts & 1), self.has_image & bool(parts & 2)
        return self._replace(has_text=has_text, has_image=has_image)

    def to(self, device: Any) -> "Batch":
        """Return the batch as tensors on a device."""
        import torch

        def tensor(x: Any) -> Any:
            if x is None:
                return None
            if isinstance(x, np.ndarray) and not x.flags.writeable:  # mapped, torch warns of it
                x = x.copy()
            return torch.as_tensor(x, device=device)

        return Batch._make(map(tensor, self._replace(ngrams=None)))._replace(ngrams=self.ngrams)


@dataclass(frozen=True)
class Features:
    """Features of N posts, from which batches are cut.

    The values may be those of more posts, in another order, and in files that are mapped into
    memory (`MappedFeatures`): `text` and `image` are read through `pooled`, `texts`,
    `images` and `batch`, which know whose the rows are.
    """

    text: FloatArray  # (M, Dt), zeros where missing
    image: FloatArray  # (M, Dv), mean over the post's images, zeros where missing
    has_text: Mask  # (N,)
    has_image: Mask  # (N,)
    words: Ragged | None = None  # N sequences, as of the regions and n-grams
    regions: Ragged | None = None
    regions_per_image: int = 0
    ngrams: Ragged | None = None
    rows: Positions | None = None  # (N,) of `text`, `image`, `joint`; None: all, in order
    joint: FloatArray | None = None  # (M, Dj), see `Batch`
    attributes: FloatArray | None = None  # (N, A), see `Batch`

    @classmethod
    def of(cls, rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool) -> "Features":
        """Stack the features of posts, in order; `info` has the widths, also of none."""
        text = np.zeros((len(rows), info.text_width), np.float32)
        image = np.zeros((len(rows), info.image_width), np.float32)
        joint = np.zeros((len(rows), info.joint_width), np.float32) if info.joint_width else None
        regions_per_image = 0
        for i, row in enumerate(rows):
            text[i] = 0 if row.text is None else row.text
            if joint is not None:
                joint[i] = 0 if row.joint is None else row.joint
            if row.images is not None:
                image[i] = row.images.mean(0)
                if row.regions is not None:
                    regions_per_image = len(row.regions) // len(row.images)
        has_text = np.array([row.text is not None for row in rows], bool)
        has_image = np.array([row.images is not None for row in rows], bool)
        words = regions = None
        if tokens:
            no_word = np.zeros((0, info.word_width), np.float16)
            words = Ragged.of([row.words for row in rows], no_word)
            regions = Ragged.of([row.regions for row in rows], image[:0].astype(np.float16))
        ngrams = Ragged.of([row.ngrams for row in rows], np.zeros(0, np.int32))
        more = words, regions, regions_per_image, ngrams, None, joint
        return cls(text, image, has_text, has_image, *more)

    def __len__(self) -> int:
        return len(self.has_text)

    def take(self, rows: Positions) -> "Features":
        """Choose the posts at these positions, in that order."""
        names = ("has_text", "has_image", "words", "regions", "ngrams", "attributes")
        chosen = {name: x[rows] for name in names if (x := getattr(self, name)) is not None}
        return replace(self, rows=rows if self.rows is None else self.rows[rows], **chosen)

    @property
    def parts(self) -> NDArray[np.int8]:
        """What each post has, a place in `PARTS`, (N,)."""
        return parts_of(self.has_text, self.has_image)

    def with_parts(self, parts: int) -> "Features":
        """Return the posts as if they had no others than these `PARTS`."""
        has_text, has_image = self.has_text & bool(parts & 1), self.has_image & bool(parts & 2)
        return replace(self, has_text=has_text, has_image=has_image)

    @property
    def texts(self) -> Ragged:
        """Pooled features of the texts there are, part by part."""
        return self._flat(self.text, self.has_text)

    @property
    def images(self) -> Ragged:
        """Pooled features of the posts that have images, part by part."""
        return self._flat(self.image, self.has_image)

    def pooled(self, rows: Positions | slice | None = None) -> tuple[FloatArray, FloatArray]:
        """Return pooled features (B, Dt) and (B, Dv) of the posts at these positions, or of all."""
        return self._cut(self.text, rows), self._cut(self.image, rows)

    def _cut(self, values: FloatArray, rows: Positions | slice | None) -> FloatArray:
        rows = slice(None) if rows is None else rows
        return values[rows if self.rows is None else self.rows[rows]]

    def contents(self) -> Iterator[NDArray[Any]]:
        """Yield all numbers that tell posts from others: pooled features and n-grams, in parts."""
        for values in (self.text, self.image, *([] if self.joint is None else [self.joint])):
            yield from self._flat(values, np.ones(len(self), bool)).split(PART)
        if self.attributes is not None:
            yield self.attributes
        if self.ngrams is not None:
            yield from self.ngrams.split(PART)

    def _flat(self, values: FloatArray, has: Mask) -> Ragged:
        rows = np.arange(len(self)) if self.rows is None else self.rows
        return Ragged(values, rows, has.astype(np.int64))

    def batch(self, rows: Positions | slice | None = None, ngrams: bool = False) -> Batch:
        """Cut the posts at these positions (B,), or all, on request with n-grams; see `pooled`."""
        rows = slice(None) if rows is None else rows
        has = self.has_text[rows], self.has_image[rows]
        joint = None if self.joint is None else self._cut(self.joint, rows)
        known = None if self.attributes is None else self.attributes[rows]
        grams = self.ngrams.pad(rows, -1)[0] if ngrams and self.ngrams is not None else None
        batch = Batch(*self.pooled(rows), *has, ngrams=grams, joint=joint, attributes=known)
        if self.words is None or self.regions is None:
            return batch
        words, text_mask = self.words.pad(rows)
        regions, image_mask = self.regions.pad(rows)
        index = np.arange(regions.shape[1]) // max(1, self.regions_per_image)
        seen = regions.astype(np.float32), image_mask, np.tile(index, (len(regions), 1))
        return Batch(*batch[:4], words.astype(np.float32), text_mask, *seen, *batch[9:])


class BatchSource(Protocol):
    """N posts of which batches are cut: `Features`, or raw posts for an encoder in training."""

    def __len__(self) -> int: ...

    def take(self, rows: Positions, /) -> Self:
        """The posts at these positions, in that order."""

    def batch(self, rows: Positions | slice | None, /, ngrams: bool = False) -> Any:
        """The posts at these positions (B,), or all, as a batch; on request with their n-grams."""

    @property
    def parts(self) -> NDArray[np.int8]:
        """What each post has, a place in `PARTS`, (N,)."""

    def with_parts(self, parts: int, /) -> Self:
        """The posts as if they had no others than these `PARTS`."""

    def contents(self) -> Iterator[NDArray[Any]]:
        """Yield, part by part, all numbers that tell these posts from others."""


_Posts = TypeVar("_Posts", bound=BatchSource, covariant=True)


class LabelledPosts(NamedTuple, Generic[_Posts]):
    """N posts, as features or raw for an encoder in training, and their labels (N,)."""

    features: _Posts
    labels: Positions  # classes 0..K-1, or what numbers different contents
    weights: NDArray[np.float64] | None = None  # (N,) how much each counts; None: all the same
    # (N, K) probabilities to learn in place of labels; folds, figures and calibration go by labels
    soft: FloatArray | None = None

    def take(self, rows: Positions | Mask) -> "LabelledPosts[_Posts]":
        """Choose the posts at these positions, or where a mask (N,) is True."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        weights = None if self.weights is None else self.weights[rows]
        soft = None if self.soft is None else self.soft[rows]
        return LabelledPosts(self.features.take(rows), self.labels[rows], weights, soft)

    @property
    def targets(self) -> NDArray[Any]:
        """What a model learns: soft labels (N, K) where there are any, else labels (N,)."""
        return self.labels if self.soft is None else self.soft

    def balanced(self) -> "LabelledPosts[_Posts]":
        """Weigh each label by its inverse frequency, so that all count the same."""
        weights = np.ones(len(self.labels)) if self.weights is None else self.weights
        if self.soft is not None:  # as if each were K posts, of these weights
            shares = self.soft / np.maximum(weights @ self.soft, np.finfo(float).tiny)
            total = shares.sum(1)
            soft = (shares / total[:, None]).astype(np.float32)
            return self._replace(weights=weights * total, soft=soft)
        counts = np.bincount(self.labels, weights)
        return self._replace(weights=weights / np.where(counts > 0, counts, 1)[self.labels])


LabelledFeatures = LabelledPosts[Features]
LabelledData = LabelledPosts[BatchSource]
