"""Late averaging: the mean of what a text probe and an image probe say."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgmft.baselines.base import Method
from sgmft.baselines.linear_probe import ImageOnly, ProbeConfig, TextOnly
from sgmft.nn.batch import Batch
from sgmft.nn.network import Output, Solved


class LateAverage(Solved):
    """The mean of the two unimodal probes' probabilities; one side's alone without the other.

    Each probe is fitted to the training posts that have its side, with the same strength.
    """

    config: ProbeConfig
    text: TextOnly
    image: ImageOnly

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__(config)
        self.text, self.image = TextOnly(config), ImageOnly(config)

    def prepare(
        self, text: Tensor, image: Tensor, words: Tensor | None, regions: Tensor | None
    ) -> None:
        """Take mean and deviation from the training features; see `Network.prepare`."""
        for probe in (self.text, self.image):
            probe.prepare(text, image, words, regions)

    def solve(self, batch: Batch, labels: Tensor) -> None:
        """Fit both probes; labels (N,)."""
        for probe in (self.text, self.image):
            probe.solve(batch, labels)

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K), the logarithms of the mean probabilities."""
        text, image = self.text(batch), self.image(batch)
        t, v = text.logits.log_softmax(-1), image.logits.log_softmax(-1)  # (B, K)
        has_text, has_image = batch.has_text[:, None], batch.has_image[:, None]
        both = torch.logaddexp(t, v) - math.log(2)
        logits = torch.where(has_text & has_image, both, torch.where(has_text, t, v))
        return Output(logits, torch.cat([text.fused, image.fused], -1))


METHOD = Method(
    name="late-average",
    title="Late averaging",
    source="two logistic regressions",
    network=LateAverage,
    config=ProbeConfig,
    tuned="strength",
)
