"""Made-up probabilities of several runs."""

import numpy as np


def random_runs(seed, runs, posts, classes):
    """Probabilities (S, N, K) that know a little, and the truth (N,)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=posts)
    probs = rng.dirichlet(np.full(classes, 0.5), size=(runs, posts))
    return (probs + 0.4 * np.eye(classes)[truth]) / 1.4, truth


def runs_right_at(right):
    """Runs (S, N, 2) that are right where `right` (S, N) says so, when the truth is 0."""
    return np.eye(2)[np.where(right, 0, 1)]
