"""Labelled posts to train on, whatever a batch of them is."""

from typing import NamedTuple

import numpy as np

from sgmft.features.features import LabelledFeatures
from sgmft.models.arrays import Flags, Integers
from sgmft.models.base import BatchSource


class LabelledPosts(NamedTuple):
    """N posts of any kind, such as raw ones for an encoder in training, and their labels (N,)."""

    features: BatchSource
    labels: Integers  # classes 0..K-1, or what numbers different contents


LabelledData = LabelledFeatures | LabelledPosts


def hold_out(
    posts: BatchSource, labels: Integers, held_out: Flags
) -> tuple[LabelledPosts, LabelledPosts]:
    """Posts to train on, and those held out, which are where a mask (N,) is True."""
    parts = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    train, validation = (LabelledPosts(posts.take(rows), labels[rows]) for rows in parts)
    return train, validation
