"""Features of one post: what an encoder computes and the store keeps."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import FloatArray


class PostFeatures(NamedTuple):
    """Features of one post; None where it has no text or image, or tokens were not asked for.

    Token features are float16: half the disk, and far below the encoders' own noise.
    """

    text: FloatArray | None  # (Dt,)
    words: NDArray[np.float16] | None  # (n, Dw)
    images: FloatArray | None  # (k, Dv), one row an image
    regions: NDArray[np.float16] | None  # (k r, Dv), r regions an image, image after image
    ngrams: NDArray[np.int32] | None = None  # (g,), see `sgmft.data.preprocessing.ngrams`
