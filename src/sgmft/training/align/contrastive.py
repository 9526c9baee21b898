"""The contrastive objective, networks that minimise it, and how well a text finds its image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sgmft.features.batch import Batch
from sgmft.models.base import BatchSource, Network, NetworkConfig, Normalizer, Output, Vectors
from sgmft.training.dataset import LabelledData
from sgmft.training.trainer import Figures, Objective
from sgmft.utils.distributed_loss import BatchCrossEntropy

LARGEST_SCALE = 100.0  # of similarities, as in CLIP

RANKS = (1, 5, 10)

CHUNK = 1024  # texts compared with all images at a time

EMBEDDED = 256  # pairs at a time where nothing is trained


class Contrast(Network):
    """Pooled features as they are; what is learned is the scale of their similarities.

    Its logits are none: `parts` has the features, of unit length.

    Args:
        scale: of the similarities, at first.
    """

    def __init__(self, config: NetworkConfig, scale: float) -> None:
        super().__init__(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def project(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features of text and image in one space, both (B, D)."""
        return batch.text, batch.image

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to the same of unit length, in `parts`."""
        text, image = (normalize(x, dim=-1) for x in self.project(batch))
        return Output(text.new_zeros(len(text), 1), image, parts={"text": text, "image": image})

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """InfoNCE both ways (Radford et al. 2021, arXiv 2103.00020), over the posts of a step.

        `labels` (B,) number different posts: pairs of the same number are not told apart.
        """
        assert output.parts is not None
        text, image = (criterion.gather(output.parts[name]) for name in ("text", "image"))
        return info_nce(text, image, self.scale, criterion.gather(labels))

    @property
    def scale(self) -> Tensor:
        """Scale of the similarities, at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)


@dataclass(frozen=True)
class ProjectionConfig(NetworkConfig):
    """Settings of `ContrastiveProjections`.

    Attributes:
        width: D of the shared space.
        dropout: of the standardised features, in training.
    """

    width: int = 256
    dropout: float = 0.5


class ContrastiveProjections(Contrast):
    """A linear map from each modality's standardised features to one space, learned from pairs."""

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

    def project(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Contrast`."""
        text, image = self.text_scale(batch.text), self.image_scale(batch.image)
        return self.text(self.drop(text)), self.image(self.drop(image))


def info_nce(text: Tensor, image: Tensor, scale: Tensor, number: Tensor) -> Tensor:
    """Mean cross-entropy of finding each text's image and each image's text, among B.

    Args:
        text, image: (B, D) of unit length.
        scale: of their products.
        number: (B,); pairs of the same number need not be told apart.
    """
    products = scale * text @ image.T
    same = (number[:, None] == number) & ~torch.eye(len(number), dtype=torch.bool).to(number.device)
    products = products.masked_fill(same, -math.inf)
    own = products.diagonal()
    return ((products.logsumexp(0) + products.logsumexp(1)) / 2 - own).mean()


def recall(text: Tensor, image: Tensor, ranks: Sequence[int] = RANKS) -> dict[str, float]:
    """Share of texts whose own image is among the k nearest of all N, and the other way round.

    Args:
        text, image: (N, D) of unit length. Of equally near ones half are taken to be before.
    """
    found: dict[str, float] = {}
    for name, a, b in (("text to picture", text, image), ("picture to text", image, text)):
        chunks = zip(range(0, len(a), CHUNK), a.split(CHUNK), strict=True)
        rank = torch.cat([_nearer(rows, b, first) for first, rows in chunks])
        found |= {f"{name} R@{k}": float((rank < k).double().mean()) for k in ranks}
    return found


def _nearer(rows: Tensor, others: Tensor, first: int) -> Tensor:
    """How many of N others are nearer than the own one, (n,), for rows from `first` on."""
    products = rows @ others.T
    own = products[torch.arange(len(rows)), torch.arange(first, first + len(rows))][:, None]
    return (products > own).sum(1) + ((products == own).sum(1) - 1) / 2


class Embeddings(NamedTuple):
    """Both modalities of N pairs in one space, of unit length."""

    text: Tensor  # (N, D)
    image: Tensor  # (N, D)


@torch.inference_mode()
def embed(model: Network, pairs: BatchSource) -> Embeddings:
    """Embeddings of pairs by a `Contrast`, or a `Tuned` with one as its head."""
    model.eval()
    device = next(iter(model.state_dict().values())).device
    found = []
    for rows in torch.arange(len(pairs)).split(EMBEDDED):
        parts = model(pairs.batch(rows).to(device)).parts
        found.append((parts["text"].cpu(), parts["image"].cpu()))
    return Embeddings(*(torch.cat(modality) for modality in zip(*found, strict=True)))


class Retrieval(Objective):
    """Objective of training on pairs: the contrastive loss, and texts that find their image.

    The state before the first epoch may be chosen too. Labels number different contents, see
    `info_nce`. The accuracy is the share of texts that find their image: among those of a step, and
    among all held-out ones.
    """

    selects_initial = True
    fused = False

    def step_sums(
        self, output: Output, labels: Tensor, loss: Tensor, criterion: BatchCrossEntropy
    ) -> Figures:
        """See `Objective`."""
        assert output.parts is not None
        text, image = (
            criterion.gather(output.parts[name]).detach().cpu() for name in ("text", "image")
        )
        return Figures(float(loss) * len(text), _text_recall(text, image) * len(text))

    def validate(self, model: Network, data: LabelledData, device: torch.device) -> Figures:
        """See `Objective`."""
        text, image = embed(model, data.features)
        head = getattr(model, "head", model)
        assert isinstance(head, Contrast)
        scale = head.scale.detach().cpu()
        return Figures(float(info_nce(text, image, scale, data.labels)), _text_recall(text, image))


def _text_recall(text: Tensor, image: Tensor) -> float:
    return recall(text, image, (1,))["text to picture R@1"]
