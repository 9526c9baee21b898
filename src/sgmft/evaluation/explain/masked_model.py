"""Predictions of a trained model for a post of which parts are left out or replaced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

Probabilities = NDArray[np.float64]


class UnexplainableError(SgmftError):
    """A post that a model cannot predict: it has an error, nothing to go on or a bad picture."""

    def __init__(self, post: Post, reason: str) -> None:
        super().__init__(f"{post.place or 'The post'} cannot be explained: {reason}.")
        self.reason = reason


@dataclass(frozen=True)
class ExplainedModel:
    """The parts of a trained locator that explaining needs."""

    encoder: Encoder  # posts to features
    network: Network  # features to logits
    tokens: bool  # whether the network needs word and region features
    labels: Sequence[str]  # the K labels, in the order of the logits
    temperature: float  # by which logits are divided


class MaskedPredictor:
    """Predicts one post as it is, and with parts left out or replaced.

    A modality that is left out is missing, as in a post that never had it: the model's own way
    with missing modalities decides what that means.

    Attributes:
        text: cleaned, as the encoder reads it; "" when there is none.
        images: decoded, as the encoder sees them.
        files: which of the post's files each image is of.
        whole: the post's features.
    """

    def __init__(self, post: Post, model: ExplainedModel) -> None:
        content = prepare_post(post, model.encoder.info)
        if isinstance(content, str):
            raise UnexplainableError(post, content)
        self.model = model
        self.text = content.text
        self.images = content.images
        self.files = content.files
        self.whole = self._encode([content])[0]

    def replace_text(self, texts: Sequence[str]) -> list[PostFeatures]:
        """Return the post with each of these cleaned texts in place of its own, "" for none."""
        new = self._encode([PreparedPost(str(i), text, []) for i, text in enumerate(texts)])
        return [self.whole._replace(text=x.text, words=x.words, ngrams=x.ngrams) for x in new]

    def replace_image(self, number: int, changed: Sequence[Pixels]) -> list[PostFeatures]:
        """Return the post with each of these in place of its image `number`, counted from 0."""
        images, regions = self.whole.images, self.whole.regions
        assert images is not None
        rows = []
        for new in self._encode([PreparedPost(str(i), "", [x]) for i, x in enumerate(changed)]):
            assert new.images is not None
            row = self.whole._replace(images=_with_row(images, number, new.images[0]))
            if regions is not None and new.regions is not None:
                each = regions.reshape(len(images), *new.regions.shape)
                each = _with_row(each, number, new.regions)
                row = row._replace(regions=each.reshape(regions.shape))
            rows.append(row)
        return rows

    def keep_parts(self, text: bool, images: Sequence[bool]) -> PostFeatures:
        """Return the post with its text or without, and with those images that are True."""
        row = self.whole
        if not text:
            row = row._replace(text=None, words=None, ngrams=None)
        if row.images is None:
            return row
        kept = np.asarray(images, bool)
        if not kept.any():
            return row._replace(images=None, regions=None)
        regions = row.regions
        if regions is not None:
            each = regions.reshape(len(row.images), -1, regions.shape[-1])
            regions = each[kept].reshape(-1, regions.shape[-1])
        return row._replace(images=row.images[kept], regions=regions)

    def features(self, rows: Sequence[PostFeatures]) -> Features:
        """Return what the network takes."""
        return Features.of(rows, self.model.encoder.info, self.model.tokens)

    @torch.no_grad()
    def predict_proba(self, rows: Sequence[PostFeatures]) -> Probabilities:
        """Return the probabilities of N changed posts, (N, K) in the order of the labels."""
        logits = predict_logits(self.model.network, self.features(rows)).logits
        return (logits / self.model.temperature).softmax(-1).double().numpy()

    def _encode(self, contents: Sequence[PreparedPost]) -> list[PostFeatures]:
        found = encode_prepared(contents, self.model.encoder, self.model.tokens, {})
        return [found[content.key] for content in contents]


def _with_row(rows: NDArray[Any], number: int, new: NDArray[Any]) -> NDArray[Any]:
    changed = rows.copy()
    changed[number] = new
    return changed


def check_label(label: str | None, labels: Sequence[str]) -> None:
    """Raise SgmftError for a label that a model does not have; None is any."""
    if label is not None and label not in labels:
        raise SgmftError(f"The model has no label {label!r}: its labels are {', '.join(labels)}.")
