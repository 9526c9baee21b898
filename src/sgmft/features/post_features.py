"""What an encoder says of one post, as arrays: what the store keeps, and any runtime reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PostFeatures(NamedTuple):
    """Features of one post; None where it has no text or picture, or tokens were not asked for.

    Token features are float16: half the disk, and far below the encoders' own noise.
    """

    text: NDArray[np.float32] | None  # (Dt,)
    words: NDArray[np.float16] | None  # (n, Dw)
    images: NDArray[np.float32] | None  # (k, Dv), one row a picture
    regions: NDArray[np.float16] | None  # (k r, Dv), r regions a picture, picture after picture
    ngrams: NDArray[np.int32] | None = (
        None  # (g,) of the text, see `sgmft.data.preprocessing.ngrams`
    )
