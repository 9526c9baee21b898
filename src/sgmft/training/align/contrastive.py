"""The contrastive objective, and how well a text finds its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sgmft.features.batch import Batch
from sgmft.models.base import Network, NetworkConfig, Normalizer, Output, Vectors
from sgmft.utils.distributed_loss import Criterion

LARGEST_SCALE = 100.0  # of similarities, as in CLIP

RANKS = (1, 5, 10)

PART = 1024  # texts compared with all pictures at a time


class Contrast(Network):
    """Pooled features as they are; what is learned is the scale of their similarities.

    Its logits are none: `parts` has the features, of unit length.

    Args:
        scale: of the similarities, at first.
    """

    def __init__(self, config: NetworkConfig, scale: float) -> None:
        super().__init__(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features of text and picture in one space, both (B, D)."""
        return batch.text, batch.image

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to the same of unit length, in `parts`."""
        text, image = (normalize(x, dim=-1) for x in self.sides(batch))
        return Output(text.new_zeros(len(text), 1), image, parts={"text": text, "image": image})

    def loss(self, output: Output, labels: Tensor, criterion: Criterion) -> Tensor:
        """InfoNCE both ways (Radford et al. 2021, arXiv 2103.00020), over the posts of a step.

        `labels` (B,) number different posts: pairs of the same number are not told apart.
        """
        assert output.parts is not None
        text, image = (criterion.gather(output.parts[side]) for side in ("text", "image"))
        return info_nce(text, image, self.scale, criterion.gather(labels))

    @property
    def scale(self) -> Tensor:
        """Of the similarities, at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)


@dataclass(frozen=True)
class ProjectionConfig(NetworkConfig):
    """Of `ContrastiveProjections`.

    Attributes:
        width: D of the shared space.
        dropout: of the standardised features, in training.
    """

    width: int = 256
    dropout: float = 0.5


class ContrastiveProjections(Contrast):
    """A linear map from each side's standardised features into one space, learned from pairs."""

    config: ProjectionConfig

    def __init__(self, config: ProjectionConfig, scale: float = 1 / 0.07) -> None:
        super().__init__(config, scale)
        self.text_scale = Normalizer(config.text_width, "standard")
        self.image_scale = Normalizer(config.image_width, "standard")
        self.drop = nn.Dropout(config.dropout)
        self.text = nn.Linear(config.text_width, config.width, bias=False)
        self.image = nn.Linear(config.image_width, config.width, bias=False)

    def prepare(
        self, text: Vectors, image: Vectors, words: Vectors | None, regions: Vectors | None
    ) -> None:
        """Take the feature scales; see `Network.prepare`."""
        self.text_scale.fit(text)
        self.image_scale.fit(image)

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Contrast`."""
        text, image = self.text_scale(batch.text), self.image_scale(batch.image)
        return self.text(self.drop(text)), self.image(self.drop(image))


def info_nce(text: Tensor, image: Tensor, scale: Tensor, number: Tensor) -> Tensor:
    """Mean cross-entropy of finding each text's picture and each picture's text, among B.

    Args:
        text, image: (B, D) of unit length.
        scale: of their products.
        number: (B,); of others with the same number a pair is not asked to be told apart.
    """
    products = scale * text @ image.T
    same = (number[:, None] == number) & ~torch.eye(len(number), dtype=torch.bool).to(number.device)
    products = products.masked_fill(same, -math.inf)
    own = products.diagonal()
    return ((products.logsumexp(0) + products.logsumexp(1)) / 2 - own).mean()


def recall(text: Tensor, image: Tensor, ranks: Sequence[int] = RANKS) -> dict[str, float]:
    """Share of texts whose own picture is among the k nearest of all N, and the other way round.

    Args:
        text, image: (N, D) of unit length. Of equally near ones half are taken to be before.
    """
    found: dict[str, float] = {}
    for name, a, b in (("text to picture", text, image), ("picture to text", image, text)):
        before = [_before(some, b, first) for first, some in _parts(a)]
        place = torch.cat(before)
        found |= {f"{name} R@{k}": float((place < k).double().mean()) for k in ranks}
    return found


def _parts(x: Tensor) -> Any:
    return zip(range(0, len(x), PART), x.split(PART), strict=True)


def _before(some: Tensor, others: Tensor, first: int) -> Tensor:
    """How many of N others are nearer than the own one, (n,), for rows from `first` on."""
    products = some @ others.T
    own = products[torch.arange(len(some)), torch.arange(first, first + len(some))][:, None]
    return (products > own).sum(1) + ((products == own).sum(1) - 1) / 2
