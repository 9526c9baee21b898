"""Metrics of predictions: accuracy and macro-F1 with intervals, by class and group, selective."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sgmft.errors import TEXTS, SgmftError
from sgmft.evaluation.calibration import Calibration, measure_calibration, rescale_probabilities
from sgmft.models.arrays import Array, Doubles, Flags, Integers, Reals

RESAMPLES = 2000  # of the bootstrap, behind each interval
LEVELS = (0.8, 0.9, 0.95)  # coverages of prediction sets that an evaluation shows
POINTS = 20  # of the curve of accuracy against the share of answered posts
_Rng = np.random.Generator


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % percentile bootstrap interval (Efron, 1979), over posts.

    It says how much the figure would move with other posts, not with another training run, and has
    no width where every post of a group is right, however few there are.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """One label: of the posts given it, the share that are it (precision); of those that are it,
    the share that were given it (recall); their harmonic mean (F1), with its interval. 0 if none.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int  # posts that truly are it
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """The posts that share one value of a column, and the accuracy on them."""

    posts: int
    accuracy: float


@dataclass(frozen=True)
class GroupScore:
    """Accuracy on the posts that share one value of a column."""

    posts: int
    accuracy: Interval


@dataclass(frozen=True)
class PartsScore(GroupScore):
    """The posts that have a text, pictures, or both."""

    calibration_error: float  # see `Calibration`
    covered: dict[str, float]  # promised coverage, "0.9" -> share whose true label is in the set


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
    """The posts whose probability is at least `min_probability`."""

    min_probability: float
    answered: float  # their share
    accuracy: float


@dataclass(frozen=True)
class Selective:
    """Both ways to abstain."""

    sets: list[SetScore]  # by promised coverage, ascending; none without held-out posts
    curve: list[CurvePoint]  # from all posts to the surest twentieth


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one set of posts."""

    labels: list[str]  # the K classes, in the order of every table here
    posts: int  # how many posts were evaluated
    accuracy: Interval  # the share of posts whose most probable label is the true one
    macro_f1: Interval  # mean F1 of the classes that occur in the truth or in the predictions
    balanced_accuracy: float  # mean recall of the labels that posts have
    auroc: float | None  # mean over these labels, each against the rest; None of one label
    log_loss: float  # mean of -log(probability of the true label), in nats
    temperature: float  # that the probabilities were scaled by, its mean; 1 leaves them
    calibration: Calibration  # of the probabilities
    uncalibrated: Calibration  # the same before they were scaled
    selective: Selective  # prediction sets, and accuracy above a least probability
    per_class: list[ClassScore]  # one entry for each label
    confusion: list[list[int]]  # (K, K) posts; rows are true labels, columns are predicted ones
    parts: dict[str, PartsScore]  # what a post has -> figures; none where it is not known
    groups: dict[str, dict[str, GroupScore]]  # column -> value -> figures, the largest group first

    def to_dict(self) -> dict[str, Any]:
        """Return lists, dicts, strings and finite numbers only, ready for JSON."""
        return asdict(self)


def evaluate(
    probabilities: Reals,  # (N, K), rows sum to 1, columns in the order of the K `labels`
    truth: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,  # columns of N values each
    temperature: float | Doubles = 1.0,  # the probabilities were scaled by it, of each post (N,)
    sets: Callable[[Reals, float], Flags] | None = None,  # `HeldOutProbabilities.sets`
    parts: Sequence[str] | None = None,  # what each post has, for figures by it
) -> Evaluation:
    """Compare predicted probabilities with the true labels.

    Definitions agree with scikit-learn's: macro-F1 as `f1_score(average="macro",
    zero_division=0)`, over the classes that occur in the truth or in the predictions; log loss as
    `log_loss`, with probabilities kept 2.2e-16 away from 0 and 1. A tie goes to the first label.
    Coverages that `sets` refuses are left out. SgmftError for no posts, an unknown label, one
    twice, other lengths, or no probabilities.
    """
    labels, truth = list(labels), list(truth)
    probs = np.asarray(probabilities, dtype=np.float64)
    true = _check(probs, truth, labels)
    predicted = probs.argmax(axis=1)  # (N,)
    confusion = count_confusions(true, predicted, len(labels))
    rows, cells = np.nonzero(confusion)
    counts = confusion[rows, cells]  # of posts, which are drawn anew
    shares = counts / len(truth)
    drawn = np.random.default_rng([0, 0]).multinomial(len(truth), shares, size=RESAMPLES)
    table = accuracy_and_f1(np.vstack([counts, drawn]), rows, cells, len(labels))
    accuracy, macro_f1, *of_labels = (_interval(x[0], x[1:]) for x in table)
    per_class = class_scores(confusion, labels, of_labels)
    members: dict[float, Flags] = {}
    if sets is not None:
        for level in LEVELS:
            with suppress(SgmftError):  # it cannot be promised
                members[level] = sets(probabilities, level)
    scales = np.broadcast_to(np.asarray(temperature, np.float64), len(truth))
    before = probs if (scales == 1).all() else rescale_probabilities(probs, 1 / scales[:, None])
    right, columns = true == predicted, (groups or {}).items()
    set_scores = [score_sets(found, true, labels, level) for level, found in members.items()]
    return Evaluation(
        labels=labels,
        posts=len(truth),
        accuracy=accuracy,
        macro_f1=macro_f1,
        balanced_accuracy=balanced_accuracy(confusion),
        auroc=area_under_roc(probs, true),
        log_loss=log_loss(probs, true),
        temperature=float(scales.mean()),
        calibration=measure_calibration(probs, true),
        uncalibrated=measure_calibration(before, true),
        selective=Selective(set_scores, accuracy_curve(probs, true)),
        per_class=per_class,
        confusion=confusion.tolist(),
        parts=_by_parts(parts or (), probs, true, members, np.random.default_rng([0, 2])),
        groups={x: _by_value(x, y, right, np.random.default_rng([0, 1])) for x, y in columns},
    )


def _check(probs: Doubles, truth: list[str], labels: list[str]) -> Integers:
    """Return the true classes (N,) as numbers; raise SgmftError for what cannot be evaluated."""
    if not truth:
        raise SgmftError("there are no posts with a label to evaluate on")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise SgmftError(f"labels given twice: {', '.join(twice)}")
    if unknown := sorted(set(map(str, truth)) - set(labels)):
        named = ", ".join(unknown[:10]) + (", …" if len(unknown) > 10 else "")
        raise SgmftError(TEXTS["no such labels"], names=named, known=", ".join(labels))
    if probs.shape != (n := len(truth), k := len(labels)):
        raise SgmftError(TEXTS["other shape"], found=probs.shape, posts=n, labels=k)
    check_probabilities(probs)
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[label] for label in truth], dtype=np.int64)


def check_probabilities(probs: Reals) -> None:
    """Raise SgmftError where rows, along the last axis, are not probabilities."""
    sums_to_1 = np.allclose(probs.sum(axis=-1), 1, atol=1e-2)
    if not sums_to_1 or probs.min() < 0:  # NaN fails the first test
        raise SgmftError("these are not probabilities: each row must be 0 or more and sum to 1")


def accuracy_and_f1(counts: Integers, rows: Integers, columns: Integers, classes: int) -> Doubles:
    """Return accuracy, macro-F1 and each F1 (2 + K, B) of B matrices, of counts (B, cells)."""
    weights, kinds = counts.astype(np.float64), np.arange(classes)
    of_row, of_column = rows[:, None] == kinds, columns[:, None] == kinds  # (cells, K)
    hits = weights @ (of_row & of_column)  # (B, K)
    either = weights @ of_row + weights @ of_column  # true + predicted; 0: occurs in neither
    f1 = 2 * hits / np.maximum(either, 1)
    macro_f1 = f1.sum(axis=1) / (either > 0).sum(axis=1)
    return np.stack([hits.sum(axis=1) / weights.sum(axis=1), macro_f1, *f1.T])


def _interval(value: float, draws: Doubles) -> Interval:
    return Interval(float(value), *np.percentile(draws, [2.5, 97.5]).tolist())


def count_confusions(true: Integers, predicted: Integers, classes: int) -> Integers:
    """Return the confusion matrix (K, K), true classes as rows."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_scores(
    confusion: Integers, labels: Sequence[str], intervals: Iterable[Interval]
) -> list[ClassScore]:
    """Return precision, recall and F1 of each of K labels from their confusion matrix (K, K)."""
    hits, support, given = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = hits / np.maximum(given, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(given + support, 1)
    columns: list[Any] = [x.tolist() for x in (precision, recall, f1, support)]
    columns += zip(*((x.low, x.high) for x in intervals), strict=True)
    return [ClassScore(*row) for row in zip(labels, *columns, strict=False)]


def balanced_accuracy(confusion: Integers) -> float:
    """Return the mean recall of the labels that posts have, from their confusion matrix (K, K)."""
    hits, support = confusion.diagonal(), confusion.sum(axis=1)
    return float((hits[support > 0] / support[support > 0]).mean())


def log_loss(probs: Doubles, true: Integers) -> float:
    """Return the mean of -log(probability of the true label), in nats, as scikit-learn's."""
    eps = np.finfo(np.float64).eps
    return float(-np.log(np.clip(probs[np.arange(len(true)), true], eps, 1 - eps)).mean())


def area_under_roc(probs: Doubles, true: Integers) -> float | None:
    """Return the mean area under the ROC curve of labels against the rest; None of one label.

    It is the share of pairs of a post of the label and another in which the first is the likelier,
    ties counting half (Hanley & McNeil 1982), as scikit-learn's `roc_auc_score`.
    """
    areas = []
    for k in np.unique(true):
        others = np.sort(probs[true != k, k])
        ranks = [np.searchsorted(others, probs[true == k, k], side) for side in ("left", "right")]
        if len(others):
            areas.append(np.mean(ranks) / len(others))
    return float(np.mean(areas)) if areas else None


def _by_value(name: str, column: Sequence[str], right: Flags, rng: _Rng) -> dict[str, GroupScore]:
    scores = {}
    for value, group in accuracy_by_value(name, column, right).items():  # cells: right, wrong
        draws = rng.binomial(group.posts, group.accuracy, size=RESAMPLES) / group.posts
        scores[value] = GroupScore(group.posts, _interval(group.accuracy, draws))
    return scores


def _by_parts(
    parts: Sequence[str], probs: Doubles, true: Integers, sets: Mapping[float, Flags], rng: _Rng
) -> dict[str, PartsScore]:
    scores, right = {}, probs.argmax(1) == true
    for name, found in _by_value("parts", parts, right, rng).items() if parts else ():
        rows = np.flatnonzero(np.array(parts) == name)
        error = measure_calibration(probs[rows], true[rows]).error
        covered = {f"{level:g}": float(x[rows, true[rows]].mean()) for level, x in sets.items()}
        scores[name] = PartsScore(found.posts, found.accuracy, error, covered)
    return scores


def accuracy_by_value(name: str, column: Sequence[str], right: Array) -> dict[str, Group]:
    """Return posts and accuracy of each value of a column, the largest group first."""
    if len(column) != len(right):
        raise SgmftError(f"group {name!r} has {len(column)} values for {len(right)} posts")
    names = np.array(list(map(str, column)), dtype=object)
    values, which, posts = np.unique(names, return_inverse=True, return_counts=True)
    shares = np.bincount(which, weights=right) / posts
    largest_first = np.argsort(-posts, kind="stable")
    return {str(values[k]): Group(int(posts[k]), float(shares[k])) for k in largest_first}


def score_sets(members: Flags, true: Integers, labels: Sequence[str], promised: float) -> SetScore:
    """Evaluate prediction sets (N, K) of posts whose classes (N,) are known."""
    hit, size = members[np.arange(len(true)), true], members.sum(1)
    single = size == 1
    of_class = {label: hit[true == k] for k, label in enumerate(labels)}
    per_class = {x: float(hits.mean()) if len(hits) else None for x, hits in of_class.items()}
    achieved, labels_in_set, answered = (float(x.mean()) for x in (hit, size, single))
    accuracy = float(hit[single].mean()) if single.any() else None
    return SetScore(promised, achieved, per_class, labels_in_set, answered, accuracy)


def accuracy_curve(probabilities: Reals, true: Integers) -> list[CurvePoint]:
    """Return the accuracy of the surest of N posts, for `POINTS` shares, ties together."""
    top, right = probabilities.max(1), probabilities.argmax(1) == true
    limits = np.sort(top)[(np.arange(POINTS) * len(top)) // POINTS]
    kept = {float(limit): top >= limit for limit in limits}
    return [CurvePoint(x, float(at.mean()), float(right[at].mean())) for x, at in kept.items()]
