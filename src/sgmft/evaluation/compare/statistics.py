"""Statistics of a comparison: figures over runs with intervals, and differences with p-values.

Of one split, intervals and p-values speak of other posts of the same kind, with the trained models
as they are; how much training itself varies is the standard deviation over seeds. Of several, they
speak of other training and test posts, too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from sgmft.evaluation import metrics
from sgmft.evaluation.calibration import BINS, bin_index
from sgmft.models.arrays import Doubles, Flags, Integers, Reals

FLIPS = 10_000  # random sign flips behind each p-value, beside the observed signs
Groups = Mapping[str, Sequence[str]]  # column -> value of each post
_CHUNK = 4_000_000  # resampled posts held at once: 32 MB


class Splits(NamedTuple):
    """The J splits behind N tested posts."""

    of: Integers  # (N,) which split each belongs to, from 0
    ratio: float  # test posts for each training post, as a mean over splits
    disjoint: bool  # whether no post is tested twice


@dataclass(frozen=True)
class Estimate:
    """A figure over the runs of S seeds in J splits, with the 95 % interval of its mean."""

    mean: float
    sd: float  # over runs, n - 1; NaN for one run
    low: float
    high: float
    runs: Sequence[Sequence[float]] = ()  # (S, J) of each run


@dataclass(frozen=True)
class Difference:
    """Accuracy of a row minus that of the reference, on the same posts."""

    value: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, of the paired test
    p_holm: float  # corrected for the number of rows compared with the reference
    p_posts: float | None = None  # of splits that test no post twice: over posts, and corrected


@dataclass(frozen=True)
class Summary:
    """The figures of one row."""

    seeds: int  # S, how many runs are behind them
    posts: int  # N, how many test posts
    accuracy: Estimate  # in 0..1, as the next two
    macro_f1: Estimate
    calibration_error: Estimate  # the expected calibration error
    per_class: Sequence[metrics.ClassScore]  # means over seeds, one entry a label
    groups: Mapping[str, Mapping[str, metrics.Group]] = field(default_factory=dict)  # largest first
    splits: int = 1  # J
    confusion: Sequence[Sequence[int]] = ()  # by true and predicted label; the last are of none
    # means over runs; NaN where a row gives no probabilities, but for the first
    balanced_accuracy: float = math.nan  # mean recall of the labels with test posts
    log_loss: float = math.nan  # of the true label, in nats
    auroc: float = math.nan  # mean over these labels, each against the rest
    by_run: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)  # (S, J) of each


def summarise(
    probabilities: Reals,
    truth: Integers,
    labels: Sequence[str],
    groups: Groups | None = None,
    splits: Splits | None = None,
) -> Summary:
    """Evaluate S runs of one method on the same N posts, those of all splits together.

    Each interval is the 95 % percentile bootstrap (Efron, 1979) of the mean over seeds, from 2,000
    resamples of the posts, each the same for all seeds. Resampling raises the calibration error,
    since chance differences within bins add up, so that its interval may lie above its mean. Of
    several splits, means are over splits and seeds, and intervals those of `resampled_t`.

    From probabilities (S, N, K), whose columns are in the order of `labels`, or (S, N, K + 1) of
    which the last is of no label, and the numbers (N,) of the true labels; SgmftError for others.
    """
    probs, true = np.asarray(probabilities, np.float64), np.asarray(truth, np.int64)
    metrics.check_probabilities(probs)
    (runs, posts, outputs), classes = probs.shape, len(labels)
    predicted, top = probs.argmax(axis=2), probs.max(axis=2)  # (S, N)
    # right (0 or 1) minus top probability, in the column of the post's bin: (S, N, BINS)
    gaps = np.eye(BINS)[bin_index(top, BINS)] * ((predicted == true) - top)[..., None]

    def figures(counts: Integers) -> Doubles:
        """(S, 3 + K, B) for B samples, given as how often each post is in them (B, N)."""
        found = []
        for run, gap in zip(predicted, gaps, strict=True):
            errors = np.abs(counts.astype(np.float64) @ gap).sum(axis=1) / counts.sum(axis=1)
            found.append((errors, *metrics.accuracy_and_f1(counts, true, run, classes)))
        return np.array(found)

    masks = _masks(splits, posts)  # (J, N)
    found = figures(masks)  # (S, 3 + K, J)
    if splits is not None and len(masks) > 1:
        ends = [resampled_t(row, splits.ratio)[:2] for row in found.mean(axis=0)]
        low, high = np.clip(ends, 0, 1).T
    else:
        rng, size = np.random.default_rng([0, 0]), max(1, _CHUNK // posts)
        chunks = [min(size, metrics.RESAMPLES - x) for x in range(0, metrics.RESAMPLES, size)]
        even = np.full(posts, 1 / posts)
        drawn = [figures(rng.multinomial(posts, even, size=n)).mean(axis=0) for n in chunks]
        low, high = np.percentile(np.concatenate(drawn, axis=1), [2.5, 97.5], axis=1)
    sd = found.std(axis=(0, 2), ddof=1) if runs * len(masks) > 1 else np.full(len(low), np.nan)
    table = np.stack([found.mean(axis=(0, 2)), sd, low, high], axis=1)  # (3 + K, 4)
    right = (predicted == true).mean(axis=0)  # (N,)
    by_group = {x: metrics.accuracy_by_value(x, y, right) for x, y in (groups or {}).items()}
    confusions = [metrics.count_confusions(true, run, outputs) for run in predicted]
    intervals = [metrics.Interval(x, low, high) for x, _, low, high in table[3:].tolist()]
    by_run = [metrics.class_scores(confusion, labels, intervals) for confusion in confusions]
    scores = []
    for of_label in zip(*by_run, strict=True):
        values = {x: [getattr(one, x) for one in of_label] for x in ("precision", "recall", "f1")}
        scores.append(replace(of_label[0], **{x: float(np.mean(y)) for x, y in values.items()}))
    each = zip(table.tolist(), found.swapaxes(0, 1).tolist(), strict=True)
    error, accuracy, macro_f1, *_ = (Estimate(a, b, c, d, x) for (a, b, c, d), x in each)
    common = accuracy, macro_f1, error, scores, by_group, len(masks), np.sum(confusions, 0).tolist()
    each_run = _by_run(probs, true, masks.astype(bool), graded=outputs == classes)
    known = (x[np.isfinite(x)] for x in each_run)
    balanced, loss, area = (float(x.mean()) if len(x) else math.nan for x in known)
    by_name = dict(zip(("balanced_accuracy", "log_loss", "auroc"), each_run.tolist(), strict=True))
    return Summary(runs, posts, *common, balanced, loss, area, by_name)


def _by_run(probs: Doubles, true: Integers, masks: Flags, graded: bool) -> Doubles:
    """(3, S, J): balanced accuracy, and if graded log loss and AUROC; NaN where there is none."""
    found = np.full((3, len(probs), len(masks)), math.nan)
    for j, mask in enumerate(masks):
        own = true[mask]
        for s, run in enumerate(probs[:, mask]):
            confusion = metrics.count_confusions(own, run.argmax(axis=1), run.shape[1])
            found[0, s, j] = metrics.balanced_accuracy(confusion)
            if graded and (area := metrics.area_under_roc(run, own)) is not None:
                found[1:, s, j] = metrics.log_loss(run, own), area
    return found


def difference(
    probabilities: Reals, reference: Reals, truth: Integers, splits: Splits | None = None
) -> Difference:
    """Compare the accuracy of one method with that of a reference on the same posts.

    The value is the mean over posts of the share of runs that are right, minus the same of the
    reference. Its interval is the 95 % paired percentile bootstrap over posts. The p-value is of
    the two-sided paired randomisation test (Fisher, 1935): how often random signs of the posts'
    differences make a mean as far from 0 as the observed one, which is counted too, so that p is
    at least 1/10,001. `p_holm` is p until `corrected` fills it. Of several splits, value, interval
    and p are those of `resampled_t`, and `p_posts` is what p of one split would be.

    From probabilities (S, N, K) and (S', N, K), SgmftError for anything else, and truth (N,).
    """
    for probs in (probabilities, reference):
        metrics.check_probabilities(probs)
    hits = (probabilities.argmax(axis=2) == truth).sum(axis=0)
    other_hits = (reference.argmax(axis=2) == truth).sum(axis=0)
    scale = len(probabilities) * len(reference) * len(truth)
    whole = hits * len(reference) - other_hits * len(probabilities)  # (N,), so ties are exact
    # Posts of the same difference are alike: drawing posts is drawing how many there are of each.
    values, posts = np.unique(whole, return_counts=True)
    rng = np.random.default_rng([0, 0])
    draws = rng.multinomial(len(truth), posts / len(truth), size=metrics.RESAMPLES) @ values
    low, high = np.percentile(draws / scale, [2.5, 97.5])
    kept = np.random.default_rng([0, 1]).binomial(posts, 0.5, size=(FLIPS, len(posts)))
    flipped = (2 * kept - posts) @ values  # (FLIPS,)
    p = (1 + (np.abs(flipped) >= abs(whole.sum())).sum()) / (1 + FLIPS)
    masks = _masks(splits, len(truth))
    if splits is not None and len(masks) > 1:
        gaps = masks @ whole / masks.sum(axis=1) / (scale / len(truth))  # (J,)
        low, high, p_splits = resampled_t(gaps, splits.ratio)
        over_posts = float(p) if splits.disjoint else None
        return Difference(float(gaps.mean()), low, high, p_splits, p_splits, over_posts)
    return Difference(float(whole.sum() / scale), float(low), float(high), float(p), float(p))


def resampled_t(figures: Doubles, ratio: float) -> tuple[float, float, float]:
    """Return the 95 % interval of the mean of J splits' figures, and the p-value of its being 0.

    The corrected resampled t-test of Nadeau and Bengio (2003). Splits share training posts, so that
    their figures vary together: the variance of the mean is (1/J + test posts / training posts)
    times that of the figures. t has J - 1 degrees of freedom. Figures that are all the same, but
    not 0, do not tell how they vary: the interval is -1 to 1 then, and p 1.
    """
    splits, mean = len(figures), float(figures.mean())
    error = math.sqrt((1 / splits + ratio) * figures.var(ddof=1))
    reach = float(special.stdtrit(splits - 1, 0.975)) * error
    if not error:
        return (mean, mean, 1.0) if mean == 0 else (-1.0, 1.0, 1.0)
    return mean - reach, mean + reach, 2 * float(special.stdtr(splits - 1, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm, 1979, step-down), in the given order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return list(map(float, np.minimum(steps, 1)[np.argsort(order)]))


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with `p_holm` corrected for how many there are."""
    adjusted, over_posts = holm([each.p for each in differences]), list[float | None]()
    over_posts += holm([each.p_posts for each in differences if each.p_posts is not None])
    rows = zip(differences, adjusted, over_posts or [None] * len(adjusted), strict=True)
    return [replace(each, p_holm=p, p_posts=posts) for each, p, posts in rows]


def _masks(splits: Splits | None, posts: int) -> Integers:
    """(J, N): 1 where a post belongs to a split."""
    of = np.zeros(posts, np.int64) if splits is None else splits.of
    return np.asarray(of == np.arange(of.max() + 1)[:, None], np.int64)
