"""Features of posts as the arrays that a head's graph takes: `Batch`, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.post_features import PostFeatures

Array = NDArray[Any]


def inputs_of(rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool) -> dict[str, Array]:
    """Arrays by the names of the fields of `sgmft.features.batch.Batch`, whose shapes they have.

    Args:
        rows: features of B posts.
        info: of their encoder.
        tokens: whether word and region features are wanted.
    """
    text = np.zeros((len(rows), info.text_width), np.float32)
    image = np.zeros((len(rows), info.image_width), np.float32)
    for i, row in enumerate(rows):
        if row.text is not None:
            text[i] = row.text
        if row.images is not None:
            image[i] = row.images.mean(0)
    grams = [np.zeros(0, np.int32) if row.ngrams is None else row.ngrams for row in rows]
    counted = [np.unique(some, return_counts=True) for some in grams]
    arrays: dict[str, Array] = {
        "text": text,
        "image": image,
        "has_text": np.array([row.text is not None for row in rows]),
        "has_image": np.array([row.images is not None for row in rows]),
        "ngrams": pad([found[0] for found in counted], (), np.int32, -1)[0],
        "ngram_counts": pad([found[1] for found in counted], (), np.int32)[0],
    }
    if not tokens:
        return arrays
    words, text_mask = pad([row.words for row in rows], (info.word_width,), np.float32)
    regions, image_mask = pad([row.regions for row in rows], (info.image_width,), np.float32)
    place = np.arange(regions.shape[1])
    index = np.zeros(image_mask.shape, np.int64)
    for i, row in enumerate(rows):
        if row.images is not None and row.regions is not None:
            index[i] = place // (len(row.regions) // len(row.images))
    return {
        **arrays,
        "text_tokens": words,
        "text_mask": text_mask,
        "image_tokens": regions,
        "image_mask": image_mask,
        "image_index": index,
    }


def pad(
    rows: Sequence[Array | None], shape: Sequence[int], kind: Any, fill: int = 0
) -> tuple[Array, Array]:
    """Sequences (n_i, *shape) as one array (B, n, *shape), n >= 1, and their mask (B, n)."""
    longest = max([1, *(len(row) for row in rows if row is not None)])
    values = np.full((len(rows), longest, *shape), fill, kind)
    mask = np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        if row is not None:
            values[i, : len(row)] = row
            mask[i, : len(row)] = True
    return values, mask
