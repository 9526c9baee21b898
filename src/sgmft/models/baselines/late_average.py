"""Late averaging: the mean of a text probe's and an image probe's probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgmft.features.batch import Batch
from sgmft.models.base import ClosedFormNetwork, NetworkConfig, Output
from sgmft.models.baselines.linear_probe import PROBE, ImageOnly, TextOnly
from sgmft.models.method import Method


class LateAverage(ClosedFormNetwork):
    """The mean of the two unimodal probes' probabilities, or one's where a modality is missing.

    Each probe is fitted to the training posts that have its modality.
    """

    text: TextOnly
    image: ImageOnly

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.text, self.image = TextOnly(config), ImageOnly(config)

    def solve(self, batch: Batch, labels: Tensor) -> Tensor:
        """Fit both probes; see `ClosedFormNetwork.solve`."""
        return _average(batch, self.text.solve(batch, labels), self.image.solve(batch, labels))

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K), the logarithms of the mean probabilities."""
        text, image = self.text(batch), self.image(batch)
        logits = _average(batch, text.logits, image.logits)
        return Output(logits, torch.cat([text.fused, image.fused], -1))


def _average(batch: Batch, text: Tensor, image: Tensor) -> Tensor:
    """Logarithms of the mean of both modalities' probabilities, or one's (B, K)."""
    t, v = text.log_softmax(-1), image.log_softmax(-1)
    has_text, has_image = batch.has_text[:, None], batch.has_image[:, None]
    both = torch.logaddexp(t, v) - math.log(2)
    return torch.where(has_text & has_image, both, torch.where(has_text, t, v))


METHOD = Method(
    name="late-average",
    title="Late averaging",
    source="two logistic regressions",
    network=LateAverage,
    config=NetworkConfig,
    presets=PROBE,
)
