"""Calibration of probabilities: its error, and temperature scaling."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sgmft.models.arrays import cross_entropy, softmax

BINS = 15  # of the expected calibration error, as Guo et al. (2017) have them
LARGEST = 20.0  # a temperature lies between its inverse and it
_Numbers = npt.NDArray[np.float64]
_Cells = npt.NDArray[np.int64]


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


def measure_calibration(probabilities: _Numbers, true: _Cells, bins: int = BINS) -> Calibration:
    """Measure the calibration of probabilities (N, K) whose rows sum to 1, by true classes (N,)."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
    place = bin_index(top, bins)
    posts = np.bincount(place, minlength=bins)
    known = np.maximum(posts, 1)
    mean = np.bincount(place, top, bins) / known
    accuracy = np.bincount(place, right, bins) / known
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(true)), true] = 1
    return Calibration(
        error=float(posts @ np.abs(accuracy - mean) / len(true)),
        brier=float(np.square(probabilities - truth).sum(axis=1).mean()),
        bins=[
            Bin(k / bins, (k + 1) / bins, int(posts[k]), float(mean[k]), float(accuracy[k]))
            for k in range(bins)
        ],
    )


def bin_index(top: _Numbers, bins: int) -> npt.NDArray[np.intp]:
    """Return the bin of each probability (N,), 0 to bins - 1; an upper edge belongs to its bin."""
    return np.searchsorted(np.arange(1, bins) / bins, top)


def rescale_probabilities(probabilities: _Numbers, temperature: Any) -> _Numbers:
    """Return softmax(z / T) of logits z whose softmax is given, (N, K); T a number, or (N, 1)."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: _Numbers = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def temper(logits: npt.NDArray[np.floating], temperatures: _Numbers) -> npt.NDArray[np.float32]:
    """Return probabilities (N, K) of logits (N, K), each row divided by its temperature (N,)."""
    return np.asarray(softmax(logits / temperatures[:, None].astype(logits.dtype)), np.float32)


def fit_temperature(logits: npt.NDArray[np.floating], labels: _Cells) -> float:
    """Return the T under which softmax(logits / T) makes the labels most likely (Guo et al. 2017).

    From logits (N, K) of posts that they were not learned from, and labels (N,). T is between 1/20
    and 20; a penalty of (log T)^2 / N keeps it near 1 when posts are few.
    """
    if not len(labels):
        return 1.0
    wide = logits.astype(np.float64)

    def loss(log: float) -> float:
        return cross_entropy(wide / math.exp(log), labels) + log * log / len(labels)

    limit = math.log(LARGEST)
    return math.exp(_minimise(loss, -limit, limit))


def _minimise(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum between two numbers has it, to 1e-6.

    Golden-section search (Kiefer 1953).
    """
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-6:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2
