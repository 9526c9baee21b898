"""Figures of several runs, their intervals and calibration, against slow loops and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import random_runs, runs_right_at
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from sgmft.errors import SgmftError
from sgmft.evaluation.calibration import measure_calibration
from sgmft.evaluation.compare import statistics
from sgmft.evaluation.compare.statistics import difference, summarise
from sgmft.evaluation.metrics import evaluate


def names(classes):
    return [f"label {k}" for k in range(classes)]


def slow_calibration_error(probabilities, truth, bins):
    """Guo et al. (2017), as written: bin m is ((m - 1) / bins, m / bins]."""
    error = 0.0
    for m in range(1, bins + 1):
        inside = [
            (max(row), int(np.argmax(row)) == true)
            for row, true in zip(probabilities.tolist(), truth, strict=True)
            if (m - 1) / bins < max(row) <= m / bins
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(top for top, _ in inside) / len(inside)
            error += len(inside) / len(truth) * abs(accuracy - confidence)
    return error


# Summaries


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 40), st.integers(2, 7))
def test_means_and_deviations_are_those_of_the_figures_of_each_seed(seed, runs, posts, classes):
    probabilities, truth = random_runs(seed, runs, posts, classes)
    summary = summarise(probabilities, truth, names(classes))
    assert (summary.seeds, summary.posts) == (runs, posts)
    predicted = probabilities.argmax(axis=2)
    for spread, figures in (
        (summary.accuracy, [accuracy_score(truth, run) for run in predicted]),
        (
            summary.macro_f1,
            [f1_score(truth, run, average="macro", zero_division=0) for run in predicted],
        ),
        (
            summary.calibration_error,
            [slow_calibration_error(run, truth, 15) for run in probabilities],
        ),
    ):
        mean = sum(figures) / runs
        assert spread.mean == pytest.approx(mean)
        if runs == 1:
            assert math.isnan(spread.sd)
        else:
            variance = sum((figure - mean) ** 2 for figure in figures) / (runs - 1)
            assert spread.sd == pytest.approx(math.sqrt(variance), abs=1e-9)
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
        assert spread.low == pytest.approx(low, abs=0.02)
        assert spread.high == pytest.approx(high, abs=0.02)
    for spread in spreads[:2]:
        assert spread.low < spread.mean < spread.high


def test_one_run_has_the_figures_of_its_evaluation():
    (run,), truth = random_runs(5, runs=1, posts=200, classes=3)
    summary = summarise(run[None], truth, names(3))
    alone = evaluate(run, [names(3)[k] for k in truth], names(3))
    assert list(summary.per_class) == alone.per_class
    for spread, interval in (
        (summary.accuracy, alone.accuracy),
        (summary.macro_f1, alone.macro_f1),
    ):
        assert spread.mean == pytest.approx(interval.value)
        assert (spread.low, spread.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_every_seed_sees_the_same_resamples():
    probabilities, truth = random_runs(6, runs=1, posts=100, classes=3)
    once = summarise(probabilities, truth, names(3))
    copies = summarise(np.repeat(probabilities, 5, axis=0), truth, names(3))
    assert copies.accuracy[2:] == pytest.approx(once.accuracy[2:])
    assert copies.accuracy.sd == pytest.approx(0)


def test_intervals_are_those_of_the_normal_curve_where_there_are_many_posts():
    for posts in (200, 1800):
        probabilities, truth = random_runs(7, runs=2, posts=posts, classes=3)
        right = (probabilities.argmax(axis=2) == truth).mean(axis=0)
        half = 1.96 * right.std() / posts**0.5
        (mean, _, low, high) = summarise(probabilities, truth, names(3)).accuracy
        assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_the_seed_alone_decides_the_intervals(monkeypatch):
    probabilities, truth = random_runs(8, runs=2, posts=60, classes=3)
    summary = summarise(probabilities, truth, names(3), seed=1)
    assert summarise(probabilities, truth, names(3), seed=1) == summary
    assert summarise(probabilities, truth, names(3), seed=2).macro_f1 != summary.macro_f1
    monkeypatch.setattr(statistics, "_CHUNK", 60 * 7)  # memory is no reason for another result
    chunked = summarise(probabilities, truth, names(3), seed=1)
    assert chunked.macro_f1 == pytest.approx(summary.macro_f1)


def test_groups_have_posts_and_mean_accuracy_the_largest_first():
    probabilities = runs_right_at([[True, True, False, True, False], [True, False] + [False] * 3])
    groups = {"author": ["b", "b", "c", "a", "b"], "pictures": [1, 1, 1, 1, 2]}
    truth = np.zeros(5, dtype=int)
    found = summarise(probabilities, truth, ["Home", "Work"], groups).groups
    assert {name: list(values) for name, values in found.items()} == {
        "author": ["b", "a", "c"],
        "pictures": ["1", "2"],
    }
    assert found["author"] == {"b": (3, 0.5), "a": (1, 0.5), "c": (1, 0.0)}
    assert found["pictures"] == {"1": (4, 0.5), "2": (1, 0.0)}
    assert summarise(probabilities, truth, ["Home", "Work"]).groups == {}


# Mistakes


def test_mistakes_are_named():
    row, truth = random_runs(20, runs=2, posts=6, classes=3)
    broken = row.copy()
    broken[1, 2, 0] = np.nan
    empty = np.zeros((2, 0, 3)), np.zeros(0, dtype=int)
    for call, words in (
        (lambda: summarise(*empty, names(3)), "no posts"),
        (lambda: difference(empty[0], *empty), "no posts"),
        (lambda: summarise(row[0], truth, names(3)), "do not fit"),
        (lambda: summarise(row[:0], truth, names(3)), "do not fit"),
        (lambda: summarise(row, truth[:5], names(3)), "do not fit"),
        (lambda: summarise(row, truth[:, None], names(3)), "do not fit"),
        (lambda: difference(row, row[:, :5], truth), "do not fit"),
        (lambda: difference(row, random_runs(0, 2, 6, 4)[0], truth), "same labels"),
        (lambda: summarise(row, truth, names(4)), "4 labels"),
        (lambda: summarise(row, truth, names(3), {"author": ["a"]}), "group 'author' has 1"),
        (lambda: summarise(broken, truth, names(3)), "not probabilities"),
        (lambda: difference(row, broken, truth), "not probabilities"),
        (lambda: summarise(row + np.array([2, -2, 0]), truth, names(3)), "not probabilities"),
        (lambda: summarise(2 * row, truth, names(3)), "not probabilities"),
        (lambda: summarise(row, truth + 3, names(3)), "whole numbers from 0 to 2"),
        (lambda: summarise(row, truth - 3, names(3)), "whole numbers from 0 to 2"),
        (lambda: summarise(row, truth + 0.5, names(3)), "whole numbers from 0 to 2"),
    ):
        with pytest.raises(SgmftError, match=words):
            call()
