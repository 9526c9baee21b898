"""The trainable part of alignment: Chinese-CLIP's towers, or linear maps behind an encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.encoders.projected import Maps, save_projected
from sgmft.features.features import Features
from sgmft.models.base import NetworkConfig
from sgmft.models.presets import TrainConfig
from sgmft.training.align.contrastive import Contrast, ContrastiveProjections, ProjectionConfig
from sgmft.training.align.pairs import Pairs
from sgmft.training.finetune.batches import RawPosts
from sgmft.training.finetune.network import Tuned
from sgmft.training.finetune.settings import Tuning
from sgmft.training.finetune.towers import open_towers

PROJECTIONS = TrainConfig(
    epochs=60,
    batch_size=64,
    learning_rate=3e-4,
    weight_decay=1.0,
    schedule="cosine",
    patience=8,
)


class ClipAlignment:
    """Chinese-CLIP, whose towers are trained.

    Attributes:
        model: gives embeddings of a batch in `parts`.
        data: all pairs, as the model reads them.
        config: how it is trained.
    """

    data: RawPosts

    def __init__(self, source: EncoderHandle, pairs: Pairs, tuning: Tuning, seed: int) -> None:
        info = source.encoder.info
        source.forget_encoder()  # its memory is needed
        towers = open_towers(source.encoder_settings, tuning, source.device)
        head = Contrast(NetworkConfig(*_widths(info)), info.logit_scale or 1.0)
        self.model = Tuned(head, towers, tokens=False, encoder=info.fingerprint)
        self.data = RawPosts(pairs.posts, pairs.keys, pairs.features, info, towers.tokenize)
        self.config = tuning.config(TrainConfig(seed=seed))

    def save(self, folder: Path) -> None:
        """Write the encoder."""
        self.model.towers.save(folder)


class ProjectionAlignment:
    """Another encoder, which stays as it is: a linear map behind each of its towers is learned.

    Attributes as those of `ClipAlignment`.

    Args:
        fitted: which pairs (N,) give the scales of the features.
        width: D of the space.
    """

    data: Features

    def __init__(
        self, source: EncoderHandle, pairs: Pairs, fitted: Tensor, width: int, seed: int
    ) -> None:
        info = source.encoder.info
        self._name = str(source.encoder_settings["name"])
        self.model = ContrastiveProjections(ProjectionConfig(*_widths(info), width))
        known = pairs.features.take(fitted.nonzero()[:, 0])
        self.model.prepare(known.texts, known.images, None, None)
        self.data = pairs.features
        self.config = replace(PROJECTIONS, seed=seed)

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write the encoder."""
        m = self.model
        given = (
            *(m.text_scale.mean, m.text.weight / m.text_scale.deviation),
            *(m.image_scale.mean, m.image.weight / m.image_scale.deviation),
        )
        maps = Maps(*(x.cpu().numpy() for x in given))
        save_projected(folder, self._name, maps, float(m.scale))


def _widths(info: EncoderInfo) -> tuple[int, int, int, bool, int]:
    return (1, info.text_width, info.image_width, info.shared_space, info.word_width)
