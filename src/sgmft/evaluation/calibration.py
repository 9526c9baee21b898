"""Calibration of probabilities: its error, and temperature scaling."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgmft.models.arrays import Array, Doubles, Floats, Integers, Reals, cross_entropy, softmax

BINS = 15  # of the expected calibration error, as Guo et al. (2017) have them
LARGEST = 20.0  # a temperature lies between its inverse and it


@dataclass(frozen=True)
class Bin:
    """The posts whose most probable label has a probability above `low` and up to `high`."""

    low: float
    high: float
    posts: int
    probability: float  # its mean over the posts; 0 without posts
    accuracy: float  # share of the posts whose most probable label is the true one


@dataclass(frozen=True)
class Calibration:
    """How far probabilities agree with the share of posts that are right.

    The expected calibration error, in 0..1, is the mean over posts of their bin's distance between
    accuracy and mean probability (Guo et al. 2017, eq. 3); the Brier score, in 0..2, that of
    sum_k (p_k - y_k)^2, y 1 for the true label and 0 for the others (Brier 1950).
    """

    error: float
    brier: float
    bins: list[Bin]  # of equal width


def measure_calibration(probabilities: Doubles, true: Integers, bins: int = BINS) -> Calibration:
    """Measure the calibration of probabilities (N, K) whose rows sum to 1, by true classes (N,)."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    place = bin_index(top, bins)
    posts = np.bincount(place, minlength=bins)
    mean, accuracy = (np.bincount(place, x, bins) / np.maximum(posts, 1) for x in (top, right))
    error = float(posts @ np.abs(accuracy - mean) / len(true))
    misses = probabilities - np.eye(probabilities.shape[1])[true]
    edges, columns = np.arange(bins + 1) / bins, (posts, mean, accuracy)
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), *(x.tolist() for x in columns), strict=True)
    return Calibration(error, float((misses**2).sum(axis=1).mean()), [Bin(*row) for row in rows])


def bin_index(top: Doubles, bins: int) -> Array:
    """Return the bin of each probability (N,), 0 to bins - 1; an upper edge belongs to its bin."""
    return np.searchsorted(np.arange(1, bins) / bins, top)


def rescale_probabilities(probabilities: Doubles, temperature: Any) -> Doubles:
    """Return softmax(z / T) of logits z whose softmax is given, (N, K); T a number, or (N, 1)."""
    with np.errstate(divide="ignore"):
        return np.asarray(softmax(np.log(probabilities) / temperature))


def temper(logits: Reals, temperatures: Doubles) -> Floats:
    """Return probabilities (N, K) of logits (N, K), each row divided by its temperature (N,)."""
    return np.asarray(softmax(logits / temperatures[:, None].astype(logits.dtype)), np.float32)


def fit_temperature(logits: Reals, labels: Integers) -> float:
    """Return the T under which softmax(logits / T) makes the labels most likely (Guo et al. 2017).

    From logits (N, K) and labels (N,), in 1/20..20; (log T)^2 / N keeps it near 1 for few posts.
    """
    from scipy.optimize import minimize_scalar  # which predicting does not need

    if not len(labels):
        return 1.0
    wide = logits.astype(np.float64)

    def loss(log: float) -> float:
        return cross_entropy(wide / math.exp(log), labels) + log * log / len(labels)

    limit = math.log(LARGEST)
    return math.exp(minimize_scalar(loss, bounds=(-limit, limit), options={"xatol": 1e-6}).x)
