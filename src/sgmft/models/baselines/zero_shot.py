"""Zero-shot classification: the label whose words lie closest to the post, without training.

As with CLIP (Radford et al. 2021, section 3.1): labels are put into prompts, or described in words,
and encoded as texts, and cosine similarity decides. Where the encoder's towers share no space, the
vector of an image is that of ConSE (Norouzi et al. 2014): the mean of the class names' vectors,
weighted by a classifier's probabilities of the most probable classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState as Rng

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.features import Batch
from sgmft.models.arrays import Floats, Labels, Weights, array_namespace, normalize, softmax
from sgmft.models.base import ClosedFormModel, NetworkConfig, Output
from sgmft.models.presets import Natural, Positive

PRIOR = 10.0  # posts that the reference counts as when cosines are standardised


@dataclass(frozen=True)
class ZeroShotConfig(NetworkConfig):
    """Settings of zero-shot classification."""

    # on the cosines, before the softmax. It changes no label, only how sure the probabilities are:
    # by 20, a cosine 0.1 above another one's is 7 times as probable. The 100 that CLIP models are
    # trained with suits images against captions, whose cosines lie closer together than those of
    # two texts.
    scale_factor: Positive = 20.0

    @property
    def reads_images(self) -> bool:
        """Whether images can be compared with words."""
        return self.shared_space and self.text_width == self.image_width


class ZeroShot(ClosedFormModel):
    """Logits are the cosines of text and label, in a shared space the mean with image and label's.

    Compared are the first `word_width` numbers of a text, its own vector: what summarises its words
    beside it differs between a sentence and a short prompt by their lengths alone. A post with
    nothing that can be compared with words gets equal logits.
    """

    config: ZeroShotConfig

    def __init__(self, config: ZeroShotConfig) -> None:
        super().__init__(config)
        shape = config.classes, config.text_width
        self.prompts: Any = np.zeros(shape, np.float32)  # the labels as encoded texts

    def fit(self, batch: Batch, labels: Labels, rng: Rng, weights: Weights = None) -> None:
        """Do nothing: the prompts are all that is known of the classes."""

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        Dw = self.config.word_width
        fused = _unit(batch.text[:, :Dw], batch.has_text)
        if self.config.reads_images:
            fused = fused + _unit(batch.image, batch.has_image)
            both = batch.has_text & batch.has_image
            fused = array_namespace(fused).where(both[:, None], fused / 2, fused)
        # The products of `fused` are the means of the cosines.
        logits = self.config.scale_factor * fused @ normalize(self.prompts[:, :Dw]).T
        return Output(logits, fused)


def _unit(x: Any, present: Any) -> Any:
    """Features (B, D) of length 1, zeros where missing."""
    xp = array_namespace(x)
    return xp.where(present[:, None], normalize(x), xp.zeros_like(x))


@dataclass(frozen=True)
class DescribedConfig(NetworkConfig):
    """Settings of zero-shot classification by descriptions."""

    heads: Natural = 0  # G, how many classifiers of images there are
    picture_classes: Natural = 0  # C, the classes they know
    top: int = 10  # how many of the most probable classes make an image's vector (ConSE's T)
    scale_factor: Positive = 1.0  # on the sum of both modalities' standardised cosines

    @property
    def reads_images(self) -> bool:
        """Whether an image has a vector in the descriptions' space."""
        return self.heads > 0 or (self.shared_space and self.word_width == self.image_width)


class Described(ClosedFormModel):
    """Logits are sums of both modalities' standardised cosines with the labels' descriptions.

    Some descriptions are near to everything, so each label's cosines are standardised, of texts and
    images apart: over the posts it was adapted to and the reference texts, which count as `PRIOR`
    posts; of one post alone, over these only. A missing modality adds 0.
    """

    config: DescribedConfig

    def __init__(self, config: DescribedConfig) -> None:
        super().__init__(config)
        K, Dw, G, C = config.classes, config.word_width, config.heads, config.picture_classes

        def zeros(*shape: int) -> Any:
            return np.zeros(shape, np.float32)

        self.prompts = zeros(K, Dw)  # the labels' descriptions, unit length
        self.names = zeros(C, Dw)  # the classes' names, unit length
        self.weight, self.bias = zeros(G, C, config.image_width // max(1, G)), zeros(G, C)
        self.reference = zeros(2, K)  # mean and variance of the reference's cosines
        self.count = zeros(2)  # posts adapted to that have a text, an image
        self.total = zeros(2, K)  # sums of their cosines, of texts and of images
        self.squares = zeros(2, K)  # sums of their squares

    def fit(self, batch: Batch, labels: Labels, rng: Rng, weights: Weights = None) -> None:
        """Raise SgmftError: nothing is trained."""
        raise SgmftError(TEXTS["no training"])

    def refer(self, reference: Floats) -> None:
        """Take the cosines' mean and variance over reference texts (R, Dw), R >= 2."""
        cosines = normalize(reference) @ self.prompts.T
        self.reference = np.stack([cosines.mean(0), cosines.var(0)])

    def adapt(self, batch: Batch) -> None:
        """Add the cosines of these posts to those that standardise."""
        for i, (cosines, has) in enumerate(self._cosines(batch)):
            present = cosines[has]
            self.count[i] += len(present)
            self.total[i] += present.sum(0)
            self.squares[i] += np.square(present).sum(0)

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        mean, variance = self._moments()
        scores = np.zeros((len(batch.text), self.config.classes), np.float32)
        for i, (cosines, has) in enumerate(self._cosines(batch)):
            standard = (cosines - mean[i]) / np.sqrt(np.maximum(variance[i], 1e-8))
            scores += np.where(has[:, None], standard, 0)
        return Output(self.config.scale_factor * scores, scores)

    def image_vectors(self, image: Floats) -> Floats:
        """Pooled image features (B, Dv) to unit vectors (B, Dw) in the descriptions' space."""
        c = self.config
        if not c.heads:
            return np.asarray(normalize(image))
        parts = image.reshape(len(image), c.heads, -1).swapaxes(0, 1)  # (G, B, W)
        logits = parts @ self.weight.swapaxes(1, 2) + self.bias[:, None]
        probs = softmax(logits).mean(0)  # (B, C) over the classifiers
        best = np.argsort(-probs, axis=-1, kind="stable")[:, : c.top]  # (B, T)
        weight = np.take_along_axis(probs, best, -1)
        return np.asarray(normalize((weight[..., None] * self.names[best]).sum(1)))

    def _cosines(self, batch: Batch) -> list[tuple[Floats, Any]]:
        """Cosines (B, K) of each modality that is read, and whether it is there (B,)."""
        text = _unit(batch.text[:, : self.config.word_width], batch.has_text)
        cosines = [(text @ self.prompts.T, batch.has_text)]
        if self.config.reads_images:
            image = np.where(batch.has_image[:, None], batch.image, 0)
            cosines.append((self.image_vectors(image) @ self.prompts.T, batch.has_image))
        return cosines

    def _moments(self) -> tuple[Floats, Floats]:
        """Mean and variance of the cosines, (2, K) each, of posts and reference together."""
        before, spread = self.reference
        several = (self.count > 1)[:, None]  # a post is no measure of itself
        posts = several * self.count[:, None] + PRIOR
        mean = (several * self.total + PRIOR * before) / posts
        squares = several * self.squares + PRIOR * (spread + np.square(before))
        return mean, squares / posts - np.square(mean)
