"""Regressions of an expert against scikit-learn's, fold by fold with warm starts.

    python benchmarks/experts.py [--large]

Both fit the six penalties of `DenseExpert` on all posts and without each of five folds, each with
mean and deviation of its own posts, in the same process. Features are random, 4,096 an item, with
the slowly falling spectrum that features of text and picture have. From 800 posts on scikit-learn
fits all posts and one fold, and its time counts three times; with --large there are 17,000 posts,
of which it fits one fold, six times its time. Agreement is the largest difference of a probability
from scikit-learn's in float64 at a tolerance of 1e-7, for all posts and the penalty 0.1.
"""

import argparse
import time
import warnings
from collections.abc import Sequence

import numpy as np
from measuring import print_row
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from sgmft.models.experts import DenseExpert
from sgmft.models.logistic import Block, Regressions
from sgmft.utils.runtime import thread_count

WIDTH, FOLDS, PENALTIES = 4096, 5, DenseExpert.penalties
WANTED = {100: 10, 200: 10, 800: 5, 2000: 4, 17_000: 4}


def make_posts(posts: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features (N, WIDTH), float32, and labels (N,) that follow from them in part."""
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(1500)) ** -0.7
    axes = rng.standard_normal((len(spectrum), WIDTH), np.float32)
    places = (rng.standard_normal((posts, len(spectrum))) * spectrum).astype(np.float32)
    x = places @ axes + 0.02 * rng.standard_normal((posts, WIDTH), np.float32)
    scores = places @ rng.standard_normal((len(spectrum), classes))
    labels = (2 * scores / scores.std() + rng.gumbel(size=scores.shape)).argmax(1)
    labels[:classes] = np.arange(classes)
    return (x - x.mean(0)) / x.std(0), labels


def parts_of(x: np.ndarray) -> list[Block]:
    """All posts, and those without each fold."""
    fold = np.arange(len(x)) % FOLDS
    kept = [np.ones(len(x), bool), *(fold != f for f in range(FOLDS))]
    return [Block(rows, x[rows].mean(0), x[rows].std(0)) for rows in kept]


def scikit(x: np.ndarray, labels: np.ndarray, part: Block, tolerance: float = 1e-4) -> np.ndarray:
    """Fit one part's path, and return the probabilities of all posts for the penalty 0.1."""
    z = (x - part.mean) / part.deviation
    model = LogisticRegression(warm_start=True, max_iter=2000, tol=tolerance)
    probs = np.zeros(0)
    for penalty in PENALTIES:
        model.C = 1 / (part.weights.sum() * penalty)
        model.fit(z[part.weights], labels[part.weights])
        if penalty == 0.1:
            probs = model.predict_proba(z)
    return probs


def measure(posts: int, classes: int, fitted: Sequence[int]) -> None:
    """Print the row of one size; `fitted` are the parts that scikit-learn fits."""
    x, labels = make_posts(posts, classes)
    parts = parts_of(x)
    began = time.perf_counter()
    with ThreadpoolController().limit(limits=1, user_api="blas"):  # as experts do
        every = Regressions(x, labels, classes, parts, thread_count())
        path = [every.solve(penalty) for penalty in PENALTIES]
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for i in fitted:
        scikit(x, labels, parts[i])
    theirs = (time.perf_counter() - began) * len(parts) / len(fitted)
    agreement = "-"
    if posts <= 2000:
        weight, bias = path[PENALTIES.index(0.1)][0]
        odds = np.exp(x @ weight.T + bias)
        exact = scikit(x.astype(float), labels, parts[0], 1e-7)
        agreement = f"{np.abs(odds / odds.sum(1, keepdims=True) - exact).max():.0e}"
    print_row(
        f"experts alone, {posts:,} posts, {classes} classes",
        "scikit-learn, fold by fold, warm starts",
        f"{theirs / ours:.1f}",
        f"{WANTED[posts]}",
        f"probabilities within {agreement}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    large = parser.parse_args().large
    warnings.simplefilter("ignore", ConvergenceWarning)
    for posts in [17_000] if large else [100, 200, 800, 2000]:
        for classes in (7, 23):
            fitted = range(1 + FOLDS) if posts < 800 else [1] if large else [0, 1]
            measure(posts, classes, fitted)


if __name__ == "__main__":
    main()
