"""Zero-shot classification: the label whose words lie closest to the post, without training.

As with CLIP (Radford et al. 2021, section 3.1): labels are put into prompts, or described in words,
and encoded as texts, and cosine similarity decides.

An image needs a vector in the space of the descriptions. Where the encoder's towers share no space,
it is that of ConSE (Norouzi et al. 2014, "Zero-shot learning by convex combination of semantic
embeddings"): the mean of the class names' vectors, weighted by a classifier's probabilities of the
most probable classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.base import ClosedFormNetwork, NetworkConfig, Output, Vectors
from sgmft.models.method import Method

PROMPTS = (  # a label is any text in any language: a kind of place, or something else
    "{}",
    "在{}",
    "在{}发的微博",
    "一张{}的照片",
    "a post written at a {}",
    "a photo of a {}",
)

PRIOR = 10.0  # posts that the reference counts as when cosines are standardised


@dataclass(frozen=True)
class ZeroShotConfig(NetworkConfig):
    """Settings of zero-shot classification.

    Attributes:
        scale_factor: on the cosines, before the softmax. It changes no label, only how sure the
            probabilities are: by 20, a cosine 0.1 above another one's is 7 times as probable. The
            100 that CLIP models are trained with suits images against captions, whose cosines
            lie closer together than those of two texts.
    """

    scale_factor: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("scale_factor")

    @property
    def reads_images(self) -> bool:
        """Whether images can be compared with words."""
        return self.shared_space and self.text_width == self.image_width


class ZeroShot(ClosedFormNetwork):
    """Logits are the cosines of text and label, in a shared space the mean with image and label's.

    Compared are the first `word_width` numbers of a text, its own vector: what summarises its words
    beside it differs between a sentence and a short prompt by their lengths alone. A post with
    nothing that can be compared with words gets equal logits.
    """

    config: ZeroShotConfig
    prompts: Tensor  # (K, Dt) the labels as encoded texts

    def __init__(self, config: ZeroShotConfig) -> None:
        super().__init__(config)
        self.register_buffer("prompts", torch.zeros(config.classes, config.text_width))

    def solve(self, batch: Batch, labels: Tensor) -> None:
        """Do nothing: the prompts are all that is known of the classes."""

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        Dw = self.config.word_width
        fused, count = _unit(batch.text[:, :Dw], batch.has_text), batch.has_text.long()
        if self.config.reads_images:
            fused = fused + _unit(batch.image, batch.has_image)
            count = count + batch.has_image
        fused = fused / count.clamp(min=1)[:, None]  # its products are the means of the cosines
        logits = self.config.scale_factor * fused @ normalize(self.prompts[:, :Dw], dim=-1).T
        return Output(logits, fused)


def _unit(x: Tensor, present: Tensor) -> Tensor:
    """Features (B, D) of length 1, zeros where missing."""
    return torch.where(present[:, None], normalize(x, dim=-1), 0.0)


@dataclass(frozen=True)
class DescribedConfig(NetworkConfig):
    """Settings of zero-shot classification by descriptions.

    Attributes:
        heads: G, how many classifiers of images there are; 0 for none.
        picture_classes: C, the classes they know.
        top: how many of the most probable classes make an image's vector (ConSE's T).
        scale_factor: on the sum of both modalities' standardised cosines, before the softmax; it
            changes no label, only how sure the probabilities are.
    """

    heads: int = 0
    picture_classes: int = 0
    top: int = 10
    scale_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("scale_factor")

    def _minimum(self, name: str) -> int:
        return 0 if name in ("heads", "picture_classes") else 1

    @property
    def reads_images(self) -> bool:
        """Whether an image has a vector in the descriptions' space."""
        return self.heads > 0 or (self.shared_space and self.word_width == self.image_width)


class Described(ClosedFormNetwork):
    """Logits are sums of both modalities' standardised cosines with the labels' descriptions.

    Some descriptions are near to everything, so each label's cosines are standardised, for texts
    and images separately: by mean and variance over the posts it was adapted to, and over the
    reference texts, which count as `PRIOR` posts; of one post alone, by the latter only. A missing
    modality adds 0.
    """

    config: DescribedConfig
    prompts: Tensor  # (K, Dw) the labels' descriptions, unit length
    names: Tensor  # (C, Dw) the classes' names, unit length
    weight: Tensor  # (G, C, W)
    bias: Tensor  # (G, C)
    reference: Tensor  # (2, K) mean and variance of the reference's cosines
    count: Tensor  # (2,) posts adapted to that have a text, an image
    total: Tensor  # (2, K) sums of their cosines, of texts and of images
    squares: Tensor  # (2, K) sums of their squares

    def __init__(self, config: DescribedConfig) -> None:
        super().__init__(config)
        K, Dw, G, C = config.classes, config.word_width, config.heads, config.picture_classes
        shapes = {
            "prompts": (K, Dw),
            "names": (C, Dw),
            "weight": (G, C, config.image_width // max(1, G)),
            "bias": (G, C),
            "reference": (2, K),
            "count": (2,),
            "total": (2, K),
            "squares": (2, K),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def prepare(
        self, text: Vectors, image: Vectors, words: Vectors | None, regions: Vectors | None
    ) -> None:
        """Nothing is trained: raises SgmftError."""
        raise SgmftError(
            "Described labels need no training: call SemanticLocator.zero_shot(descriptions), then "
            "adapt(posts) and predict(posts)."
        )

    def solve(self, batch: Batch, labels: Tensor) -> None:
        """Nothing; see `prepare`."""

    @torch.no_grad()
    def refer(self, reference: Tensor) -> None:
        """Take the cosines' mean and variance over reference texts (R, Dw), R >= 2."""
        cosines = normalize(reference, dim=-1) @ self.prompts.T
        self.reference.copy_(torch.stack([cosines.mean(0), cosines.var(0, correction=0)]))

    @torch.no_grad()
    def adapt(self, batch: Batch) -> None:
        """Add the cosines of these posts to those that standardise."""
        for i, (cosines, has) in enumerate(self._cosines(batch)):
            present = cosines[has]
            self.count[i] += len(present)
            self.total[i] += present.sum(0)
            self.squares[i] += present.square().sum(0)

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""
        mean, variance = self._moments()
        scores = torch.zeros(len(batch.text), self.config.classes).to(self.prompts)
        for i, (cosines, has) in enumerate(self._cosines(batch)):
            standard = (cosines - mean[i]) / variance[i].clamp(min=1e-8).sqrt()
            scores = scores + torch.where(has[:, None], standard, 0.0)
        return Output(self.config.scale_factor * scores, scores)

    def image_vectors(self, image: Tensor) -> Tensor:
        """Pooled image features (B, Dv) to unit vectors (B, Dw) in the descriptions' space."""
        c = self.config
        if not c.heads:
            return normalize(image, dim=-1)
        parts = image.reshape(len(image), c.heads, -1)
        logits = torch.einsum("bgw,gcw->bgc", parts, self.weight) + self.bias
        probs = logits.softmax(-1).mean(1)  # (B, C) over the classifiers
        best, where = probs.topk(min(c.top, c.picture_classes), dim=-1)  # (B, T)
        return normalize((best[..., None] * self.names[where]).sum(1), dim=-1)

    def _cosines(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Cosines (B, K) of each modality that is read, and whether it is there (B,)."""
        text = _unit(batch.text[:, : self.config.word_width], batch.has_text)
        cosines = [(text @ self.prompts.T, batch.has_text)]
        if self.config.reads_images:
            image = torch.where(batch.has_image[:, None], batch.image, 0.0)
            cosines.append((self.image_vectors(image) @ self.prompts.T, batch.has_image))
        return cosines

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the cosines, (2, K) each, of posts and reference together."""
        before, spread = self.reference
        several = (self.count > 1).to(self.count)[:, None]  # a post is no measure of itself
        posts = several * self.count[:, None] + PRIOR
        mean = (several * self.total + PRIOR * before) / posts
        squares = several * self.squares + PRIOR * (spread + before.square())
        return mean, squares / posts - mean.square()


METHOD = Method(
    name="zero-shot",
    title="Zero-shot",
    source="label prompts",
    network=ZeroShot,
    config=ZeroShotConfig,
    note=(
        "No training. Pictures are not read where the encoder's towers share no space: a post "
        "without text then gets equal probabilities."
    ),
    prompts=PROMPTS,
    tuned="",
)

DESCRIBED = Method(
    name="described",
    title="Zero-shot",
    source="descriptions of the labels",
    network=Described,
    config=DescribedConfig,
    note="No training.",
    tuned="",
)
