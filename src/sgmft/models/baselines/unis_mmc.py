"""UniS-MMC (Zou et al. 2023): contrast that pulls the wrong modality towards the right one."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from sgmft.features.features import Batch
from sgmft.models.arrays import most_probable
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.network import BimodalNetwork
from sgmft.models.presets import Dropout, NotNegative, Positive
from sgmft.utils.distributed import BatchCrossEntropy


@dataclass(frozen=True)
class UniSMMCConfig(NetworkConfig):
    """Settings of the network and its objective."""

    width: int = 256  # D of the representations r_t and r_v, and of the heads' hidden layers
    contrast: NotNegative = 0.1  # lambda, the weight of the contrastive loss; 0 leaves it out
    contrast_temperature: Positive = 0.07  # tau, by which cosines are divided
    dropout: Dropout = 0.1  # between the two hidden layers of each head


def multimodal_contrast(
    text: Tensor, image: Tensor, text_right: Tensor, image_right: Tensor, paired: Tensor, tau: float
) -> Tensor:
    """The contrastive loss of UniS-MMC (Zou et al. 2023), a scalar.

    L_mmc = -log[ sum over P and S of exp(cos(r_t, r_v) / tau)
                  / sum over all pairs of exp(cos(r_t, r_v) / tau) ]

    A post is in P where the predictions from text alone and from image alone are both right, in S
    where exactly one is, and in N where neither is. In S the right modality is detached, so that
    only the wrong one moves. Without a post in P or S, or without one in N, the loss is 0.

    Text and image are r_t and r_v (B, D); bools (B,) tell whether the prediction of each alone is
    right, and whether a post has both modalities; the others take no part.
    """
    text, image = text[paired], image[paired]  # (pairs, D)
    text_right, image_right = text_right[paired], image_right[paired]
    text = torch.where((text_right & ~image_right)[:, None], text.detach(), text)
    image = torch.where((image_right & ~text_right)[:, None], image.detach(), image)
    similarity = cosine_similarity(text, image) / tau  # (pairs,)
    positive = similarity[text_right | image_right]
    if len(positive) == 0:
        return similarity.sum() * 0  # still a function of r_t and r_v
    return similarity.logsumexp(0) - positive.logsumexp(0)


class UniSMMC(BimodalNetwork):
    """Two unimodal heads and a multimodal one on projected features; the latter predicts."""

    config: UniSMMCConfig

    def __init__(self, config: UniSMMCConfig) -> None:
        D, c = config.width, config
        super().__init__(c, D)
        self.text_head, self.image_head = (_Head(D, D, c.classes, c.dropout) for _ in "tv")
        self.head = _Head(2 * D, D, c.classes, c.dropout)

    def forward(self, batch: Batch) -> Output:
        """Pooled features of B posts to the multimodal head's logits (B, K)."""
        t, v = self.pooled_inputs(batch)  # (B, D)
        alone = self.text_head(t)[1], self.image_head(v)[1]  # (B, K)
        fused, logits = self.head(torch.cat([t, v], -1))  # (B, D), (B, K)
        parts = {"sides": (t, v), "alone": alone, "paired": batch.has_text & batch.has_image}
        return Output(logits, fused, parts=parts)

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """L_text + L_image + L_multi + lambda L_mmc."""
        parts, tau = output.parts, self.config.contrast_temperature
        right = [x.argmax(-1) == most_probable(labels) for x in parts["alone"]]
        given = *parts["sides"], *right, parts["paired"]
        r_t, r_v, right_t, right_v, paired = map(criterion.gather, given)  # all posts of the step
        contrast = multimodal_contrast(r_t, r_v, right_t, right_v, paired, tau)
        supervised = sum(criterion(x, labels) for x in (*parts["alone"], output.logits))
        return supervised + self.config.contrast * contrast


class _Head(nn.Module):
    """Two hidden layers with dropout between, then logits; gives the last hidden layer too."""

    def __init__(self, source: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        first = nn.Linear(source, width), nn.ReLU(), nn.Dropout(dropout)
        self.hidden = nn.Sequential(*first, nn.Linear(width, width), nn.ReLU())
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)  # (B, width)
        return hidden, self.output(hidden)
