"""Linear probes: logistic regression on pooled features of both sides, of the text, of the image.

What every practitioner tries first: scikit-learn's logistic regression on frozen features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sgmft.baselines.base import Method
from sgmft.baselines.logistic import log_frequencies, solve_logistic
from sgmft.nn.batch import Batch
from sgmft.nn.inputs import Normalizer
from sgmft.nn.network import NetworkConfig, Output, Solved


@dataclass(frozen=True)
class ProbeConfig(NetworkConfig):
    """Settings of a probe.

    Attributes:
        strength: C, the inverse of the L2 penalty, as in scikit-learn: smaller is simpler.

    Raises:
        SgmftError: strength is not positive.
    """

    strength: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("strength")


class LinearProbe(Solved):
    """Multinomial logistic regression on the standardised pooled features [t; v].

    A missing side is zeros, the mean of the training features. A post without any side that the
    probe reads gets the class frequencies of the training posts, and teaches nothing else.
    """

    config: ProbeConfig
    sides: ClassVar[tuple[Literal["text", "image"], ...]] = ("text", "image")
    prior: Tensor

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__(config)
        widths = {"text": config.text_width, "image": config.image_width}
        self.text = self.image = nn.Identity()
        for side in self.sides:
            setattr(self, side, Normalizer(widths[side], "standard"))
        self.classifier = nn.Linear(sum(widths[side] for side in self.sides), config.classes)
        self.register_buffer("prior", torch.zeros(config.classes))  # logarithms

    def prepare(
        self, text: Tensor, image: Tensor, words: Tensor | None, regions: Tensor | None
    ) -> None:
        """Take mean and deviation from the training features; see `Network.prepare`."""
        for side, pooled in ((self.text, text), (self.image, image)):
            if isinstance(side, Normalizer):
                side.fit(pooled)

    def solve(self, batch: Batch, labels: Tensor) -> None:
        """Fit the regression to the posts that have a side to read; labels (N,)."""
        x, known = self._inputs(batch)
        solve_logistic(self.classifier, x[known], labels[known], self.config.strength)
        self.prior.copy_(log_frequencies(labels, self.config.classes))

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        x, known = self._inputs(batch)
        return Output(torch.where(known[:, None], self.classifier(x), self.prior), x)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Standardised features (B, D), zeros where missing, and whether there are any (B,)."""
        given = {
            "text": (self.text, batch.text, batch.has_text),
            "image": (self.image, batch.image, batch.has_image),
        }
        parts = [given[side] for side in self.sides]
        x = torch.cat([torch.where(has[:, None], scale(x), 0.0) for scale, x, has in parts], -1)
        return x, torch.stack([has for _, _, has in parts]).any(0)


class TextOnly(LinearProbe):
    """Logistic regression on the standardised text; class frequencies for posts without one."""

    sides = ("text",)


class ImageOnly(LinearProbe):
    """Logistic regression on the standardised image; class frequencies for posts without one."""

    sides = ("image",)


METHODS = (
    Method(
        name="linear-probe",
        title="Linear probe",
        source="logistic regression",
        network=LinearProbe,
        config=ProbeConfig,
        tuned="strength",
    ),
    Method(
        name="text-only",
        title="Text only",
        source="logistic regression",
        network=TextOnly,
        config=ProbeConfig,
        note="Posts without text get the class frequencies of the training posts.",
        tuned="strength",
    ),
    Method(
        name="image-only",
        title="Image only",
        source="logistic regression",
        network=ImageOnly,
        config=ProbeConfig,
        note="Posts without pictures get the class frequencies of the training posts.",
        tuned="strength",
    ),
)
