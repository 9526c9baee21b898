"""Abstention: prediction sets of a promised coverage, and the rejection of posts of no class.

Both rest on probabilities of labelled posts that the model has not learned from, and on new posts
being drawn like those (exchangeability; Vovk, Gammerman & Shafer 2005).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from sgmft.errors import TEXTS, Message, SgmftError, raising
from sgmft.models.arrays import Doubles, Floats
from sgmft.utils.files import write_whole

Parts = NDArray[np.integer]
FILE = "held_out.safetensors"
OF_NONE = "seems to be of none of the labels"  # a reason
ROUNDING = 1e-8  # by which a probability may miss a threshold that it equals


@dataclass(frozen=True)
class Abstention:
    """Rules under which a prediction has no label; SgmftError for a value not between 0 and 1."""

    # of prediction sets, in 0..1: so large a share of posts has its true label in its set. No label
    # is given where the set has not exactly one member.
    coverage: float | None = None
    min_probability: float | None = None  # no label is given below it
    # share of posts like the training posts, in 0..1, that may be taken for posts of no class at
    # all; no label is given to posts that look it
    reject: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 < value < 1:
                raise SgmftError(f"{name} must be above 0 and below 1, not {value}.")


class AbstentionDecision(NamedTuple):
    """The outcome of the rules for one post."""

    members: NDArray[np.bool_] | None  # (K,) the prediction set; None without `coverage`
    typicality: float | None  # see `typicality`; None without `reject`
    reason: str | None  # why no label is given


@dataclass(frozen=True)
class HeldOutProbabilities:
    """Probabilities of labelled posts that a model has not learned from.

    A post with a text and pictures has three rows: by both, by its text and by its pictures alone.
    New posts are judged by the rows of the same parts, so that what is promised holds for each
    kind of post; by all rows where there are too few of those for the rule.
    """

    probabilities: Floats  # (N, K), calibrated, rows sum to 1
    classes: NDArray[np.int64]  # (N,)
    parts: NDArray[np.int8]  # (N,) places in `PARTS`; 0 of models saved before there were such
    # Of the posts that the model was trained with, sorted: so `evaluate` can tell them from others.
    digests: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    def __len__(self) -> int:
        """The number of posts, of which the most have one kind of row."""
        return int(np.bincount(self.parts, minlength=1).max(initial=0))

    def trained_with(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether the model was trained with each post of these content keys (M,)."""
        return np.isin(digest_keys(keys), self.digests)

    def sets(self, probabilities: Floats, coverage: float, parts: Parts) -> NDArray[np.bool_]:
        """Return prediction sets (B, K) of posts with these probabilities (B, K) and parts (B,).

        The labels whose probability is at least the threshold that this share of the held-out
        posts' own labels reaches: split conformal prediction with the score 1 - p (Sadinle, Lei &
        Wasserman 2019). A set may be empty. SgmftError for too few held-out posts.
        """
        self.check(Abstention(coverage=coverage))
        all_scores = 1 - _normalized(self.probabilities)[np.arange(len(self.classes)), self.classes]
        members = np.zeros(probabilities.shape, bool)
        for posts, rows in self._alike(parts, 1 / min(coverage, 1 - coverage)):
            scores = all_scores[rows]
            n = len(scores)
            place = min(math.ceil((n + 1) * coverage), n)  # from the smallest, counted from 1
            threshold = np.partition(scores, place - 1)[place - 1]
            members[posts] = 1 - _normalized(probabilities[posts]) <= threshold + ROUNDING
        return members

    def _alike(self, parts: Parts, least: float) -> Iterator[tuple[Parts, NDArray[np.bool_]]]:
        """Yield posts (b,) of the same parts, and the rows (N,), more than `least`, for them."""
        for kind in np.unique(parts):
            rows = self.parts == kind
            enough = rows.sum() > least
            yield np.flatnonzero(parts == kind), rows if enough else np.ones(len(rows), bool)

    def typicality(self, probabilities: Floats, parts: Parts, reject: float = 0.5) -> Doubles:
        """Return the share of posts of known classes that leave the model as undecided, (B,).

        The share of held-out posts whose probabilities have at least the entropy of the post's, a
        conformal p-value: of posts like the held-out ones, a share of at most a has a typicality of
        at most a. Entropy tells posts of no class apart better than the largest probability, the
        energy of the logits and the Mahalanobis distance of the fused features (docs/studies.md).
        There must be enough rows for the share that is rejected.
        """
        all_rows, own = entropy(self.probabilities), entropy(probabilities)
        share = np.zeros(len(own))
        for posts, rows in self._alike(parts, 1 / reject):
            ordered = np.sort(all_rows[rows])
            above = len(ordered) - np.searchsorted(ordered, own[posts], side="left")
            share[posts] = (above + 1) / (len(ordered) + 1)
        return share

    def check(self, rules: Abstention) -> None:
        """Raise SgmftError unless there are enough held-out posts for these rules."""
        coverage, reject = rules.coverage, rules.reject
        rarer = None if coverage is None else min(coverage, 1 - coverage)
        for share, what in (rarer, f"a coverage of {coverage}"), (reject, f"rejecting {reject}"):
            if share is not None and len(self) <= 1 / share:
                number = math.floor(min(1 / share, 1e15))  # the smallest have no finite inverse
                raise SgmftError(TEXTS["few held out"], what=what, least=number, count=len(self))

    def apply(self, probs: Floats, rules: Abstention, parts: Parts) -> Iterator[AbstentionDecision]:
        """Yield the decisions for posts with these probabilities (B, K) and parts (B,)."""
        members = None if rules.coverage is None else self.sets(probs, rules.coverage, parts)
        typical = None if rules.reject is None else self.typicality(probs, parts, rules.reject)
        for i, row in enumerate(probs):
            chosen = None if members is None else members[i]
            seen = None if typical is None else float(typical[i])
            reason, least = None, rules.min_probability or 0.0
            if seen is not None and seen <= (rules.reject or 0.0):
                reason = OF_NONE
            elif chosen is not None and chosen.sum() > 1:
                reason = "several labels are possible"
            elif chosen is not None and not chosen.any():
                reason = "no label is probable enough"
            elif row.max() < least:
                reason = Message("no label has a probability of {least:g}", least=least)
            yield AbstentionDecision(chosen, seen, reason)

    def save(self, folder: Path) -> None:
        """Write them into a model's folder; no posts leave no file there."""
        if len(self) or len(self.digests):
            data = save({name: np.ascontiguousarray(x) for name, x in vars(self).items()})
            write_whole(folder / FILE, data)
        else:
            (folder / FILE).unlink(missing_ok=True)

    @classmethod
    def none(cls, classes: int) -> Self:
        """Return the empty set, for a model of K classes that had no posts held out."""
        return cls(np.zeros((0, classes), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int8))

    @classmethod
    def load(cls, file: Path, classes: int) -> Self:
        """Read what `save` wrote, perhaps nothing; SgmftError if damaged or another model's."""
        if not file.is_file():
            return cls.none(classes)
        bad = f"{file} is damaged: save or copy the model again."
        with raising(bad, OSError, SafetensorError, KeyError, TypeError):
            arrays = load_file(file)
            arrays.setdefault("parts", np.zeros(len(arrays["classes"]), np.int8))
            found = cls(**arrays)
        if found.probabilities.shape != (len(found.parts), classes):
            raise SgmftError(f"{file} belongs to another model: save or copy the model again.")
        return found


def digest_keys(keys: Sequence[str]) -> NDArray[np.uint32]:
    """Return the first 32 bits of content keys, in hexadecimal digits: (M,)."""
    return np.array([int(key[:8], 16) for key in keys], np.uint32)


def entropy(probabilities: Floats) -> Doubles:
    """Return the entropy, in nats, of each row of (N, K): (N,)."""
    wide = probabilities.astype(np.float64)
    return np.asarray(-(wide * np.log(wide.clip(np.finfo(float).tiny))).sum(1))


def _normalized(probabilities: Floats) -> Doubles:
    """Return rows in float64 that sum to 1 to its last digit."""
    wide = probabilities.astype(np.float64)
    return np.asarray(wide / wide.sum(1, keepdims=True))
