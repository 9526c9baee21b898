"""The posts that a model learns from, and why the others cannot be learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sgmft.data.posts import Post, raise_first_error, warn_about_singleton_labels
from sgmft.data.splits import fingerprint
from sgmft.data.summary import count_errors, describe_errors
from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.models.base import BatchSource


class LabelledData(Protocol):
    """N posts and their labels (N,): `LabelledFeatures`, or raw posts for a fine-tuned encoder."""

    @property
    def features(self) -> BatchSource:
        """The posts, of which batches are cut."""
        ...

    @property
    def labels(self) -> Tensor:
        """Classes 0..K-1, or what numbers different contents."""
        ...


class LabelledPosts(NamedTuple):
    """N posts of any kind and their labels (N,)."""

    features: BatchSource
    labels: Tensor


def hold_out(
    posts: BatchSource, labels: Tensor, held_out: Tensor
) -> tuple[LabelledPosts, LabelledPosts]:
    """Posts to train on, and those held out, which are where a mask (N,) is True."""
    train, validation = (
        LabelledPosts(posts.take(rows), labels[rows])
        for rows in ((~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0])
    )
    return train, validation


@dataclass(frozen=True)
class TrainingSet:
    """N posts with features and labels.

    Attributes:
        encoded: the posts and their features.
        names: the label of each.
        labels: the K different labels, sorted.
        skipped: why other posts were left out, and how many.
    """

    encoded: EncodedPosts
    names: list[str]
    labels: list[str]
    skipped: dict[str, int]

    @property
    def classes(self) -> Tensor:
        """The place of each post's label among `labels`, (N,)."""
        number = {label: k for k, label in enumerate(self.labels)}
        return torch.tensor([number[name] for name in self.names])

    def record(self, held_out: int) -> dict[str, Any]:
        """Facts about them for a saved model; `held_out` of them chose the epoch."""
        return {
            "fingerprint": fingerprint(zip(self.encoded.keys, self.names, strict=True)),
            "posts": len(self.names),
            "train": len(self.names) - held_out,
            "validation": held_out,
            "skipped": self.skipped,
        }


def training_set(
    posts: Sequence[Post], encode: Callable[[Sequence[Post]], EncodedPosts], strict: bool = False
) -> TrainingSet:
    """Encode the labelled posts; warn of a label that only one of them has.

    Args:
        strict: refuse all posts when one has an error or cannot be encoded.

    Raises:
        SgmftError: fewer than two labels are left; with `strict`, for the first bad post.
    """
    unlabelled = sum(post.error is None and post.label is None for post in posts)
    encoded = encode([post for post in posts if post.label is not None or post.error is not None])
    if strict:
        raise_first_error(encoded.refused)
    skipped = count_errors(encoded.refused)
    if unlabelled:
        skipped["no label"] = unlabelled
    names = [str(post.label) for post in encoded.posts]
    labels = sorted(set(names))
    if len(labels) < 2:
        reasons = describe_errors(skipped)
        raise SgmftError(
            f"Training needs posts of at least two labels; {len(names)} usable posts have "
            f"{len(labels)}" + (f", and were left out: {reasons}." if reasons else ".")
        )
    warn_about_singleton_labels(names)
    return TrainingSet(encoded, names, labels, skipped)
