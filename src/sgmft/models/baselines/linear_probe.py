"""Linear probes: logistic regression on frozen features of both modalities, of one, or of each."""

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, ClassVar

import numpy as np
from numpy.random import RandomState as Rng

from sgmft.features.features import Batch
from sgmft.models.arrays import Floats, Labels, Weights, array_namespace, log_softmax
from sgmft.models.base import ClosedFormModel, NetworkConfig, Output
from sgmft.models.experts import DenseExpert, JointExpert, NgramExpert, draw_folds, ngrams_of
from sgmft.models.logistic import log_frequencies
from sgmft.models.presets import Natural

FOLDS = 5  # of the training posts


@dataclass(frozen=True)
class ProbeConfig(NetworkConfig):
    """Settings."""

    # whether the n-grams that the default's lexical expert reads stand beside the text's features
    lexical: bool = False
    vocabulary_size: Natural = 0  # n-grams; the training posts decide it


class LinearProbe(ClosedFormModel):
    """Multinomial logistic regression on the standardised pooled features [t; v; j; a].

    A missing one is zeros; j is the encoder's of both together, where it has such features, and a
    are attributes. A post without any that the probe reads gets the class frequencies of the
    training posts, and teaches nothing else. See `sgmft.models.experts`.
    """

    config: ProbeConfig
    features: ClassVar[tuple[str, ...]] = ("text", "image", "joint", "attributes")

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__(config)
        widths = {name: getattr(config, f"{name}_width") for name in self.features}
        self._read = [name for name, width in widths.items() if width]
        self.expert = DenseExpert(sum(widths.values()), config.classes)
        self.uses_ngrams = "text" in self.features and config.lexical
        self.lexical: NgramExpert | None = None
        if self.uses_ngrams:
            self.lexical = NgramExpert(config.vocabulary_size, config.classes)
        self.prior: Any = np.zeros(config.classes, np.float32)  # logarithms

    def fit(self, batch: Batch, labels: Labels, rng: Rng, weights: Weights = None) -> Floats:
        """Fit the regression to the posts with this modality; see `ClosedFormModel.fit`."""
        expert = self.expert if self.lexical is None else JointExpert(self.expert, self.lexical)
        x, known = self._rows(batch)
        self.prior = log_frequencies(labels, self.config.classes, weights).astype(np.float32)
        logits, fold = np.tile(self.prior, (4, len(labels), 1)), draw_folds(labels, FOLDS, rng)
        if known.any():
            some = x[known], labels[known], fold[known], None if weights is None else weights[known]
            predict = expert.fit(*some, self.report("regression"))
            for parts, held_out in enumerate(logits):
                part, there = self._rows(batch.with_parts(parts))
                held_out[known] = np.where(there[known, None], predict(part[known]), self.prior)
        if self.lexical is not None:
            self.config = replace(self.config, vocabulary_size=len(self.lexical.vocabulary))
        return logits

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        x, known = self._inputs(batch)
        logits, xp = self.expert.forward(x), array_namespace(x)
        if self.lexical is not None:  # n-grams are arrays, and so what is read from them
            lexical = xp.asarray(self.lexical.forward(ngrams_of(batch)), device=x.device)
            has = xp.astype(batch.has_text[:, None], lexical.dtype)
            logits = log_softmax(logits + has * lexical)
        return Output(xp.where(known[:, None], logits, self.prior), x)

    def _inputs(self, batch: Batch) -> tuple[Any, Any]:
        """Features (B, D), zeros where missing, and whether there are any (B,)."""
        every = batch.has_text | True  # of attributes, which are 0 where they are missing
        xp = array_namespace(batch.text)
        parts = [(getattr(batch, x), getattr(batch, f"has_{x}", every)) for x in self._read]
        x = xp.concat([xp.where(has[:, None], x, xp.zeros_like(x)) for x, has in parts], axis=-1)
        return x, reduce(or_, [has for _, has in parts])

    def _rows(self, batch: Batch) -> tuple[Any, Any]:
        x, known = self._inputs(batch)
        if self.lexical is not None:
            x = np.concatenate([x, np.where(batch.has_text[:, None], ngrams_of(batch), -1)], 1)
        return x, known


class TextOnly(LinearProbe):
    """Logistic regression on the standardised text; class frequencies for posts without one."""

    features = ("text",)


class ImageOnly(LinearProbe):
    """Logistic regression on the standardised image; class frequencies for posts without one."""

    features = ("image",)


class LateAverage(ClosedFormModel):
    """The mean probabilities of two probes, or one's; each is fitted to posts with its modality."""

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__(config)
        self.text, self.image = TextOnly(config), ImageOnly(config)
        self.uses_ngrams = self.text.uses_ngrams

    def fit(self, batch: Batch, labels: Labels, rng: Rng, weights: Weights = None) -> Floats:
        """Fit both probes; see `ClosedFormModel.fit`."""
        text, image = (x.fit(batch, labels, rng, weights)[3] for x in (self.text, self.image))
        whole, self.config = _average(batch, text, image), self.text.config
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
