"""The multimodal classifier: five fully connected layers (equation 18)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from sgmft.errors import SgmftError


def check_widths(widths: Sequence[int]) -> None:
    """Raise SgmftError unless all hidden widths of a classifier are at least 1."""
    if min(widths, default=1) < 1:
        raise SgmftError(f"classifier_widths must be at least 1, not {list(widths)}.")


def classifier(
    width: int, classes: int, hidden: Sequence[int] = (512, 256, 128, 64), dropout: float = 0.1
) -> nn.Sequential:
    """Fully connected layers with ReLU and dropout between: (B, width) -> logits (B, classes).

    The softmax of equation 18 is left to the loss and to `predict_proba`. The paper does not state
    the hidden widths; ours make five layers.
    """
    sizes = (width, *hidden)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
