"""The posts that have a text and an image, which of them share one, and which are held out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgmft.data.posts import Post
from sgmft.data.summary import count_errors, describe_errors
from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.features import Features

MIN_PAIRS = 20

HELD_OUT = 0.1  # share of the pairs

MAX_HELD_OUT = 1000  # recall among more depends on their number more than on the encoder


class Pairs(NamedTuple):
    """N posts with both modalities.

    Attributes:
        posts, keys, features: of each, as in `EncodedPosts`.
        number: (N,) the same for pairs that share a text or a picture, directly or through others.
    """

    posts: list[Post]
    keys: list[str]
    features: Features
    number: Tensor

    def held_out(self, seed: int) -> Tensor:
        """Which pairs (N,) are held out, at random; all of one number, or none of them.

        Raises:
            SgmftError: all share a text or a picture.
        """
        numbers = self.number.unique()
        rng = torch.Generator().manual_seed(seed)
        order = numbers[torch.randperm(len(numbers), generator=rng)]
        size = self.number.bincount(minlength=len(numbers))[order].cumsum(0)
        wanted = min(MAX_HELD_OUT, max(2, round(HELD_OUT * len(self.number))))
        out = torch.isin(self.number, order[: int((size < wanted).sum()) + 1])
        if out.all():
            raise SgmftError("All pairs share a text or a picture: there is nothing to tell apart.")
        return out


def find_pairs(encoded: EncodedPosts) -> tuple[Pairs, dict[str, int]]:
    """Return the pairs, and how many other posts are none for which reason.

    Raises:
        SgmftError: there are fewer than 20.
    """
    features = encoded.features
    rows = (features.has_text & features.has_image).nonzero()[:, 0]
    skipped = count_errors(encoded.refused)
    if alone := len(encoded.posts) - len(rows):
        skipped["has no text or no picture"] = alone
    if len(rows) < MIN_PAIRS:
        reasons = f", and were left out: {describe_errors(skipped)}" if skipped else ""
        raise SgmftError(
            f"Aligning needs {MIN_PAIRS} posts with text and picture, not {len(rows)}{reasons}."
        )
    posts, keys = ([x[i] for i in rows.tolist()] for x in (encoded.posts, encoded.keys))
    chosen = features.take(rows)
    return Pairs(posts, keys, chosen, _number_components(*chosen.pooled())), skipped


def _number_components(*features: Tensor) -> Tensor:
    """Parts of the graph of N pairs in which those with equal features of a modality are joined.

    They are numbered as they come, so that the features' values decide nothing else.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(features[0])
    at = [
        offset + np.unique(x.numpy(), axis=0, return_inverse=True)[1].ravel()
        for offset, x in zip((0, count), features, strict=True)
    ]
    graph = coo_matrix((np.ones(count, bool), at), shape=(2 * count, 2 * count))
    _, part = connected_components(graph, directed=False)
    own, first, place = np.unique(part[at[0]], return_index=True, return_inverse=True)
    rank = np.empty(len(own), np.int64)
    rank[first.argsort()] = np.arange(len(own))
    return torch.from_numpy(rank[place.ravel()])
