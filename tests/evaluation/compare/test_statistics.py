"""Figures of several runs and their differences, against slow loops and scikit-learn."""

import math
from dataclasses import astuple, replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from sgmft.errors import SgmftError
from sgmft.evaluation.calibration import measure_calibration
from sgmft.evaluation.compare import statistics
from sgmft.evaluation.compare.statistics import (
    Difference,
    Splits,
    corrected,
    difference,
    holm,
    resampled_t,
    summarise,
)
from sgmft.evaluation.metrics import Group


def names(classes):
    return [f"label {k}" for k in range(classes)]


def ends(found):
    return found.low, found.high


def random_runs(seed, runs, posts, classes):
    """Probabilities (S, N, K) that know a little, and the truth (N,)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=posts)
    probs = rng.dirichlet(np.full(classes, 0.5), size=(runs, posts))
    return (probs + 0.4 * np.eye(classes)[truth]) / 1.4, truth


def runs_right_at(right):
    """Runs (S, N, 2) that are right where `right` (S, N) says so, when the truth is 0."""
    return np.eye(2)[np.where(right, 0, 1)]


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 40), st.integers(2, 7))
def test_means_and_deviations_are_those_of_the_figures_of_each_seed(seed, runs, posts, classes):
    probabilities, truth = random_runs(seed, runs, posts, classes)
    summary = summarise(probabilities, truth, names(classes))
    assert (summary.seeds, summary.posts) == (runs, posts)
    predicted = probabilities.argmax(axis=2)
    macro = {"average": "macro", "zero_division": 0}
    for spread, figures in (
        (summary.accuracy, [accuracy_score(truth, run) for run in predicted]),
        (summary.macro_f1, [f1_score(truth, run, **macro) for run in predicted]),
        (summary.calibration_error, [measure_calibration(x, truth).error for x in probabilities]),
    ):
        assert spread.mean == pytest.approx(np.mean(figures))
        sd = np.std(figures, ddof=1) if runs > 1 else math.nan
        assert spread.sd == pytest.approx(sd, abs=1e-9, nan_ok=True)
        assert 0 <= spread.low <= spread.high <= 1 + 1e-9


def test_class_scores_are_means_over_seeds():
    probabilities, truth = random_runs(3, runs=3, posts=50, classes=4)
    truth[truth == 2] = 1  # a label without posts
    scores = summarise(probabilities, truth, names(4)).per_class
    expected = [
        precision_recall_fscore_support(truth, run, labels=range(4), zero_division=0)
        for run in probabilities.argmax(axis=2)
    ]
    assert [score.label for score in scores] == names(4)
    for k, score in enumerate(scores):
        found = (score.precision, score.recall, score.f1, score.support)
        assert found == pytest.approx(tuple(np.mean(expected, axis=0)[:, k]))
    assert scores[2].support == 0


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_figures_over_labels_are_scikit_learns_over_those_with_posts():
    probabilities, truth = random_runs(3, runs=3, posts=50, classes=4)
    assert summarise(probabilities, truth, names(4)).auroc == pytest.approx(
        np.mean([roc_auc_score(truth, x, multi_class="ovr") for x in probabilities])
    )
    truth[truth == 2] = 1
    found = summarise(probabilities, truth, names(4))
    expected = [balanced_accuracy_score(truth, x) for x in probabilities.argmax(axis=2)]
    assert found.balanced_accuracy == pytest.approx(np.mean(expected))
    losses = [log_loss(truth, x, labels=range(4)) for x in probabilities]
    assert found.log_loss == pytest.approx(np.mean(losses))
    areas = [roc_auc_score(truth == k, x[:, k]) for x in probabilities for k in (0, 1, 3)]
    assert found.auroc == pytest.approx(np.mean(areas))
    assert math.isnan(summarise(probabilities, np.ones(50), names(4)).auroc)  # nothing to rank


def test_intervals_agree_with_resampling_posts_one_by_one():
    probabilities, truth = random_runs(4, runs=2, posts=120, classes=4)
    summary = summarise(probabilities, truth, names(4))
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(200):
        some = rng.integers(0, len(truth), len(truth))
        seeds = []
        for run in probabilities:
            predicted = run[some].argmax(axis=1)
            macro = f1_score(truth[some], predicted, average="macro", zero_division=0)
            error = measure_calibration(run[some], truth[some]).error
            seeds.append((np.mean(predicted == truth[some]), macro, error))
        draws.append(np.mean(seeds, axis=0))
    spreads = (summary.accuracy, summary.macro_f1, summary.calibration_error)
    for spread, naive in zip(spreads, np.transpose(draws), strict=True):
        low, high = np.percentile(naive, [2.5, 97.5])
        assert (spread.low, spread.high) == pytest.approx((low, high), abs=0.02)
    assert all(spread.low < spread.mean < spread.high for spread in spreads[:2])


def test_every_seed_sees_the_same_resamples():
    probabilities, truth = random_runs(6, runs=1, posts=100, classes=3)
    once, copies = (
        summarise(x, truth, names(3)) for x in (probabilities, np.repeat(probabilities, 5, axis=0))
    )
    assert ends(copies.accuracy) == pytest.approx(ends(once.accuracy))
    assert copies.accuracy.sd == pytest.approx(0)


def test_intervals_are_the_same_every_time(monkeypatch):
    probabilities, truth = random_runs(8, runs=2, posts=60, classes=3)
    summary = summarise(probabilities, truth, names(3))
    assert summarise(probabilities, truth, names(3)) == summary
    monkeypatch.setattr(statistics, "_CHUNK", 60 * 7)  # memory is no reason for another result
    chunked = summarise(probabilities, truth, names(3))
    assert chunked.macro_f1 == pytest.approx(summary.macro_f1)


def test_groups_have_posts_and_mean_accuracy_the_largest_first():
    probabilities = runs_right_at([[True, True, False, True, False], [True, False] + [False] * 3])
    groups = {"author": ["b", "b", "c", "a", "b"], "pictures": [1, 1, 1, 1, 2]}
    truth = np.zeros(5, dtype=int)
    found = summarise(probabilities, truth, ["Home", "Work"], groups).groups
    assert {name: list(values.items()) for name, values in found.items()} == {
        "author": [("b", Group(3, 0.5)), ("a", Group(1, 0.5)), ("c", Group(1, 0.0))],
        "pictures": [("1", Group(4, 0.5)), ("2", Group(1, 0.0))],
    }
    assert summarise(probabilities, truth, ["Home", "Work"]).groups == {}


def slow_difference(row, reference, truth):
    """Per-post differences, exactly, and the p-value over all 2^N signs."""
    right, other = (each.argmax(axis=2) == truth for each in (row, reference))
    posts = [
        Fraction(int(a.sum()), len(a)) - Fraction(int(b.sum()), len(b))
        for a, b in zip(right.T, other.T, strict=True)
    ]
    flips = [
        abs(sum(sign * post for sign, post in zip(signs, posts, strict=True)))
        for signs in product((1, -1), repeat=len(posts))
    ]
    return sum(posts) / len(posts), sum(flip >= abs(sum(posts)) for flip in flips) / len(flips)


@pytest.mark.parametrize(("runs", "others"), [(1, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_p_is_that_of_all_sign_flips(seed, runs, others):
    row, truth = random_runs(seed, runs, posts=9, classes=3)
    reference = np.random.default_rng(seed).dirichlet(np.ones(3), size=(others, 9))
    found = difference(row, reference, truth)
    value, p = slow_difference(row, reference, truth)
    assert found.value == pytest.approx(float(value))
    assert found.p == pytest.approx(p, abs=0.025)
    assert found.p_holm == found.p


def test_the_interval_agrees_with_resampling_posts_one_by_one():
    row, truth = random_runs(11, runs=3, posts=150, classes=4)
    reference = random_runs(12, runs=2, posts=150, classes=4)[0]
    found = difference(row, reference, truth)
    right, other = ((each.argmax(axis=2) == truth).mean(axis=0) for each in (row, reference))
    some = np.random.default_rng(1).integers(0, 150, size=(10_000, 150))
    low, high = np.percentile((right - other)[some].mean(axis=1), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_identical_predictions_do_not_differ_and_chance_is_the_same_every_time():
    row, truth = random_runs(13, runs=3, posts=50, classes=4)
    assert difference(row, row, truth) == Difference(0, 0, 0, 1, 1)
    assert difference(np.repeat(row, 2, axis=0), row, truth).p == 1  # six runs against three
    row, truth = random_runs(18, runs=2, posts=60, classes=3)
    reference = random_runs(19, runs=2, posts=60, classes=3)[0]
    assert difference(row, reference, truth) == difference(row, reference, truth)


def test_swapping_the_sides_changes_the_sign_only():
    row, truth = random_runs(14, runs=2, posts=80, classes=3)
    reference = random_runs(15, runs=3, posts=80, classes=3)[0]
    one, other = difference(row, reference, truth), difference(reference, row, truth)
    assert other.value == -one.value
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=0.02)
    assert other.p == pytest.approx(one.p, abs=0.03)


def test_posts_are_paired():
    truth = np.zeros(400, dtype=int)
    right = np.random.default_rng(16).random((1, 400)) < 0.5
    better = right.copy()
    better[0, np.flatnonzero(~right[0])[:12]] = True
    found = difference(runs_right_at(better), runs_right_at(right), truth)
    assert found.value == pytest.approx(0.03)
    assert 0 < found.low < 0.03 < found.high < 0.06  # unpaired, it would reach below 0
    assert found.p == pytest.approx(2 / 2**12, abs=0.001)
    truth = np.zeros(100, dtype=int)
    found = difference(runs_right_at(np.ones((2, 100))), runs_right_at(np.zeros((1, 100))), truth)
    assert found == Difference(1, 1, 1, 1 / 10_001, 1 / 10_001)  # there is no smaller p


def test_without_a_difference_p_is_uniform_and_the_interval_covers_0():
    rng = np.random.default_rng(17)
    found = []
    for _ in range(250):
        hard = rng.random(60)  # the same for both sides
        row, reference = (runs_right_at(rng.random((3, 60)) < hard) for _ in range(2))
        found.append(difference(row, reference, np.zeros(60, dtype=int)))
    p = np.array([each.p for each in found])
    for level in (0.05, 0.25, 0.5, 0.75):
        error = (level * (1 - level) / len(p)) ** 0.5
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * error)
    assert np.mean([each.low <= 0 <= each.high for each in found]) == pytest.approx(0.95, abs=0.05)


def slow_resampled_t(figures, ratio):
    """Interval and p, term by term; t's distribution by SciPy."""
    mean = sum(figures) / len(figures)
    variance = sum((x - mean) ** 2 for x in figures) / (len(figures) - 1)
    error = math.sqrt(variance * (1 / len(figures) + ratio))
    t = stats.t(len(figures) - 1)
    return mean - t.ppf(0.975) * error, mean + t.ppf(0.975) * error, 2 * t.sf(abs(mean) / error)


@pytest.mark.parametrize("splits", [2, 5, 50])
def test_resampled_t_is_the_formula_and_without_its_correction_the_usual_test(splits):
    figures = np.random.default_rng(splits).normal(0.02, 0.03, splits)
    found = resampled_t(figures, 0.25)
    assert found == pytest.approx(slow_resampled_t(figures.tolist(), 0.25), abs=1e-12)
    usual = stats.ttest_1samp(figures, 0)
    expected = (*usual.confidence_interval(0.95), usual.pvalue)
    assert resampled_t(figures, 0) == pytest.approx(expected, abs=1e-12)
    assert found[2] > expected[2]
    assert resampled_t(np.zeros(3), 0.25) == (0, 0, 1)
    assert resampled_t(np.full(3, 0.02), 0.25) == (-1, 1, 1)  # which vary in a way nobody knows


def test_repeated_folds_of_the_same_posts_are_no_new_posts():
    """Without a difference, ten repeats of five folds find one in 5 % of cases; usual t in half."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        posts = rng.normal(size=50)  # differences of posts, 0 on average
        folds = [posts[x].mean() for _ in range(10) for x in np.split(rng.permutation(50), 5)]
        found.append([resampled_t(np.array(folds), ratio)[2] < 0.05 for ratio in (0.25, 0)])
    corrected_share, usual_share = np.mean(found, axis=0)
    assert corrected_share <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5 and usual_share > 0.4


def test_figures_of_several_splits_are_means_over_splits_and_seeds():
    """Splits of unlike size count alike; their posts have figures of their own."""
    row, truth = random_runs(21, runs=2, posts=90, classes=3)
    reference = row[:1, ::-1]
    splits = Splits(np.repeat([0, 1, 2], [20, 30, 40]), 0.5, disjoint=True)
    summary = summarise(row, truth, names(3), splits=splits)
    parts = [splits.of == j for j in range(3)]
    macro = {"average": "macro", "zero_division": 0}
    for estimate, figure in (
        (summary.accuracy, lambda x, y: accuracy_score(y, x.argmax(1))),
        (summary.macro_f1, lambda x, y: f1_score(y, x.argmax(1), **macro)),
        (summary.calibration_error, lambda x, y: measure_calibration(x, y).error),
    ):
        values = np.array([[figure(run[part], truth[part]) for part in parts] for run in row])
        low, high, _ = slow_resampled_t(values.mean(axis=0).tolist(), 0.5)
        expected = (values.mean(), values.std(ddof=1), max(low, 0), min(high, 1))
        assert astuple(estimate)[:4] == pytest.approx(expected)
        assert np.array(estimate.runs) == pytest.approx(values)
    scored = [[(run[part], truth[part]) for part in parts] for run in row]
    for name, figure in {
        "balanced_accuracy": lambda x, y: balanced_accuracy_score(y, x.argmax(1)),
        "log_loss": lambda x, y: log_loss(y, x, labels=range(3)),
        "auroc": lambda x, y: roc_auc_score(y, x, multi_class="ovr", labels=range(3)),
    }.items():
        values = np.array([[figure(*of) for of in run] for run in scored])
        assert np.array(summary.by_run[name]) == pytest.approx(values)
        assert getattr(summary, name) == pytest.approx(values.mean())
    assert (summary.seeds, summary.splits, summary.posts) == (2, 3, 90)
    found = difference(row, reference, truth, splits)
    gaps = (row.argmax(2) == truth).mean(0) - (reference.argmax(2) == truth).mean(0)
    gaps = [float(gaps[part].mean()) for part in parts]
    assert astuple(found)[:4] == pytest.approx((np.mean(gaps), *slow_resampled_t(gaps, 0.5)))
    assert found.p_posts == difference(row, reference, truth).p  # posts are paired in their folds
    twice = splits._replace(disjoint=False)
    assert difference(row, reference, truth, twice) == replace(found, p_posts=None)
    one = Splits(np.zeros(90, int), 0.25, disjoint=True)
    assert difference(row, reference, truth, one) == difference(row, reference, truth)
    assert summarise(row, truth, names(3), splits=one) == summarise(row, truth, names(3))


@pytest.mark.parametrize(
    ("given_p", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 3 * 0.01, 0.06 kept, 2 * 0.03
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.5, 0.6, 0.02], [1, 1, 0.06]),
        ([0.02, 0.03], [0.04, 0.04]),  # the second step alone would be smaller than the first
    ],
)
def test_holm_of_cases_worked_by_hand(given_p, expected):
    assert holm(given_p) == pytest.approx(expected)
    found = [Difference(0.1, 0, 0.2, p, p) for p in given_p]
    assert [x.p_holm for x in corrected(found)] == holm(given_p)
    over_posts = [replace(x, p=1, p_posts=x.p) for x in found]
    assert [x.p_posts for x in corrected(over_posts)] == holm(given_p)
    assert [replace(x, p_holm=x.p) for x in corrected(found)] == found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.5))
def test_holm_rejects_what_his_procedure_rejects(p_values, level):
    rejected = set()
    for step, k in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[k] * (len(p_values) - step) > level:
            break
        rejected.add(int(k))
    assert {k for k, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_mistakes_are_named():
    row, truth = random_runs(20, runs=2, posts=6, classes=3)
    broken = row.copy()
    broken[1, 2, 0] = np.nan
    for wrong in (broken, 2 * row, row + np.array([2, -2, 0])):
        for call in (
            lambda x: summarise(x, truth, names(3)),
            lambda x: difference(x, row, truth),
            lambda x: difference(row, x, truth),
        ):
            with pytest.raises(SgmftError, match="not probabilities"):
                call(wrong)
    with pytest.raises(SgmftError, match="group 'author' has 1"):
        summarise(row, truth, names(3), {"author": ["a"]})
