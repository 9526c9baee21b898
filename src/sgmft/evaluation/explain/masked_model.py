"""What a trained model says of a post of which parts are left out or replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import Pixels
from sgmft.errors import SgmftError
from sgmft.features.encode import PreparedPost, encode_prepared, prepare_post
from sgmft.features.encoders.base import Encoder
from sgmft.features.features import Features
from sgmft.features.post_features import PostFeatures
from sgmft.models.base import Network
from sgmft.models.inference import predict_logits

Chances = NDArray[np.float64]


class UnexplainableError(SgmftError):
    """A post of which a model can say nothing, and why."""

    def __init__(self, post: Post, reason: str) -> None:
        super().__init__(f"{post.place or 'The post'} cannot be explained: {reason}.")
        self.reason = reason


@dataclass(frozen=True)
class ExplainedModel:
    """What explaining needs of a trained locator.

    Attributes:
        encoder, network: posts to features, features to logits.
        tokens: whether the network needs word and region features.
        labels: the K labels, in the order of the logits.
        temperature: by which logits are divided.
    """

    encoder: Encoder
    network: Network
    tokens: bool
    labels: Sequence[str]
    temperature: float


class MaskedPredictor:
    """Asks a model about one post and about what is left of it.

    A side that is left out is missing, as in a post that never had it: the model's own way with
    missing sides decides what that means.

    Attributes:
        text: cleaned, as the encoder reads it; "" when there is none.
        pictures: decoded, as the encoder sees them.
        files: which of the post's files each picture is of.
        whole: the post's features.

    Raises:
        UnexplainableError: it has an error or nothing to go on, or a picture cannot be read.
    """

    def __init__(self, post: Post, model: ExplainedModel) -> None:
        content = prepare_post(post, model.encoder.info)
        if isinstance(content, str):
            raise UnexplainableError(post, content)
        self.model = model
        self.text = content.text
        self.pictures = content.pictures
        self.files = content.files
        self.whole = self._encode([content])[0]

    def with_texts(self, texts: Sequence[str]) -> list[PostFeatures]:
        """The post with each of these cleaned texts in place of its own; "" leaves it out."""
        new = self._encode([PreparedPost(str(i), text, []) for i, text in enumerate(texts)])
        return [self.whole._replace(text=x.text, words=x.words, ngrams=x.ngrams) for x in new]

    def with_images(self, number: int, pictures: Sequence[Pixels]) -> list[PostFeatures]:
        """The post with each of these in place of its picture `number`, counted from 0."""
        images = self.whole.images
        assert images is not None
        rows = []
        for new in self._encode([PreparedPost(str(i), "", [x]) for i, x in enumerate(pictures)]):
            assert new.images is not None
            changed = images.copy()
            changed[number] = new.images[0]
            regions = self.whole.regions
            if regions is not None and new.regions is not None:
                each = regions.copy().reshape(len(images), *new.regions.shape)
                each[number] = new.regions
                regions = each.reshape(regions.shape)
            rows.append(self.whole._replace(images=changed, regions=regions))
        return rows

    def with_parts(self, text: bool, pictures: Sequence[bool]) -> PostFeatures:
        """The post with its text or without, and with those pictures for which it says True."""
        row = self.whole
        if not text:
            row = row._replace(text=None, words=None, ngrams=None)
        if row.images is None:
            return row
        kept = np.asarray(pictures, bool)
        if not kept.any():
            return row._replace(images=None, regions=None)
        regions = row.regions
        if regions is not None:
            each = regions.reshape(len(row.images), -1, regions.shape[-1])
            regions = each[kept].reshape(-1, regions.shape[-1])
        return row._replace(images=row.images[kept], regions=regions)

    def features(self, rows: Sequence[PostFeatures]) -> Features:
        """What the network takes."""
        return Features.of(rows, self.model.encoder.info, self.model.tokens)

    @torch.no_grad()
    def probabilities(self, rows: Sequence[PostFeatures]) -> Chances:
        """Of each of N changed posts, (N, K) in the order of the labels."""
        logits = predict_logits(self.model.network, self.features(rows)).logits
        return (logits / self.model.temperature).softmax(-1).double().numpy()

    def _encode(self, contents: Sequence[PreparedPost]) -> list[PostFeatures]:
        found = encode_prepared(contents, self.model.encoder, self.model.tokens, {})
        return [found[content.key] for content in contents]


def check_label(label: str | None, labels: Sequence[str]) -> None:
    """Raise SgmftError for a label that a model does not have; None is any."""
    if label is not None and label not in labels:
        raise SgmftError(f"The model has no label {label!r}: its labels are {', '.join(labels)}.")
