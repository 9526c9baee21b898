"""Differences between rows and their p-values, against all sign flips and Holm by hand."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_runs import random_runs, runs_right_at

from sgmft.evaluation.compare.statistics import Difference, corrected, difference, holm

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=20)

# Differences


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


def test_identical_predictions_do_not_differ():
    row, truth = random_runs(13, runs=3, posts=50, classes=4)
    assert difference(row, row, truth) == Difference(0, 0, 0, 1, 1)
    assert difference(np.repeat(row, 2, axis=0), row, truth).p == 1  # six runs against three


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


def test_a_clear_difference_has_the_smallest_p():
    truth = np.zeros(100, dtype=int)
    found = difference(runs_right_at(np.ones((2, 100))), runs_right_at(np.zeros((1, 100))), truth)
    assert found == Difference(1, 1, 1, 1 / 10_001, 1 / 10_001)


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


def test_the_same_seed_gives_the_same_difference():
    row, truth = random_runs(18, runs=2, posts=60, classes=3)
    reference = random_runs(19, runs=2, posts=60, classes=3)[0]
    one, again, other = (difference(row, reference, truth, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.value == other.value
    assert one.p != other.p


# Holm


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


@given(SHARES)
def test_holm_keeps_the_order_and_only_raises_p(p_values):
    adjusted = holm(p_values)
    largest = len(p_values)
    for p, raised in zip(p_values, adjusted, strict=True):
        assert p <= raised <= min(1, largest * p)
    by_p = [adjusted[k] for k in np.argsort(p_values)]
    assert by_p == sorted(by_p)
    assert by_p[0] == min(1, largest * min(p_values))
    assert holm(p_values[::-1])[::-1] == adjusted  # whatever the order they come in


@given(SHARES, st.floats(0.001, 0.5))
def test_holm_rejects_what_his_procedure_rejects(p_values, level):
    rejected = set()
    for step, k in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[k] * (len(p_values) - step) > level:
            break
        rejected.add(int(k))
    assert {k for k, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_corrected_fills_in_holm_and_nothing_else():
    found = [Difference(0.1, 0, 0.2, p, p) for p in (0.01, 0.2)]
    assert corrected(found) == [found[0]._replace(p_holm=0.02), found[1]]
    assert corrected([]) == []
