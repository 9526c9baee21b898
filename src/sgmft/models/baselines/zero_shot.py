"""Zero-shot classification: the label whose words lie closest to the post, without training.

As with CLIP (Radford et al. 2021, section 3.1): labels are put into prompts and encoded as texts,
and cosine similarity decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sgmft.features.batch import Batch
from sgmft.models.base import ClosedFormNetwork, NetworkConfig, Output
from sgmft.models.method import Method

PROMPTS = (  # a label is any text in any language: a kind of place, or something else
    "{}",
    "在{}",
    "在{}发的微博",
    "一张{}的照片",
    "a post written at a {}",
    "a photo of a {}",
)


@dataclass(frozen=True)
class ZeroShotConfig(NetworkConfig):
    """Settings of zero-shot classification.

    Attributes:
        scale_factor: on the cosines, before the softmax. It changes no label, only how sure the
            probabilities are: by 20, a cosine 0.1 above another one's is 7 times as probable. The
            100 that CLIP models are trained with suits images against captions, whose cosines
            lie closer together than those of two texts.

    Raises:
        SgmftError: scale_factor is not positive.
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
