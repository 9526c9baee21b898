"""Choosing posts to label: facility location, by the features of both sides.

The chosen set S makes f(S) = sum_j w_j max_{i in S} s_ij^a large: every post j shall have a chosen
post i like it (Wei, Iyer & Bilmes 2015, "Submodularity in data subset selection and active
learning"). s is the mean cosine of two posts' standardised texts and pictures, 0 where negative.
Without a model w = a = 1. With one, w_j is how uncertain it is of post j, and a = 2: once every
kind of post has its label, what is near counts more. Posts that have a label stand in S from the
start. Greedy choice comes within 1 - 1/e of the best set, and its order is the order of worth.
benchmarks/suggest.py measures it; docs/results.md has the figures.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from sgmft.errors import SgmftError
from sgmft.features import Features
from sgmft.nn.inputs import Normalizer

POOL = 8000  # posts looked at; of more, so many are drawn: similarities are 4 bytes a pair
POWER = 2  # of cosines, with a model
NEAR = 0.85  # cosine from which two posts are taken for one; distinct ones stay below 0.7


def choose_posts(
    features: Features,
    count: int,
    *,
    uncertainty: NDArray[np.float32] | None = None,
    covered: Sequence[int] = (),
    near: float = NEAR,
    seed: int = 0,
) -> list[int]:
    """Positions of the posts most worth labelling, the most worthwhile first.

    Near duplicates of a chosen or covered post are passed over, so fewer than `count` may be found.

    Args:
        features: of N posts.
        count: how many to choose, 1 or more.
        uncertainty: of a model, (N,) in 0..1; without it all posts weigh the same.
        covered: positions of posts that have a label: they are not chosen, nor what is like them.
        near: cosine from which two posts are near duplicates.
        seed: decides which posts are looked at where there are more than `POOL`.

    Raises:
        SgmftError: count is below 1.
    """
    if count < 1:
        raise SgmftError(f"At least 1 post must be asked for, not {count}.")
    space = _space(features)  # (N, D)
    known = np.zeros(len(space), bool)
    known[list(covered)] = True
    pool = np.flatnonzero(~known)
    if len(pool) > POOL:
        pool = np.sort(np.random.default_rng(seed).choice(pool, POOL, replace=False))
    if not len(pool):
        return []
    open_posts = space[torch.from_numpy(pool)]
    reached = _nearest(open_posts, space[torch.from_numpy(known)])  # (P,) similarity to a label
    weights = np.ones(len(pool)) if uncertainty is None else np.asarray(uncertainty)[pool]
    similarity = (open_posts @ open_posts.T).clamp_(min=0)  # (P, P)
    if uncertainty is not None:
        similarity, reached, near = similarity.pow_(POWER), reached**POWER, near**POWER
    order = _greedy(similarity.numpy(), weights, reached.numpy(), count, near)
    return [int(pool[i]) for i in order]


def _greedy(
    similarity: NDArray[np.float32],
    weights: NDArray[np.floating],
    reached: NDArray[np.float32],
    count: int,
    near: float,
) -> list[int]:
    """Positions in the order of their gains; lazy, for a gain only falls (Minoux 1978)."""
    weights, best = weights.astype(np.float32), np.maximum(reached, 0)
    stopped = reached >= near

    def gain(i: int) -> float:
        return float(np.maximum(similarity[i] - best, 0) @ weights)

    queue = [(-gain(i), i) for i in range(len(similarity)) if not stopped[i]]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        _, i = heapq.heappop(queue)
        if stopped[i]:
            continue
        found = (-gain(i), i)
        if queue and found > queue[0]:
            heapq.heappush(queue, found)
            continue
        chosen.append(i)
        best = np.maximum(best, similarity[i])
        stopped |= similarity[i] >= near
        stopped[i] = True
    return chosen


def _space(features: Features) -> Tensor:
    """Posts (N, Dt + Dv) of unit length, whose products are mean cosines of their two sides.

    Between a post with one side and one with both, a product is the side's cosine over sqrt(2).
    """
    text, image = features.pooled()
    sides = [_side(text, features.has_text), _side(image, features.has_image)]
    return normalize(torch.cat(sides, -1), dim=-1)


def _side(x: Tensor, has: Tensor) -> Tensor:
    """Standardised features of unit length (N, D), zeros where missing."""
    scale = Normalizer(x.shape[1], "standard")
    if has.any():
        scale.fit(x[has])
    return torch.where(has[:, None], normalize(scale(x), dim=-1), 0.0).float()


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """Cosine of each row (P, D) and the nearest of the others (C, D), 0 where there are none."""
    best = torch.zeros(len(rows))
    for part in others.split(POOL) if len(others) else ():
        best = torch.maximum(best, (rows @ part.T).amax(1))
    return best


def uncertainty_of(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """How near the second label comes to the first: 1 less their margin, (N, K) to (N,) in 0..1."""
    first_two = np.sort(probabilities, axis=1)[:, :-3:-1]  # (N, 2), the larger first
    return (1 - first_two[:, 0] + first_two[:, 1]).astype(np.float32)
