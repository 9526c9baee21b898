"""Linear probes: logistic regression on pooled features of both modalities, of one, or of each.

Practitioners try them first: a logistic regression on frozen features, its penalty chosen by
cross-validation.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sgmft.features.batch import Batch
from sgmft.models.base import ClosedFormNetwork, NetworkConfig, Output
from sgmft.models.experts import DenseExpert, class_prior, draw_folds
from sgmft.models.method import Method
from sgmft.models.presets import Preset

FOLDS = 5  # of the training posts


class LinearProbe(ClosedFormNetwork):
    """Multinomial logistic regression on the standardised pooled features [t; v].

    A missing modality is zeros. A post without any that the probe reads gets the class
    frequencies of the training posts, and teaches nothing else. See `sgmft.models.experts` for how
    features are standardised and the penalty is chosen.
    """

    modalities: ClassVar[tuple[Literal["text", "image"], ...]] = ("text", "image")
    prior: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        widths = {"text": config.text_width, "image": config.image_width}
        self.expert = DenseExpert(sum(widths[name] for name in self.modalities), config.classes)
        self.register_buffer("prior", torch.zeros(config.classes))  # logarithms

    @torch.no_grad()
    def solve(self, batch: Batch, labels: Tensor) -> Tensor:
        """Fit the regression to the posts with this modality; see `ClosedFormNetwork.solve`."""
        x, known = self._inputs(batch)
        self.prior.copy_(class_prior(labels, self.config.classes))
        logits, fold = self.prior.repeat(len(labels), 1), draw_folds(labels, FOLDS)
        if known.any():
            report = self.report("regression")
            logits[known] = self.expert.fit(x[known], labels[known], fold[known], report)
        return logits

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        x, known = self._inputs(batch)
        return Output(torch.where(known[:, None], self.expert(x), self.prior), x)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (B, D), zeros where missing, and whether there are any (B,)."""
        given = {"text": (batch.text, batch.has_text), "image": (batch.image, batch.has_image)}
        parts = [given[name] for name in self.modalities]
        x = torch.cat([torch.where(has[:, None], x, 0.0) for x, has in parts], -1)
        return x, torch.stack([has for _, has in parts]).any(0)


class TextOnly(LinearProbe):
    """Logistic regression on the standardised text; class frequencies for posts without one."""

    modalities = ("text",)


class ImageOnly(LinearProbe):
    """Logistic regression on the standardised image; class frequencies for posts without one."""

    modalities = ("image",)


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


PROBE = {"default": Preset("default", refit=True)}

METHODS = tuple(
    Method(name, title, source, network, NetworkConfig, PROBE, note)
    for name, title, source, network, note in (
        ("linear-probe", "Linear probe", "logistic regression", LinearProbe, ""),
        (
            *("text-only", "Text only", "logistic regression", TextOnly),
            "Posts without text get the class frequencies of the training posts.",
        ),
        (
            *("image-only", "Image only", "logistic regression", ImageOnly),
            "Posts without pictures get the class frequencies of the training posts.",
        ),
        ("late-average", "Late averaging", "two logistic regressions", LateAverage, ""),
    )
)
