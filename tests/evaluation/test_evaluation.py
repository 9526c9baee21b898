"""Figures of an evaluation, calibration and selective prediction, against slow loops."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from sgmft.errors import SgmftError
from sgmft.evaluation.calibration import fit_temperature, measure_calibration, rescale_probabilities
from sgmft.evaluation.metrics import (
    LEVELS,
    POINTS,
    accuracy_curve,
    area_under_roc,
    evaluate,
    score_sets,
)

PLACES = ["Home", "School", "电影院"]
ABC = ["a", "b", "c"]


def random_case(seed, posts, classes):
    rng = np.random.default_rng(seed)
    labels = [f"label {k}" for k in rng.permutation(classes)]
    probabilities = rng.dirichlet(np.full(classes, 0.5), size=posts)
    truth = [
        labels[rng.choice(classes, p=0.5 * row + 0.5 * np.eye(classes)[0])] for row in probabilities
    ]
    return probabilities, truth, labels


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 9))
def test_agrees_with_scikit_learn(seed, posts, classes):
    probabilities, truth, labels = random_case(seed, posts, classes)
    result = evaluate(probabilities, truth, labels)
    predicted = [labels[k] for k in probabilities.argmax(axis=1)]
    assert result.posts == posts
    assert result.accuracy.value == pytest.approx(accuracy_score(truth, predicted))
    macro = f1_score(truth, predicted, average="macro", zero_division=0)
    assert result.macro_f1.value == pytest.approx(macro)
    order = np.argsort(labels)  # log_loss wants the columns in the labels' sorted order
    loss = log_loss(truth, probabilities[:, order], labels=sorted(labels))
    assert result.log_loss == pytest.approx(loss)
    assert result.confusion == confusion_matrix(truth, predicted, labels=labels).tolist()
    expected = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for k, score in enumerate(result.per_class):
        found = (score.precision, score.recall, score.f1, score.support)
        assert found == pytest.approx(tuple(column[k] for column in expected))
        assert score.low <= score.f1 + 1e-9 and score.f1 <= score.high + 1e-9
    assert result.balanced_accuracy == pytest.approx(expected[1][expected[3] > 0].mean())
    true, areas = np.array(truth), []
    for k, label in enumerate(labels):
        if 0 < (true == label).sum() < posts:
            areas.append(roc_auc_score(true == label, probabilities[:, k].round(1)))
    tied = area_under_roc(probabilities.round(1), np.array([labels.index(x) for x in truth]))
    assert tied == (pytest.approx(np.mean(areas)) if areas else None)


def test_intervals_agree_with_resampling_posts_one_by_one():
    probabilities, truth, labels = random_case(5, posts=150, classes=5)
    result = evaluate(probabilities, truth, labels)
    true = np.array([labels.index(label) for label in truth])
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(600):
        some = rng.integers(0, len(true), len(true))
        each = f1_score(true[some], predicted[some], average=None, labels=range(5), zero_division=0)
        macro = each[np.union1d(true[some], predicted[some])].mean()
        draws.append((np.mean(true[some] == predicted[some]), macro, *each))
    naive = np.percentile(draws, [2.5, 97.5], axis=0).T
    intervals = [result.accuracy, result.macro_f1, *result.per_class]
    for interval, ends, width in zip(intervals, naive, (0.02, 0.02, *[0.04] * 5), strict=True):
        assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=width)
    assert result.macro_f1.low < result.macro_f1.value < result.macro_f1.high


def test_intervals_cover_the_true_accuracy_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        right = rng.random(300) < 0.8
        result = evaluate(np.eye(2)[np.where(right, 0, 1)], ["a"] * 300, ["a", "b"])
        covered += result.accuracy.low <= 0.8 <= result.accuracy.high
    assert 180 <= covered <= 199


def test_groups():
    probabilities = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    truth = ["Home", "Home", "School", "Home", "Home", "电影院"]
    pictures = ["one", "one", "none", "one", "none", "one"]
    groups = {"pictures": pictures, "again": pictures}
    result = evaluate(probabilities, truth, PLACES, groups=groups)
    one, none = result.groups["pictures"].values()
    assert list(result.groups["pictures"]) == ["one", "none"]
    assert (one.posts, one.accuracy.value) == (4, 0.75)
    assert (none.posts, none.accuracy.value) == (2, 0.5)
    assert one.accuracy.low < 0.75 < one.accuracy.high == 1
    assert result.groups["again"] == result.groups["pictures"]
    assert evaluate(probabilities, truth, PLACES).accuracy == result.accuracy


def test_it_is_the_same_every_time_and_json_keeps_everything():
    case = random_case(3, posts=40, classes=4)
    assert evaluate(*case) == evaluate(*case)
    result = evaluate(*case, groups={"user": [label[-1] for label in case[1]]})
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


def test_certain_and_wrong_stays_finite():
    result = evaluate(np.array([[1.0, 0.0]], dtype=np.float32), ["b"], ["a", "b"])
    assert result.accuracy.value == result.macro_f1.value == 0
    assert np.isfinite(result.log_loss)


@pytest.mark.parametrize(
    ("probabilities", "truth", "labels", "message"),
    [
        (np.zeros((0, 3)), [], PLACES, "no posts"),
        (np.eye(3), ["Home", "Gym", "Bar"], PLACES, "Bar, Gym"),
        (np.eye(3), ["Home"], PLACES, "shape"),
        (np.eye(2), ["Home", "Home"], ["Home", "Home"], "twice: Home"),
        (np.full((1, 3), np.nan), ["Home"], PLACES, "not probabilities"),
        (np.array([[2.0, -0.5, -0.5]]), ["Home"], PLACES, "not probabilities"),
        (np.eye(3), PLACES, PLACES, "'user' has 1 values for 3 posts"),
    ],
)
def test_mistakes(probabilities, truth, labels, message):
    with pytest.raises(SgmftError, match=message):
        evaluate(probabilities, truth, labels, groups={"user": ["u"]})


def drawn(n=90, seed=0):
    rng = np.random.default_rng(seed)
    powers = np.exp(2 * rng.normal(size=(n, 3)))
    return powers / powers.sum(1, keepdims=True), rng.integers(0, 2, n)  # no post is c


def test_sets_are_judged_as_a_loop_does():
    probs, true = drawn()
    members = probs > 0.3
    score = score_sets(members, true, ABC, 0.9)
    hits = [bool(row[k]) for row, k in zip(members, true, strict=True)]
    assert score.promised == 0.9
    assert score.achieved == pytest.approx(sum(hits) / 90)
    for k, label in enumerate("ab"):
        own = [hit for hit, truth in zip(hits, true, strict=True) if truth == k]
        assert score.per_class[label] == pytest.approx(sum(own) / len(own))
    assert score.per_class["c"] is None
    assert score.size == pytest.approx(sum(map(sum, members.tolist())) / 90)
    single = [i for i, row in enumerate(members) if sum(row) == 1]
    assert score.answered == pytest.approx(len(single) / 90)
    assert score.accuracy == pytest.approx(sum(hits[i] for i in single) / len(single))
    score = score_sets(np.ones((4, 3), bool), np.zeros(4, int), ABC, 0.9)  # none of one label
    assert (score.achieved, score.size, score.answered, score.accuracy) == (1, 3, 0, None)


def test_the_curve_runs_from_all_posts_to_the_surest():
    probs, true = drawn(400)
    curve = accuracy_curve(probs, true)
    assert len(curve) == POINTS and curve[0].answered == 1
    assert [p.answered for p in curve] == sorted((p.answered for p in curve), reverse=True)
    for point in curve:
        kept = [i for i in range(400) if probs[i].max() >= point.min_probability]
        right = [probs[i].argmax() == true[i] for i in kept]
        assert point.answered == pytest.approx(len(kept) / 400)
        assert point.accuracy == pytest.approx(sum(right) / len(kept))
    (point,) = accuracy_curve(np.full((7, 2), 0.5), np.zeros(7, int))  # they stay together
    assert (point.min_probability, point.answered, point.accuracy) == (0.5, 1, 1)


def test_an_evaluation_has_them_and_keeps_them():
    probs, true = drawn()

    def sets(probabilities, coverage):
        return probabilities >= 1 - coverage

    found = evaluate(probs, [ABC[k] for k in true], ABC, sets=sets)
    assert [score.promised for score in found.selective.sets] == list(LEVELS)
    assert evaluate(probs, [ABC[k] for k in true], ABC).selective.sets == []


def posts(n=300, classes=4, seed=0, temperature=1.0):
    """Logits (n, K) and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, classes))
    chances = softmax(logits / temperature, -1).cumsum(1)
    return logits, (chances < rng.random((n, 1))).sum(1).clip(max=classes - 1)


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
    p = softmax(logits, -1)
    found = measure_calibration(p, labels, bins)
    error, brier, counts = slow(p, labels, bins)
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
        own = log_softmax(logits / t, -1)[range(200), labels]
        return -own.mean() + math.log(t) ** 2 / 200

    found = loss(fit_temperature(logits, labels))
    assert all(found <= loss(t) + 1e-9 for t in np.geomspace(0.06, 19, 200))


def test_a_temperature_stays_near_one_without_posts_to_tell():
    logits, labels = posts(1)
    assert fit_temperature(logits[:0], labels[:0]) == 1
    assert 0.4 < fit_temperature(logits, logits.argmax(-1)) <= 1
    right = np.eye(3)[[0, 1, 2] * 200] * 5
    assert 0.05 <= fit_temperature(right, right.argmax(-1)) < 0.6  # always right: surer
    wrong = np.roll(right, 1, 0)
    assert 5 < fit_temperature(wrong, right.argmax(-1)) <= 20  # always wrong: no surer than chance


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_rescaling_is_dividing_logits_and_can_be_undone(temperature):
    logits, _ = posts(50)
    p = softmax(logits, -1)
    scaled = rescale_probabilities(p, temperature)
    np.testing.assert_allclose(scaled, softmax(logits / temperature, -1), atol=1e-12)
    np.testing.assert_allclose(rescale_probabilities(scaled, 1 / temperature), p, atol=1e-12)
    sure = np.array([[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(rescale_probabilities(sure, temperature), sure)


def test_an_evaluation_tells_what_scaling_brought():
    logits, labels = posts(3000, temperature=3.0)
    truth, raw = ["abcd"[k] for k in labels], softmax(logits, -1)
    result = evaluate(rescale_probabilities(raw, 3.0), truth, "abcd", temperature=3.0)
    plain = evaluate(raw, truth, "abcd")
    for x in ("error", "brier"):
        before = getattr(result.uncalibrated, x)
        assert before == pytest.approx(getattr(plain.calibration, x))
        assert getattr(result.calibration, x) < before
    assert plain.uncalibrated == plain.calibration and plain.temperature == 1
    assert result.calibration.error < 0.05 < 0.2 < result.uncalibrated.error
    assert result.accuracy == plain.accuracy
