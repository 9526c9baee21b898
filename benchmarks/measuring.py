"""Ours and what a user would otherwise run, in turns in one run, as rows of one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

Said = TypeVar("Said")


class Measured(NamedTuple):
    """Seconds of the other side's runs and of ours, and what each gave at last."""

    theirs: list[float]
    ours: list[float]
    answers: tuple[object, object]

    @property
    def ratio(self) -> str:
        """See `spread`."""
        return spread(self.theirs, self.ours)


def spread(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """The median of theirs / ours, with the least and the largest of the turns."""
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f"{median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"


def least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of the rows of two arrays, over the last axis."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / norms).min())


def in_turns(theirs: Callable[[], Said], ours: Callable[[], Said], rounds: int) -> Measured:
    """Run both once to warm up, and then `rounds` times in turns."""
    found = Measured([], [], (theirs(), ours()))
    for _ in range(rounds):
        for run, seconds in ((theirs, found.theirs), (ours, found.ours)):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
    return found


def print_row(work: str, against: str, found: str, wanted: str, agreement: str) -> None:
    """One row of the table that `make bench` writes; `found` and `wanted` are ratios or times."""
    print(f"| {work} | {against} | {found} | {wanted} | {agreement} |", flush=True)
