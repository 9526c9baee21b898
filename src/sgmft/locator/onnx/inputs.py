"""The arrays that a head's graph takes: `Batch`, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.post_features import PostFeatures, stack_features
from sgmft.features.ragged import Ragged

Array = NDArray[Any]


def inputs_of(rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool) -> dict[str, Array]:
    """Return arrays with the names and shapes of the fields of `sgmft.features.batch.Batch`.

    Args:
        rows: features of B posts.
        info: of their encoder.
        tokens: whether word and region features are wanted.
    """
    posts = stack_features(rows, info, tokens)
    none = np.zeros(0, np.int32)
    counted = [
        np.unique(none if row.ngrams is None else row.ngrams, return_counts=True) for row in rows
    ]
    arrays: dict[str, Array] = {
        "text": posts.text,
        "image": posts.image,
        "has_text": posts.has_text,
        "has_image": posts.has_image,
        "ngrams": Ragged.of([ngrams for ngrams, _ in counted], none).pad(fill=-1)[0],
        "ngram_counts": Ragged.of([counts.astype(np.int32) for _, counts in counted], none).pad()[
            0
        ],
    }
    if posts.words is None or posts.regions is None:
        return arrays
    words, text_mask = posts.words.pad()
    regions, image_mask = posts.regions.pad()
    index = np.arange(regions.shape[1]) // max(1, posts.regions_per_image)
    return {
        **arrays,
        "text_tokens": words.astype(np.float32),
        "text_mask": text_mask,
        "image_tokens": regions.astype(np.float32),
        "image_mask": image_mask,
        "image_index": np.tile(index, (len(rows), 1)),
    }
