"""Calibration figures against slow loops, and temperatures against what made the posts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from sgmft.evaluation.calibration import (
    fit_temperature,
    measure_calibration,
    rescale_probabilities,
)
from sgmft.evaluation.metrics import evaluate


def posts(n=300, classes=4, seed=0, temperature=1.0):
    """Logits (n, K) and labels drawn from softmax(logits / temperature)."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=rng)
    labels = (logits / temperature).softmax(-1).multinomial(1, generator=rng)[:, 0]
    return logits, labels


def slow(probabilities, true, bins):
    """Calibration error and Brier score, post by post."""
    members = {k: [] for k in range(bins)}
    brier = 0.0
    for row, label in zip(probabilities, true, strict=True):
        top = max(row)
        k = next(k for k in range(bins) if top <= (k + 1) / bins or k == bins - 1)
        members[k].append((top, list(row).index(top) == label))
        brier += sum((p - (i == label)) ** 2 for i, p in enumerate(row))
    error = 0.0
    for found in members.values():
        if found:
            sure = sum(p for p, _ in found) / len(found)
            error += len(found) * abs(sum(right for _, right in found) / len(found) - sure)
    return error / len(true), brier / len(true), [len(found) for found in members.values()]


@given(
    st.integers(0, 1000), st.integers(1, 40), st.integers(2, 6), st.sampled_from([1, 2, 7, 10, 15])
)
def test_figures_are_those_of_a_slow_loop(seed, n, classes, bins):
    logits, labels = posts(n, classes, seed)
    p, true = logits.double().softmax(-1).numpy(), labels.numpy()
    found = measure_calibration(p, true, bins)
    error, brier, counts = slow(p, true, bins)
    assert found.error == pytest.approx(error) and found.brier == pytest.approx(brier)
    assert [each.posts for each in found.bins] == counts
    assert sum(counts) == n and len(found.bins) == bins
    for each in found.bins:
        assert not each.posts or each.low - 1e-12 <= each.probability <= each.high + 1e-12
        assert 0 <= each.accuracy <= 1


@pytest.mark.parametrize(
    ("probabilities", "true", "bins", "error", "brier"),
    [
        (np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 0], 15, 0, 0),
        (np.eye(3)[[0, 1, 2, 0]], [1, 2, 0, 1], 15, 1, 2),
        (np.eye(2)[[0, 0, 0, 0]], [0, 0, 1, 1], 15, 0.5, 1),
        (np.full((4, 2), [0.75, 0.25]), [0, 0, 0, 1], 15, 0, 0.375),
        # 2 of 4 posts at 0.9, one right; 2 at 0.6, both right: (2 * 0.4 + 2 * 0.4) / 4
        ([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]], [0] * 4, 15, 0.4, 0.57),
        # in one bin, errors of opposite sign cancel: 3 of 4 right at a mean of 0.75
        ([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]], [0] * 4, 1, 0, 0.57),
    ],
)
def test_cases_worked_by_hand(probabilities, true, bins, error, brier):
    found = measure_calibration(np.asarray(probabilities), np.array(true), bins)
    assert (found.error, found.brier) == pytest.approx((error, brier))


@pytest.mark.parametrize("m", range(8, 16))
def test_a_probability_on_an_edge_belongs_to_the_bin_below(m):
    below, edge = m / 15 - 0.01, m / 15
    for other, posts in ((edge, 2), (min(edge + 1e-9, 1), 2 if m == 15 else 1)):
        probs = np.array([[below, 1 - below], [other, 1 - other]])
        assert measure_calibration(probs, np.array([0, 1])).bins[m - 1].posts == posts


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_posts_is_found(temperature):
    logits, labels = posts(20_000, temperature=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def test_no_other_temperature_is_more_likely():
    logits, labels = posts(200, temperature=2.5)

    def loss(t):
        return float(cross_entropy(logits.double() / t, labels)) + math.log(t) ** 2 / 200

    found = loss(fit_temperature(logits, labels))
    assert all(found <= loss(t) + 1e-9 for t in np.geomspace(0.06, 19, 200))


def test_a_temperature_stays_near_one_without_posts_to_tell():
    logits, labels = posts(1)
    assert fit_temperature(logits[:0], labels[:0]) == 1
    assert 0.4 < fit_temperature(logits, logits.argmax(-1)) <= 1
    right = torch.eye(3)[[0, 1, 2] * 200] * 5
    assert 0.05 <= fit_temperature(right, right.argmax(-1)) < 0.6  # always right: surer
    wrong = right.roll(1, 0)
    assert 5 < fit_temperature(wrong, right.argmax(-1)) <= 20  # always wrong: no surer than chance


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_rescaling_is_dividing_logits_and_can_be_undone(temperature):
    logits, _ = posts(50)
    p = logits.double().softmax(-1).numpy()
    scaled = rescale_probabilities(p, temperature)
    np.testing.assert_allclose(scaled, (logits.double() / temperature).softmax(-1), atol=1e-12)
    np.testing.assert_allclose(rescale_probabilities(scaled, 1 / temperature), p, atol=1e-12)
    sure = np.array([[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(rescale_probabilities(sure, temperature), sure)


def test_an_evaluation_tells_what_scaling_brought():
    logits, labels = posts(3000, temperature=3.0)
    truth, raw = ["abcd"[k] for k in labels], logits.double().softmax(-1).numpy()
    result = evaluate(rescale_probabilities(raw, 3.0), truth, "abcd", temperature=3.0)
    plain = evaluate(raw, truth, "abcd")
    for x in ("error", "brier"):
        before = getattr(result.uncalibrated, x)
        assert before == pytest.approx(getattr(plain.calibration, x))
        assert getattr(result.calibration, x) < before
    assert plain.uncalibrated == plain.calibration and plain.temperature == 1
    assert result.calibration.error < 0.05 < 0.2 < result.uncalibrated.error
    assert result.accuracy == plain.accuracy
