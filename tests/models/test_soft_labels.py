"""Soft labels: what every method makes of them, against loops, and as copies of posts would."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch.testing import assert_close

from models.baselines.test_every_method import SOLVED, SYSTEMS, TRAINED, task
from reference_loops import soft_cross_entropy
from sgmft.models.arrays import cross_entropy, log_softmax, softmax
from sgmft.models.base import predict_logits
from sgmft.models.experts import DenseExpert, draw_folds
from sgmft.models.gated_experts import ProductPool, SimilarityGatedPool, _error
from sgmft.models.logistic import ABSENT, Block, Regressions, log_frequencies
from sgmft.training.fit import train_on_all, train_with_validation
from sgmft.utils.distributed import BatchCrossEntropy

K = 3


def one_hot(labels, classes=K):
    return np.eye(classes, dtype=np.float32)[labels]


def draw(n=30, width=4, seed=0):
    """Features (n, width) in float64, soft labels (n, K) and weights (n,)."""
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.ones(K), n).astype(np.float32)
    x = rng.standard_normal((n, width)) + soft @ rng.standard_normal((K, width))
    return x, soft, rng.random(n) + 0.5


@pytest.fixture
def tight(monkeypatch):
    """The search goes on to the very end, so that numbers can be compared closely."""
    monkeypatch.setattr("sgmft.models.logistic.GAP", 1e-14)


def trained(name, soft, **changes):
    work = task(name)
    data = work.data._replace(soft=soft, **changes)
    return predict_logits(train_on_all(replace(work, data=data), 1), data.features).logits


@cache
def with_plain_labels(name):
    return trained(name, None)


@pytest.mark.parametrize("name", SYSTEMS)
def test_soft_labels_that_are_sure_are_labels(name):
    labels = task(name).data.labels
    found, expected = trained(name, one_hot(labels)), with_plain_labels(name)
    if name in SOLVED:
        assert np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [x for x, (method, _) in SYSTEMS.items() if not method.prompts])
def test_every_method_learns_from_the_probabilities(name):
    labels = task(name).data.labels
    soft = (0.6 * one_hot(labels) + 0.4 * one_hot((labels + 1) % K)).astype(np.float32)
    found, hard = trained(name, soft), with_plain_labels(name)
    assert np.isfinite(found).all() and np.abs(found - hard).max() > 1e-4


def test_the_posts_held_out_are_judged_by_their_most_probable_labels():
    work = task("gated-experts")
    soft = (0.6 * one_hot(work.data.labels) + 0.2).astype(np.float32)
    soft /= soft.sum(1, keepdims=True)
    fitted = train_with_validation(replace(work, data=work.data._replace(soft=soft)), [])
    assert np.array_equal(fitted.held_out.labels, work.data.labels)
    logits = fitted.held_out.logits
    assert fitted.history[-1].val_loss == pytest.approx(cross_entropy(logits, work.data.labels))


# --- regressions


@pytest.mark.parametrize("span", [False, True])
def test_a_regression_minimises_the_loop_over_posts(span, tight):
    x, soft, weights = draw(12, 60 if span else 4)
    weights[3] = 0
    (found,) = Regressions(x, soft, K, [Block(weights)]).solve(0.3)

    def loss(point):
        weight, bias = np.split(point, [K * x.shape[1]])
        logits = x @ weight.reshape(K, -1).T + bias
        return soft_cross_entropy(logits, soft.astype(float), weights) + 0.15 * weight @ weight

    point = np.concatenate([found.weight.ravel(), found.bias])
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert loss(point + 1e-3 * rng.standard_normal(point.size)) > loss(point)
    if not span:
        best = minimize(loss, np.zeros(point.size), method="BFGS", options={"gtol": 1e-7})
        assert loss(point) == pytest.approx(best.fun, abs=1e-8)


def test_a_regression_is_that_of_copies_of_the_posts_with_one_label_each(tight):
    x, soft, weights = draw()
    (found,) = Regressions(x, soft, K, [Block(weights)]).solve(0.1)
    copies, labels = np.repeat(x, K, 0), np.tile(np.arange(K), len(x))
    shares = (soft.astype(float) * weights[:, None]).ravel()
    (same,) = Regressions(copies, labels, K, [Block(shares)]).solve(0.1)
    expected = softmax(x @ same.weight.T + same.bias)
    np.testing.assert_allclose(softmax(x @ found.weight.T + found.bias), expected, atol=1e-6)
    model = LogisticRegression(C=1 / (shares.sum() * 0.1), tol=1e-9, max_iter=10_000)
    expected = model.fit(copies, labels, shares).predict_proba(x)
    np.testing.assert_allclose(softmax(x @ found.weight.T + found.bias), expected, atol=1e-4)


def test_class_frequencies_are_mean_probabilities():
    _, soft, weights = draw()
    soft = np.concatenate([soft, np.zeros((len(soft), 1), np.float32)], 1)
    found = log_frequencies(soft, K + 1, weights)
    np.testing.assert_allclose(np.exp(found[:K]), np.average(soft[:, :K], 0, weights), rtol=1e-7)
    assert found[K] == ABSENT


def test_an_expert_chooses_its_penalty_by_the_soft_loss():
    """Labels are noise, but their probabilities follow the features: little penalty is best."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 2)).astype(np.float32)
    soft = softmax(np.concatenate([3 * x, np.zeros((300, 1))], 1)).astype(np.float32)
    hard = np.array([rng.choice(K, p=p / p.sum()) for p in soft.astype(float)])
    hard[rng.random(300) < 0.8] = 0
    sizes = []
    for labels in (soft, hard):
        expert = DenseExpert(2, K)
        expert.fit(x, labels, draw_folds(labels, 5, RandomState(0)))
        sizes.append(np.linalg.norm(expert.weight))
    assert sizes[0] > 2 * sizes[1]


def test_copies_of_a_post_are_never_on_both_sides_of_a_fold():
    """Posts stay one row each, whatever their labels are: as many folds' rows as posts."""
    _, soft, _ = draw(50)
    fold = draw_folds(soft, 5, RandomState(0))
    assert np.array_equal(fold, draw_folds(soft.argmax(1), 5, RandomState(0)))
    assert np.bincount(fold).tolist() == [10] * 5


# --- losses and pools


def test_losses_are_those_of_a_loop():
    x, soft, weights = draw(width=K)
    expected = soft_cross_entropy(x.tolist(), soft.astype(float).tolist(), weights.tolist())
    assert cross_entropy(x, soft, weights) == pytest.approx(expected, rel=1e-6)
    criterion = BatchCrossEntropy(weight=torch.from_numpy(weights))
    found = criterion(torch.from_numpy(x), torch.from_numpy(soft.astype(float)))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    labels, logits = np.arange(30) % K, torch.from_numpy(x)
    sure = criterion(logits, torch.from_numpy(one_hot(labels)).double())
    assert_close(sure, criterion(logits, torch.from_numpy(labels)))


def test_the_slope_of_the_loss_is_that_of_small_steps():
    x, soft, weights = draw(5, K)
    slope, step = _error(x, soft, weights), 1e-6
    for i, k in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[i, k] = step
        ends = [cross_entropy(x + sign * moved, soft.astype(float), weights) for sign in (1, -1)]
        assert slope[i, k] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("kind", ["product", "gated"])
def test_a_pool_fitted_to_soft_labels_has_the_least_soft_loss(kind):
    rng, prior = np.random.default_rng(0), np.log(np.full(K, 1 / K))
    _, soft, weights = draw(40)
    text, image, joint = (
        log_softmax(np.log(soft + 0.1) + rng.standard_normal((40, K))) - prior for _ in range(3)
    )
    pool = ProductPool(2) if kind == "product" else SimilarityGatedPool(True, True)
    given = ([text, image] if kind == "product" else [text, image, joint]), prior
    start = {name: x.copy() for name, x in pool.state_dict().items() if name in pool.learned}
    pool.fit(*given, soft, weights)

    def loss():
        out = pool.forward(*given)
        logits = out if kind == "product" else out.logits
        value = soft_cross_entropy(logits.tolist(), soft.astype(float).tolist(), weights.tolist())
        far = {x: np.square(getattr(pool, x) - y).sum() for x, y in start.items()}
        return value + (sum(far.values()) + 2 * far.get("slopes", 0)) / 40

    least = loss()
    for name in start:
        best = getattr(pool, name)
        for sign in (1, -1):
            setattr(pool, name, best + sign * 0.05)
            assert loss() > least
        setattr(pool, name, best)


# --- class weights


@pytest.mark.parametrize("given", [False, True])
def test_class_weights_of_soft_labels_are_those_of_copies(given):
    _, soft, weights = draw()
    data = task("linear-probe").data._replace(labels=soft.argmax(1), soft=soft)
    data = data._replace(weights=weights if given else None)
    used = weights if given else np.ones(30)
    found = data.balanced()
    counts = (used[:, None] * soft).sum(0)
    expected = used[:, None] * soft / counts  # of each copy
    np.testing.assert_allclose(found.weights[:, None] * found.soft, expected, rtol=1e-5)
    np.testing.assert_allclose(found.soft.sum(1), 1, atol=1e-6)


def test_a_choice_of_posts_keeps_their_soft_labels():
    _, soft, _ = draw(32)
    data = task("linear-probe").data._replace(soft=soft)
    assert np.array_equal(data.take(np.array([3, 1])).soft, soft[[3, 1]])
    assert np.array_equal(data.take(np.arange(32) > 29).targets, soft[30:])


@pytest.mark.parametrize("name", [x for x in TRAINED if "mmc" in x or "mla" in x])
def test_labels_smoothed_by_hand_are_label_smoothing(name):
    labels = task(name).data.labels
    work = task(name, label_smoothing=0.3)
    expected = predict_logits(train_on_all(work, 1), work.data.features).logits
    soft = (0.7 * one_hot(labels) + 0.1).astype(np.float32)
    np.testing.assert_allclose(trained(name, soft), expected, rtol=1e-4, atol=1e-4)
