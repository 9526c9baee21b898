"""Shares of labels among posts, corrected for a model's errors, with intervals (quantification).

A model that takes Home for Work shifts the counts of both. Probabilities of labelled posts that it
has not learned from tell how, and correct the shares, if posts of one label look as those did, so
that only the labels' shares differ (label shift). What is shown must not tell of a single person.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import erfc

from sgmft.evaluation.compare.statistics import holm
from sgmft.models.arrays import Doubles, Integers

Weights = Doubles | None  # (n,) of posts
LEVELS = (0.025, 0.975)  # of a 95 % interval
REPLICATES, WEIGHTS = 400, 10**8  # of the bootstrap; fewer where there would be more weights
LEAST = 20  # held-out posts of one kind of parts; posts of a rarer kind count as the commonest
MIXED = 0.05  # share of the held-out posts in what probabilities are adapted to: none is 0 there
# Of the gamma distribution of held-out posts' weights, whose variance is its inverse: 1 for the
# draw of these posts, 1.5 as the fits of cross-fitting predicted them, and not the model itself.
SHAPE = 0.4
UNSEEN = 0.5  # posts of each label that intervals allow for beside those seen (Jeffreys' prior)
TINY, SURE = 1e-6, 1e-3  # the latter of labels that cannot be mistaken, so that all can be told


class Shares(NamedTuple):
    """Shares of K labels among some posts."""

    counted: Doubles  # (K,) of their labels
    share: Doubles  # (K,)
    low: Doubles  # (K,) to `high`: 95 % intervals
    high: Doubles
    replicates: Doubles  # (B, K) of the bootstrap, which may lie outside 0..1
    users: int


class Change(NamedTuple):
    """How much larger the shares of K labels are among some posts than among others."""

    difference: Doubles  # (K,)
    low: Doubles  # (K,) to `high`: 95 % intervals
    high: Doubles
    p: Doubles  # (K,) that there is no difference; Holm-corrected over the labels

    @classmethod
    def between(cls, before: Shares, after: Shares) -> "Change":
        """Test the change of each label, from shares by one `ShareEstimator`."""
        drawn = after.replicates - before.replicates
        p = erfc(np.abs(drawn.mean(0)) / drawn.std(0).clip(TINY) / np.sqrt(2))
        low, high = np.quantile(drawn, LEVELS, axis=0).clip(-1, 1)
        return cls(after.share - before.share, low, high, np.array(holm(p.tolist())))


class ShareEstimator:
    """Estimates shares of labels among some of N posts.

    Expectation maximisation (Saerens, Latinne & Decaestecker 2002), then an adjusted count (Bella
    et al. 2010) of the probabilities under what it found. Intervals are percentiles of a Bayesian
    bootstrap of users and of held-out posts (Rubin 1981).

    `probs` are (N, K); `labels` (N,) as counted, -1 for none; `users` (N,) from 0 to U - 1; `parts`
    (N,) which the posts have; `held_out` None makes shares means of `probs`, not corrected.
    """

    def __init__(
        self, probs: Doubles, labels: Integers, users: Integers, parts: Integers, held_out: Any
    ) -> None:  # the latter the model's `HeldOutProbabilities`
        self.probs, self.labels, self.users, self.held_out = probs, labels, users, held_out
        rng = np.random.default_rng(0)
        number = int(np.clip(WEIGHTS // (users.max() + 1), 100, REPLICATES))
        self._drawn = rng.standard_exponential((number, users.max() + 1), np.float32)  # (B, U)
        if held_out is not None:
            known, kinds = held_out.probabilities, held_out.parts
            drawn = rng.standard_gamma(SHAPE, (1 + number, len(known)), np.float32) + TINY
            drawn[0] = 1  # all posts, not a replicate
            self._drawn_held_out = drawn
            self._count = np.bincount(kinds, minlength=parts.max() + 1)
            self._kinds = np.where(self._count[parts] < LEAST, self._count.argmax(), parts)
            own = (known[kinds == kind] if n else known for kind, n in enumerate(self._count))
            self._usual = np.array([x.mean(0) for x in own], float).clip(TINY)  # by parts

    def estimate(self, rows: Integers, weights: Weights = None) -> Shares:
        """Estimate shares among the posts `rows` (n,), which may have weights (n,)."""
        v = np.ones(len(rows)) if weights is None else weights / weights.mean()
        labels, classes = self.labels[rows], self.probs.shape[1]
        counted = np.bincount(labels[labels >= 0], v[labels >= 0], classes)
        x, means_by_class = self.probs[rows], np.eye(classes)[None]
        if self.held_out is not None:
            x, means_by_class = self._adapt(rows, v)
        users, place = np.unique(self.users[rows], return_inverse=True)
        by_user = np.array([np.bincount(place, column * v) for column in (*x.T, np.ones(len(v)))])
        drawn = self._drawn[:, users]
        sums = np.concatenate([by_user.sum(1)[None], drawn @ by_user.T])
        means = sums[:, :-1, None] / sums[:, -1:, None]
        means_by_class = (1 - SURE) * np.swapaxes(means_by_class, 1, 2) + SURE * np.eye(classes)
        solved = np.linalg.solve(means_by_class, means)[:, :, 0]
        share, replicates = onto_simplex(solved[:1])[0], solved[1:]
        unseen = np.random.default_rng(1).gamma(UNSEEN, size=replicates.shape)
        likely = onto_simplex(replicates) * drawn.sum(1, keepdims=True) + unseen
        low, high = np.quantile(likely / likely.sum(1, keepdims=True), LEVELS, axis=0)
        low, high = np.minimum(low, share), np.maximum(high, share)
        return Shares(counted / max(counted.sum(), TINY), share, low, high, replicates, len(users))

    def draw(
        self, found: Shares, rows: Integers, weights: Weights = None, whole: Shares | None = None
    ) -> Shares:
        """Draw corrected shares to means of probabilities, as far as chance explains the distance.

        Probabilities are under the shares of a `whole`, else of the held-out posts, and chance is
        that the posts are like those. How shares vary, the replicates tell; of few users, in part a
        multinomial draw of as many (James & Stein 1961, empirical Bayes). Others are not drawn.
        """
        if self.held_out is None:
            return found
        expected = self._usual[self._count.argmax()] if whole is None else whole.share
        drawn = found.replicates - (0 if whole is None else whole.replicates)
        n, far, freedom = found.users, found.share - expected, len(expected) - 1
        alone = (np.diag(expected) - np.outer(expected, expected)) / n
        spread = (n * np.cov(drawn.T) + freedom * alone) / (n + freedom)
        distance = far @ np.linalg.pinv(spread, 1e-8, hermitian=True) @ far
        x = self._density(rows) * expected
        means = np.average(x / x.sum(1, keepdims=True), axis=0, weights=weights)
        share = found.share + (means - found.share) * freedom / max(distance, freedom, TINY)
        ends = {"low": np.minimum(found.low, share), "high": np.maximum(found.high, share)}
        return found._replace(share=share, **ends)

    def _density(self, rows: Integers) -> Doubles:
        """Return how likely posts are by label (n, K), each row but for a factor."""
        return np.asarray(self.probs[rows].clip(TINY) / self._usual[self._kinds[rows]])

    def _adapt(self, rows: Integers, v: Doubles) -> tuple[Doubles, Doubles]:
        """Return probabilities of posts (n, K) under their shares, and means of held-out posts.

        Those are by true class (1 + B, K, K), of all and of each replicate of the bootstrap.
        """
        probs, classes = self.held_out.probabilities, self.held_out.classes
        parts = self.held_out.parts
        share = np.bincount(self._kinds[rows], v, len(self._count)) / v.sum()
        density = self._density(rows)
        shares = (1 - MIXED) * maximise(density, v, share @ self._usual)
        shares += MIXED * share @ self._usual
        x, h = (y * shares for y in (density, probs.clip(TINY) / self._usual[parts]))
        x, h = (y / y.sum(1, keepdims=True) for y in (x, h))
        weights = self._drawn_held_out * (share / self._count.clip(1))[parts].astype(np.float32)
        means = np.repeat(np.eye(len(shares))[None], len(weights), 0)  # of a class without posts
        for k in np.unique(classes[share[parts] > 0]):
            w, own = weights[:, classes == k], h[classes == k].astype(np.float32)
            means[:, k] = w @ own / w.sum(1, keepdims=True)
        return x, means


def maximise(density: Doubles, weights: Doubles, shares: Doubles, most: int = 500) -> Doubles:
    """Return the shares (K,) under which posts are most likely, by EM from others.

    `density` (N, K) are likelihoods of the posts by label, each row but for a factor.
    """
    weights = weights / weights.sum()
    for _ in range(most):
        last, shares = shares, shares * (weights / (density @ shares) @ density)
        if np.abs(shares - last).max() < 1e-5:
            break
    return shares


def onto_simplex(x: Doubles) -> Doubles:
    """Return for each row (B, K) the nearest of numbers from 0 on of sum 1 (Duchi et al. 2008)."""
    ordered = -np.sort(-x, axis=1)
    excess = (np.cumsum(ordered, 1) - 1) / np.arange(1, x.shape[1] + 1)
    last = (ordered > excess).sum(1, keepdims=True) - 1
    return np.maximum(x - np.take_along_axis(excess, last, 1), 0)


@dataclass(frozen=True)
class PrivacyRule:
    """The least number of users behind what is shown; of posts, where there are no users."""

    users: Integers  # (N,) of the posts; -1 of all without one, which may be one person's
    least: int

    def allows(self, rows: Integers) -> bool:
        """Return whether posts are of enough users, of whom none wrote more than half."""
        posts = np.unique_counts(self.users[rows]).counts
        return len(posts) >= self.least and (self.least == 1 or 2 * posts.max() <= posts.sum())

    def choose(
        self, cells: Mapping[Any, Integers], lines: Sequence[Collection[Any]]
    ) -> dict[Any, Integers]:
        """Return the cells that may be shown; a line is cells whose sum is known from elsewhere.

        What is hidden of a line must be of enough users, too, for the sum less what is shown would
        tell it: else the smallest of the others is hidden with it.
        """
        shown = {key: rows for key, rows in cells.items() if self.allows(rows)}
        waiting = list(lines)
        while waiting:
            line = waiting.pop()
            hidden = [cells[key] for key in line if key not in shown]
            others = [key for key in line if key in shown]
            if hidden and others and not self.allows(np.concatenate(hidden)):
                del shown[min(others, key=lambda key: len(cells[key]))]
                waiting = list(lines)
        return shown

    def round(self, number: float) -> int:
        """Return a number of posts to a multiple of the least, so that differences tell little."""
        return int(self.least * round(number / self.least))
