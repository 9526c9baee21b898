"""What a trained model says of one post."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sgmft.abstention import Abstention, Ruling
from sgmft.posts import Post


class Predictor(Protocol):
    """What says something of posts: a `SemanticLocator`, or an exported one."""

    @property
    def labels(self) -> list[str]:
        """The K labels, in the order of the probabilities."""

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Predictions in the order of the posts."""


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


def predictions_of(
    posts: Sequence[Post],
    good: Sequence[int],
    labels: Sequence[str],
    probabilities: NDArray[np.float32],
    guidance: Sequence[Sequence[float]],
    rulings: Sequence[Ruling],
) -> Iterator[Prediction]:
    """What a model says of posts, in their order.

    Args:
        good: positions of the B posts that could be encoded; the others carry an error.
        labels: K, in the order of the probabilities.
        probabilities: (B, K).
        guidance: B pairs, relative entropies of P^m and P^e.
        rulings: B, of the rules of abstention.
    """
    found = dict(zip(good, range(len(good)), strict=True))
    for i, post in enumerate(posts):
        if i not in found:
            yield Prediction(post, None, None, None)
            continue
        row, ruling = probabilities[found[i]], rulings[found[i]]
        gate, elements = guidance[found[i]]
        members = ruling.members
        yield Prediction(
            post,
            None if ruling.reason else labels[int(row.argmax())],
            row,
            (gate, elements),
            None if members is None else tuple(labels[k] for k in members.nonzero()[0].tolist()),
            ruling.typicality,
            ruling.reason,
        )
