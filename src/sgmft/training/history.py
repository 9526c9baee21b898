"""The log of a training, and the epoch that its held-out posts choose."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sgmft.models.arrays import Integers, Reals, cross_entropy


class Epoch(NamedTuple):
    """One line of a training log. Validation figures are NaN without a validation split."""

    epoch: int  # counted from 1
    epochs: int  # at most
    loss: float  # mean over the epoch's training posts
    accuracy: float
    val_loss: float
    val_accuracy: float
    gate_entropy: float  # relative, see `sgmft.models.similarity.Guidance`; NaN without guidance
    element_entropy: float


class Figures(NamedTuple):
    """Figures of some posts, the same on all ranks; means, unless they are said to be sums."""

    loss: float
    accuracy: float


UNKNOWN = Figures(math.nan, math.nan)


def classification_figures(logits: Reals, labels: Integers) -> Figures:
    """Cross-entropy and accuracy of logits (N, K) for labels (N,)."""
    return Figures(cross_entropy(logits, labels), float((logits.argmax(-1) == labels).mean()))


def selected_epoch(history: Sequence[Epoch], patience: int) -> Epoch:
    """The epoch whose weights `train` leaves: of the least validation loss; else the last."""
    validated = [epoch for epoch in history if not math.isnan(epoch.val_loss)]
    if not patience or not validated:
        return history[-1]
    return min(validated, key=lambda epoch: epoch.val_loss)
