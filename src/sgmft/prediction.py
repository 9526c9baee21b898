"""What a trained model says of one post."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.posts import Post


class Prediction(NamedTuple):
    """What the model says of one post."""

    post: Post
    label: str | None  # None for a post that carries an error
    probabilities: NDArray[np.float32] | None  # (K,) in the order of `SemanticLocator.labels`
    guidance: tuple[float, float] | None  # relative entropies of P^m and P^e; NaN without guidance

    @property
    def error(self) -> str | None:
        """Why there is no label."""
        return self.post.error

    @property
    def probability(self) -> float | None:
        """Of the label."""
        return None if self.probabilities is None else float(self.probabilities.max())
