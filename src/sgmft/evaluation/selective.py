"""Selective prediction: coverage of prediction sets, accuracy of the surest posts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.8, 0.9, 0.95)  # coverages that an evaluation shows
POINTS = 20  # of a curve
_Probabilities = NDArray[np.floating[Any]]
_Cells = NDArray[np.int64]


@dataclass(frozen=True)
class SetScore:
    """Prediction sets of one promised coverage on N posts."""

    promised: float  # the coverage asked for, in 0..1
    achieved: float  # share of posts whose true label is in their set
    per_class: dict[str, float | None]  # the same by true label; None for one without posts
    size: float  # mean number of labels in a set
    answered: float  # share of sets with exactly one label
    accuracy: float | None  # share of those whose one label is true; None where there are none


@dataclass(frozen=True)
class CurvePoint:
    """The posts whose probability is at least `min_probability`: their share, and accuracy."""

    min_probability: float
    answered: float
    accuracy: float


@dataclass(frozen=True)
class Selective:
    """Both ways to abstain."""

    sets: list[SetScore]  # by promised coverage, ascending; none without held-out posts
    curve: list[CurvePoint]  # from all posts to the surest twentieth


def score_sets(
    members: NDArray[np.bool_], true: _Cells, labels: Sequence[str], promised: float
) -> SetScore:
    """Evaluate prediction sets (N, K) of posts whose classes (N,) are known."""
    hit = members[np.arange(len(true)), true]
    single = members.sum(1) == 1
    of_class = [hit[true == k] for k in range(len(labels))]
    return SetScore(
        promised=promised,
        achieved=float(hit.mean()),
        per_class={
            label: float(hits.mean()) if len(hits) else None
            for label, hits in zip(labels, of_class, strict=True)
        },
        size=float(members.sum(1).mean()),
        answered=float(single.mean()),
        accuracy=float(hit[single].mean()) if single.any() else None,
    )


def accuracy_curve(probabilities: _Probabilities, true: _Cells) -> list[CurvePoint]:
    """Return the accuracy of the surest posts, for `POINTS` shares of N.

    From probabilities (N, K) and true classes (N,). Posts of equal probability stay together.
    """
    top, right = probabilities.max(1), probabilities.argmax(1) == true
    sure = np.sort(top)
    limits = sure[(np.arange(POINTS) * len(sure)) // POINTS]
    points = []
    for limit in dict.fromkeys(map(float, limits)):
        kept = top >= limit
        points.append(CurvePoint(limit, float(kept.mean()), float(right[kept].mean())))
    return points
