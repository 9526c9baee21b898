"""An encoder adapted to pairs of text and image, without labels: pairs, objective, networks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.functional import normalize

from sgmft.data.posts import Post
from sgmft.data.source import count_errors, describe_errors
from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.encoders.base import EncoderInfo, FloatArray
from sgmft.features.encoders.tuned import Maps, save_projected
from sgmft.features.features import Batch, BatchSource, Features, LabelledData
from sgmft.models.arrays import Flags, Integers
from sgmft.models.base import NetworkConfig, Output, predict_logits
from sgmft.models.network import Network, Normalizer
from sgmft.models.presets import Dropout, TrainConfig
from sgmft.training.finetune.network import RawPosts, Tuned, open_towers
from sgmft.training.finetune.settings import Tuning
from sgmft.training.history import Figures
from sgmft.training.trainer import Objective
from sgmft.utils.distributed import BatchCrossEntropy

MIN_PAIRS = 20
HELD_OUT = 0.1  # share of the pairs
MAX_HELD_OUT = 1000  # recall among more depends on their number more than on the encoder
LARGEST_SCALE = 100.0  # of similarities, as in CLIP
RANKS = (1, 5, 10)

PROJECTIONS = TrainConfig(
    epochs=60, batch_size=64, learning_rate=3e-4, weight_decay=1.0, schedule="cosine", patience=8
)


class Pairs(NamedTuple):
    """N posts with both modalities, as in `EncodedPosts`."""

    posts: list[Post]
    keys: list[str]
    features: Features
    number: Integers  # (N,) the same for pairs that share a part, also through others

    def held_out(self, seed: int) -> Flags:
        """Which pairs (N,) are held out, at random; all of one number, or none of them."""
        numbers = np.unique(self.number)
        rng = torch.Generator().manual_seed(seed)
        order = numbers[torch.randperm(len(numbers), generator=rng).numpy()]
        size = np.bincount(self.number, minlength=len(numbers))[order].cumsum()
        wanted = min(MAX_HELD_OUT, max(2, round(HELD_OUT * len(self.number))))
        out = np.isin(self.number, order[: int((size < wanted).sum()) + 1])
        if out.all():
            raise SgmftError("All pairs share a text or a picture: there is nothing to tell apart.")
        return out


def find_pairs(encoded: EncodedPosts) -> tuple[Pairs, dict[str, int]]:
    """Return the pairs, 20 or more, and how many other posts are none for which reason."""
    features = encoded.features
    rows = np.flatnonzero(features.has_text & features.has_image)
    skipped = count_errors(encoded.refused)
    if alone := len(encoded.posts) - len(rows):
        skipped["has no text or no picture"] = alone
    if len(rows) < MIN_PAIRS:
        others = f", and were left out: {describe_errors(skipped)}" if skipped else ""
        raise SgmftError(TEXTS["few pairs"], least=MIN_PAIRS, count=len(rows), others=others)
    posts, keys = [encoded.posts[i] for i in rows], [encoded.keys[i] for i in rows]
    chosen = features.take(rows)
    return Pairs(posts, keys, chosen, _number_components(*chosen.pooled())), skipped


def _number_components(*features: FloatArray) -> Integers:
    """Number the parts of the graph of N pairs that equal features join, as they come."""
    count = len(features[0])
    found = [np.unique(x, axis=0, return_index=True, return_inverse=True) for x in features]
    same = np.concatenate([first[place.ravel()] for _, first, place in found])  # the first such
    edges = np.tile(np.arange(count), len(features)), same
    graph = coo_matrix((np.ones(len(same), bool), edges), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def info_nce(text: Tensor, image: Tensor, scale: Tensor, number: Tensor) -> Tensor:
    """Mean cross-entropy of finding each text's image and each image's text, among B.

    Both are (B, D) of unit length. Pairs of the same `number` (B,) need not be told apart.
    """
    products = scale * text @ image.T
    same = (number[:, None] == number) & ~torch.eye(len(number), dtype=torch.bool).to(number.device)
    products = products.masked_fill(same, -math.inf)
    return ((products.logsumexp(0) + products.logsumexp(1)) / 2 - products.diagonal()).mean()


def recall(text: Tensor, image: Tensor, ranks: Sequence[int] = RANKS) -> dict[str, float]:
    """Share of texts whose own image is among the k nearest of all N, and the other way round.

    Both are (N, D) of unit length. Of equally near ones half are taken to be before.
    """
    found: dict[str, float] = {}
    for name, a, b in (("text to picture", text, image), ("picture to text", image, text)):
        products = a @ b.T
        own = products.diagonal()[:, None]
        rank = (products > own).sum(1) + ((products == own).sum(1) - 1) / 2
        found |= {f"{name} R@{k}": float((rank < k).double().mean()) for k in ranks}
    return found


class Contrast(Network):
    """`logits` and `fused` are unit features of text and image; their scale is learned."""

    def __init__(self, config: NetworkConfig, scale: float) -> None:
        super().__init__(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def project(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features of text and image in one space, both (B, D)."""
        return batch.text, batch.image

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to the same of unit length, both (B, D)."""
        text, image = (normalize(x, dim=-1) for x in self.project(batch))
        return Output(text, image)

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """InfoNCE both ways (Radford et al. 2021, arXiv 2103.00020), over the posts of a step.

        `labels` (B,) number different posts: pairs of the same number are not told apart.
        """
        text, image = map(criterion.gather, output[:2])
        return info_nce(text, image, self.scale, criterion.gather(labels))

    @property
    def scale(self) -> Tensor:
        """Scale of the similarities, at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)


@dataclass(frozen=True)
class ProjectionConfig(NetworkConfig):
    """Settings of `ContrastiveProjections`: D of the space, dropout of standardised features."""

    width: int = 256
    dropout: Dropout = 0.5


class ContrastiveProjections(Contrast):
    """A linear map from each modality's standardised features to one space, learned from pairs."""

    def __init__(self, config: ProjectionConfig) -> None:
        super().__init__(config, 1 / 0.07)
        t, v, D = config.text_width, config.image_width, config.width
        self.text_scale, self.image_scale = Normalizer(t, "standard"), Normalizer(v, "standard")
        self.drop = nn.Dropout(config.dropout)
        self.text, self.image = nn.Linear(t, D, bias=False), nn.Linear(v, D, bias=False)

    def project(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `Contrast`."""
        text, image = self.text_scale(batch.text), self.image_scale(batch.image)
        return self.text(self.drop(text)), self.image(self.drop(image))

    @torch.no_grad()
    def save_encoder(self, folder: Path, encoder: str) -> None:
        """Write the maps behind an encoder of that name, which together are one."""
        sides = (self.text_scale, self.text), (self.image_scale, self.image)
        given = [x for scale, line in sides for x in (scale.mean, line.weight / scale.deviation)]
        save_projected(folder, encoder, Maps(*(x.cpu().numpy() for x in given)), float(self.scale))


def embed(model: Network, pairs: BatchSource) -> tuple[Tensor, Tensor]:
    """Texts and images (N, D) of pairs, of unit length, by a `Contrast` or a `Tuned` one."""
    text, image, _ = predict_logits(model, pairs)
    return torch.from_numpy(text), torch.from_numpy(image)


class Retrieval(Objective):
    """Objective of training on pairs: the contrastive loss, and texts that find their image.

    The state before the first epoch may be chosen too. The accuracy is the share of texts that find
    their image: among those of a step, and among all held-out ones.
    """

    selects_initial = True
    fused = False

    def step_sums(
        self, output: Output, labels: Tensor, loss: Tensor, criterion: BatchCrossEntropy
    ) -> Figures:
        """See `Objective`."""
        text, image = (criterion.gather(x).detach().cpu() for x in output[:2])
        found = recall(text, image, (1,))["text to picture R@1"]
        return Figures(float(loss) * len(text), found * len(text))

    def validate(self, model: Network, data: LabelledData, device: torch.device) -> Figures:
        """See `Objective`."""
        text, image = embed(model, data.features)
        head: Any = getattr(model, "head", model)
        loss = info_nce(text, image, head.scale.detach().cpu(), torch.from_numpy(data.labels))
        return Figures(float(loss), recall(text, image, (1,))["text to picture R@1"])


class Alignment(NamedTuple):
    """An encoder that is to be adapted."""

    model: Network  # a `Contrast`, or with one as its head
    data: BatchSource  # all pairs, as the model reads them
    config: TrainConfig
    save: Callable[[Path], None]  # writes the encoder into a folder


def align_towers(source: EncoderHandle, pairs: Pairs, tuning: Tuning, seed: int) -> Alignment:
    """A dual encoder, whose towers are trained."""
    info = source.encoder.info
    source.forget_encoder()  # its memory is needed
    towers = open_towers(source.encoder_settings, tuning, source.device)
    head = Contrast(NetworkConfig(*_widths(info)), info.logit_scale or 1.0)
    model = Tuned(head, towers, tokens=False, encoder=info.fingerprint)
    data = RawPosts(pairs.posts, pairs.keys, pairs.features, towers.encoder)
    return Alignment(model, data, tuning.config(TrainConfig(seed=seed)), towers.save)


def align_projections(
    source: EncoderHandle, pairs: Pairs, fitted: Flags, width: int, seed: int
) -> Alignment:
    """Learn a linear map to D = `width` behind each tower, scaled by the `fitted` pairs (N,)."""
    model = ContrastiveProjections(ProjectionConfig(*_widths(source.encoder.info), width))
    known = pairs.features.take(np.flatnonzero(fitted))
    model.text_scale.fit(known.texts)
    model.image_scale.fit(known.images)
    name = source.encoder.info.pinned or str(source.encoder_settings["name"])
    save = partial(model.save_encoder, encoder=name)
    return Alignment(model, pairs.features, replace(PROJECTIONS, seed=seed), save)


def _widths(info: EncoderInfo) -> tuple[int, int, int, bool, int]:
    return (1, info.text_width, info.image_width, info.shared_space, info.word_width)
