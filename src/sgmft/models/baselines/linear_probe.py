"""Linear probes: logistic regression on frozen features of both modalities, of one, or of each."""

import math
from functools import partial, reduce
from operator import or_
from typing import Any, ClassVar, Literal

import numpy as np
from array_api_compat import array_namespace
from numpy.random import RandomState

from sgmft.features.features import Batch
from sgmft.models.arrays import Floats, Integers, log_softmax
from sgmft.models.base import ClosedFormModel, NetworkConfig, Output
from sgmft.models.experts import DenseExpert, draw_folds
from sgmft.models.logistic import log_frequencies
from sgmft.models.method import Method
from sgmft.models.presets import Preset

FOLDS = 5  # of the training posts


class LinearProbe(ClosedFormModel):
    """Multinomial logistic regression on the standardised pooled features [t; v], or [t; v; j].

    A missing one is zeros; j is the encoder's of both together, where it has such features. A post
    without any that the probe reads gets the class frequencies of the training posts, and teaches
    nothing else. See `sgmft.models.experts`.
    """

    features: ClassVar[tuple[Literal["text", "image", "joint"], ...]] = ("text", "image", "joint")

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        widths = {name: getattr(config, f"{name}_width") for name in self.features}
        self._read = [name for name, width in widths.items() if width]
        self.expert = DenseExpert(sum(widths.values()), config.classes)
        self.prior: Any = np.zeros(config.classes, np.float32)  # logarithms

    def fit(self, batch: Batch, labels: Integers, rng: RandomState) -> Floats:
        """Fit the regression to the posts with this modality; see `ClosedFormModel.fit`."""
        x, known = self._inputs(batch)
        self.prior = log_frequencies(labels, self.config.classes).astype(np.float32)
        logits, fold = np.tile(self.prior, (4, len(labels), 1)), draw_folds(labels, FOLDS, rng)
        if known.any():
            report = self.report("regression")
            predict = self.expert.fit(x[known], labels[known], fold[known], report)
            for parts, held_out in enumerate(logits):
                part, there = self._inputs(batch.with_parts(parts))
                held_out[known] = np.where(there[known, None], predict(part[known]), self.prior)
        return logits

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        x, known = self._inputs(batch)
        xp = array_namespace(x)
        return Output(xp.where(known[:, None], self.expert.forward(x), self.prior), x)

    def _inputs(self, batch: Batch) -> tuple[Any, Any]:
        """Features (B, D), zeros where missing, and whether there are any (B,)."""
        parts = [(getattr(batch, name), getattr(batch, f"has_{name}")) for name in self._read]
        xp = array_namespace(batch.text)
        x = xp.concat([xp.where(has[:, None], x, xp.zeros_like(x)) for x, has in parts], axis=-1)
        return x, reduce(or_, [has for _, has in parts])


class TextOnly(LinearProbe):
    """Logistic regression on the standardised text; class frequencies for posts without one."""

    features = ("text",)


class ImageOnly(LinearProbe):
    """Logistic regression on the standardised image; class frequencies for posts without one."""

    features = ("image",)


class LateAverage(ClosedFormModel):
    """The mean probabilities of two probes, or one's; each is fitted to posts with its modality."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.text, self.image = TextOnly(config), ImageOnly(config)

    def fit(self, batch: Batch, labels: Integers, rng: RandomState) -> Floats:
        """Fit both probes; see `ClosedFormModel.fit`."""
        text, image = (part.fit(batch, labels, rng)[3] for part in (self.text, self.image))
        whole = _average(batch, text, image)
        return np.stack([np.broadcast_to(self.text.prior, text.shape), text, image, whole])

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K), the logarithms of the mean probabilities."""
        text, image = self.text.forward(batch), self.image.forward(batch)
        logits, xp = _average(batch, text.logits, image.logits), array_namespace(batch.text)
        return Output(logits, xp.concat([text.fused, image.fused], axis=-1))


def _average(batch: Batch, text: Any, image: Any) -> Any:
    """Logarithms of the mean of both modalities' probabilities, or one's (B, K)."""
    xp, t, v = array_namespace(text), log_softmax(text), log_softmax(image)
    has_text, has_image = batch.has_text[:, None], batch.has_image[:, None]
    both = xp.logaddexp(t, v) - math.log(2)
    return xp.where(has_text & has_image, both, xp.where(has_text, t, v))


_probe = partial(Method, config=NetworkConfig, presets={"default": Preset("default", refit=True)})
_ONE = "logistic regression"
_NOTE = "Posts without {} get the class frequencies of the training posts."
METHODS = (
    _probe("linear-probe", "Linear probe", _ONE, LinearProbe),
    _probe("text-only", "Text only", _ONE, TextOnly, note=_NOTE.format("text")),
    _probe("image-only", "Image only", _ONE, ImageOnly, note=_NOTE.format("pictures")),
    _probe("late-average", "Late averaging", "two logistic regressions", LateAverage),
)
