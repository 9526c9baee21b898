"""Zero-shot classification: the label whose words lie closest to the post, without training.

As with CLIP (Radford et al. 2021, section 3.1), cosines of encoded prompts or descriptions decide.
Where the encoder's towers share no space, the vector of an image is that of ConSE (Norouzi et al.
2014): the mean of the class names' vectors, weighted by a classifier's best probabilities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import RandomState as Rng

from sgmft.data.preprocessing.text import clean_text, get_cleaning
from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.base import ClassifierHeads, Encoder, FloatArray
from sgmft.features.encoders.image_encoder import imagenet_names
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
        return Output(self.config.scale_factor * fused @ normalize(self.prompts[:, :Dw]).T, fused)


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
        before, spread = self.reference
        several = (self.count > 1)[:, None]  # a post is no measure of itself
        posts = several * self.count[:, None] + PRIOR
        mean = (several * self.total + PRIOR * before) / posts  # (2, K), of posts and reference
        squares = several * self.squares + PRIOR * (spread + np.square(before))
        variance = squares / posts - np.square(mean)
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


def parse_descriptions(words: str, flag: str = "--zero-shot") -> dict[str, list[str]]:
    """Parse labels and their descriptions from `LABEL=DESCRIPTION|DESCRIPTION;LABEL=...`.

    A label without "=" describes itself. The wide forms ；＝｜ of the marks serve as well.
    """
    found: dict[str, list[str]] = {}
    for part in filter(str.strip, words.translate(str.maketrans("；＝｜", ";=|")).split(";")):
        label, equals, rest = (piece.strip() for piece in part.partition("="))
        descriptions = [text for piece in rest.split("|") if (text := piece.strip())]
        if not label or (equals and not descriptions):
            raise SgmftError(TEXTS["bad description"], flag=flag, part=part.strip())
        if label in found:
            raise SgmftError(f"{flag} names {label!r} twice: put | between its descriptions.")
        found[label] = descriptions or [label]
    return found


def describe(encoder: Encoder, descriptions: Mapping[str, Sequence[str]]) -> Described:
    """Return the network that knows labels by their descriptions alone, two or more, in order."""
    if len(descriptions) < 2:
        raise SgmftError(TEXTS["few descriptions"], count=len(descriptions))
    info = encoder.info
    widths = info.text_width, info.image_width, info.shared_space, info.word_width
    config = DescribedConfig(len(descriptions), *widths)
    heads: ClassifierHeads | None = getattr(encoder, "class_heads", lambda: None)()
    if heads is not None:
        config = replace(config, heads=len(heads.weight), picture_classes=len(heads.names))
    network = Described(config)
    network.prompts = np.stack([_prompt(encoder, *pair) for pair in descriptions.items()])
    vectors = _encode(encoder, imagenet_names() if heads is None else heads.names)
    if heads is not None:
        network.names, network.weight, network.bias = vectors, heads.weight, heads.bias
    network.refer(vectors)
    return network


def _prompt(encoder: Encoder, label: str, texts: Sequence[str]) -> FloatArray:
    """Return the mean direction of a label's descriptions, a unit vector (Dw)."""
    cleaning = get_cleaning(encoder.info.cleaning)
    cleaned = [words for text in texts if (words := clean_text(text, cleaning))]
    if isinstance(texts, str) or not cleaned:
        raise SgmftError(TEXTS["no description"], label=label)
    return np.asarray(normalize(_encode(encoder, cleaned).mean(0)))


def _encode(encoder: Encoder, texts: Sequence[str]) -> FloatArray:
    """Encode texts as unit vectors (N, Dw)."""
    pooled = encoder.encode_texts(texts, False).pooled
    return np.asarray(normalize(pooled[:, : encoder.info.word_width]))
