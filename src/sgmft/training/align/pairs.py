"""The posts that have a text and a picture, which of them share one, and who measures."""

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

LEAST = 20

HELD_OUT = 0.1  # share of the pairs

MOST_HELD_OUT = 1000  # recall among more says more of their number than of the encoder


class Pairs(NamedTuple):
    """N posts with both sides.

    Attributes:
        posts, keys, features: of each, as in `EncodedPosts`.
        number: (N,) the same for pairs that share a text or a picture, directly or through others.
    """

    posts: list[Post]
    keys: list[str]
    features: Features
    number: Tensor

    def held_out(self, seed: int) -> Tensor:
        """Which pairs (N,) are held out, at random; those of one number are on one side.

        Raises:
            SgmftError: all share a text or a picture.
        """
        numbers = self.number.unique()
        rng = torch.Generator().manual_seed(seed)
        order = numbers[torch.randperm(len(numbers), generator=rng)]
        size = self.number.bincount(minlength=len(numbers))[order].cumsum(0)
        wanted = min(MOST_HELD_OUT, max(2, round(HELD_OUT * len(self.number))))
        out = torch.isin(self.number, order[: int((size < wanted).sum()) + 1])
        if out.all():
            raise SgmftError("All pairs share a text or a picture: there is nothing to tell apart.")
        return out


def pairs_of(encoded: EncodedPosts) -> tuple[Pairs, dict[str, int]]:
    """The pairs, and why other posts are none, and how many.

    Raises:
        SgmftError: there are fewer than 20.
    """
    features = encoded.features
    rows = (features.has_text & features.has_image).nonzero()[:, 0]
    skipped = count_errors(encoded.refused)
    if alone := len(encoded.posts) - len(rows):
        skipped["has no text or no picture"] = alone
    if len(rows) < LEAST:
        told = f", and were left out: {describe_errors(skipped)}" if skipped else ""
        raise SgmftError(
            f"Aligning needs {LEAST} posts with text and picture, not {len(rows)}{told}."
        )
    posts, keys = ([x[i] for i in rows.tolist()] for x in (encoded.posts, encoded.keys))
    chosen = features.take(rows)
    return Pairs(posts, keys, chosen, _numbers(*chosen.pooled())), skipped


def _numbers(*sides: Tensor) -> Tensor:
    """Parts of the graph of N pairs in which those with equal features of a side are joined.

    They are numbered as they come, so that the features' values decide nothing else.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(sides[0])
    at = [
        offset + np.unique(side.numpy(), axis=0, return_inverse=True)[1].ravel()
        for offset, side in zip((0, count), sides, strict=True)
    ]
    graph = coo_matrix((np.ones(count, bool), at), shape=(2 * count, 2 * count))
    _, part = connected_components(graph, directed=False)
    own, first, place = np.unique(part[at[0]], return_index=True, return_inverse=True)
    rank = np.empty(len(own), np.int64)
    rank[first.argsort()] = np.arange(len(own))
    return torch.from_numpy(rank[place.ravel()])
