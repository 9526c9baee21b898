"""Who posts from where: label, author, split, and which side of a post tells its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgmft.data.synthetic.texts import PLACES, phrases

BLOCK = len(PLACES)  # posts in which each label occurs once

FOLD = 5  # blocks in which each label is a test post once


@dataclass(frozen=True)
class PostPlan:
    """What is settled about a post before it is written."""

    label: str
    informative: str
    split: str
    user: str
    sign: str


class Crowd:
    """The authors of one sample, and what they post.

    Args:
        seed: decides the crowd and all its posts.
        users: how many authors.
    """

    def __init__(self, seed: int, users: int) -> None:
        self.seed = seed
        generator = [self.make_rng("user", user) for user in range(users)]
        self._taste = np.stack([rng.dirichlet(np.full(BLOCK, 2.0)) for rng in generator])
        signs = phrases("anywhere")["signs"]
        self._signs = [signs[int(rng.integers(len(signs)))] for rng in generator]

    def make_rng(self, purpose: str, index: int) -> np.random.Generator:
        """Return the generator that serves one purpose for one post, user or block."""
        return np.random.default_rng((self.seed, *purpose.encode(), index))

    def plan(self, index: int, noise: float) -> PostPlan:
        """Settle post number `index`; any order of calls gives the same posts."""
        block, place = divmod(index, BLOCK)
        label = int(self.make_rng("labels", block).permutation(BLOCK)[place])
        fold = self.make_rng("split", block // FOLD).permutation(BLOCK)
        split = "test" if fold[label] % FOLD == block % FOLD else "train"
        rng = self.make_rng("plan", index)
        shares = np.array([max(0.0, 1 - 1.43 * noise), 0.8 * noise, 0.63 * noise])
        informative = ("both", "text", "image")[int(rng.choice(3, p=shares / shares.sum()))]
        liking = self._taste[:, label] + 1e-6
        user = int(rng.choice(len(liking), p=liking / liking.sum()))
        return PostPlan(PLACES[label], informative, split, f"user{user:03d}", self._signs[user])
