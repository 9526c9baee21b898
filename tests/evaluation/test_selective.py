"""Figures of a model that may abstain, against slow loops."""

import numpy as np
import pytest

from sgmft.evaluation.metrics import LEVELS, POINTS, accuracy_curve, evaluate, score_sets

LABELS = ["a", "b", "c"]


def drawn(n=90, seed=0):
    rng = np.random.default_rng(seed)
    powers = np.exp(2 * rng.normal(size=(n, 3)))
    return powers / powers.sum(1, keepdims=True), rng.integers(0, 2, n)  # no post is c


def test_sets_are_judged_as_a_loop_does():
    probs, true = drawn()
    members = probs > 0.3
    score = score_sets(members, true, LABELS, 0.9)
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


def test_without_a_set_of_one_label_there_is_no_accuracy():
    score = score_sets(np.ones((4, 3), bool), np.zeros(4, int), LABELS, 0.9)
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


def test_posts_of_one_probability_are_one_point():
    (point,) = accuracy_curve(np.full((7, 2), 0.5), np.zeros(7, int))
    assert (point.min_probability, point.answered, point.accuracy) == (0.5, 1, 1)


def test_an_evaluation_has_them_and_keeps_them():
    probs, true = drawn()

    def sets(probabilities, coverage):
        return probabilities >= 1 - coverage

    found = evaluate(probs, [LABELS[k] for k in true], LABELS, sets=sets)
    assert [score.promised for score in found.selective.sets] == list(LEVELS)
    assert evaluate(probs, [LABELS[k] for k in true], LABELS).selective.sets == []
