"""Features of posts as arrays: what an encoder computes, the store keeps, and any runtime reads."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import EncoderInfo, FloatArray
from sgmft.features.ragged import Ragged


class PostFeatures(NamedTuple):
    """Features of one post; None where it has no text or image, or tokens were not asked for.

    Token features are float16: half the disk, and far below the encoders' own noise.
    """

    text: FloatArray | None  # (Dt,)
    words: NDArray[np.float16] | None  # (n, Dw)
    images: FloatArray | None  # (k, Dv), one row an image
    regions: NDArray[np.float16] | None  # (k r, Dv), r regions an image, image after image
    ngrams: NDArray[np.int32] | None = None  # (g,), see `sgmft.data.preprocessing.ngrams`


class StackedFeatures(NamedTuple):
    """Features of N posts, stacked."""

    text: FloatArray  # (N, Dt), zeros where missing
    image: FloatArray  # (N, Dv), mean over the post's images, zeros where missing
    has_text: NDArray[np.bool_]  # (N,)
    has_image: NDArray[np.bool_]  # (N,)
    words: Ragged | None  # of N sequences, as regions and ngrams
    regions: Ragged | None
    regions_per_image: int
    ngrams: Ragged


def stack_features(
    rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool
) -> StackedFeatures:
    """Stack the features of posts, in order.

    Args:
        info: of their encoder, whose widths they have even when there are none.
        tokens: whether word and region features are wanted.
    """
    text = np.zeros((len(rows), info.text_width), np.float32)
    image = np.zeros((len(rows), info.image_width), np.float32)
    regions_per_image = 0
    for i, row in enumerate(rows):
        if row.text is not None:
            text[i] = row.text
        if row.images is not None:
            image[i] = row.images.mean(0)
            if row.regions is not None:
                regions_per_image = len(row.regions) // len(row.images)
    no_words = np.zeros((0, info.word_width), np.float16)
    no_regions = np.zeros((0, info.image_width), np.float16)
    return StackedFeatures(
        text,
        image,
        np.array([row.text is not None for row in rows], bool),
        np.array([row.images is not None for row in rows], bool),
        Ragged.of([row.words for row in rows], no_words) if tokens else None,
        Ragged.of([row.regions for row in rows], no_regions) if tokens else None,
        regions_per_image,
        Ragged.of([row.ngrams for row in rows], np.zeros(0, np.int32)),
    )
