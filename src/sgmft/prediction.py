"""What a trained model says of one post."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.abstention import Ruling
from sgmft.posts import Post


class Prediction(NamedTuple):
    """What the model says of one post."""

    post: Post
    label: str | None  # None for a post that carries an error, or where the model abstains
    probabilities: NDArray[np.float32] | None  # (K,) in the order of `SemanticLocator.labels`
    guidance: tuple[float, float] | None  # relative entropies of P^m and P^e; NaN without guidance
    label_set: tuple[str, ...] | None = None  # of the coverage asked for; None where none was
    typicality: float | None = None  # see `sgmft.abstention.HeldOut`; None where not asked for
    abstained: str | None = None  # why a post that could be read has no label

    @property
    def error(self) -> str | None:
        """Why there is no label."""
        return self.post.error

    @property
    def probability(self) -> float | None:
        """Of the most probable label, given or not."""
        return None if self.probabilities is None else float(self.probabilities.max())

    @classmethod
    def of(
        cls,
        post: Post,
        labels: Sequence[str],
        probabilities: NDArray[np.float32],
        guidance: tuple[float, float],
        ruling: Ruling,
    ) -> Prediction:
        """What the rules of abstention make of a post's probabilities (K,)."""
        chosen, label_set = int(probabilities.argmax()), None
        if ruling.members is not None:
            label_set = tuple(labels[k] for k in ruling.members.nonzero()[0].tolist())
        label = None if ruling.reason else labels[chosen]
        known = (label_set, ruling.typicality, ruling.reason)
        return cls(post, label, probabilities, guidance, *known)
