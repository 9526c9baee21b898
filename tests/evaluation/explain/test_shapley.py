"""Shapley values against a slow loop over all orders of joining, and the axioms."""

from itertools import permutations

import numpy as np
import pytest
import torch

from sgmft.evaluation.explain.attribution import shapley_values


def table_game(values):
    """The game whose coalition with the bits of i has values[i]."""
    worth = np.asarray(values, float)
    bits = 1 << np.arange(len(worth).bit_length() - 1)

    def game(coalitions):
        assert coalitions.dtype == bool
        return worth[coalitions @ bits]

    return game


def slow_values(game, players):
    gains = []
    for order in permutations(range(players)):
        ranks = np.argsort(order)
        values = game(ranks < np.arange(players + 1)[:, None])  # of the first 0 to n
        gains.append(np.diff(values)[ranks])
    return np.mean(gains, axis=0)


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_exact_values_are_the_mean_over_all_orders(players):
    game = table_game(np.random.default_rng(players).normal(size=2**players))
    values, exact = shapley_values(game, players)
    assert exact
    np.testing.assert_allclose(values, slow_values(game, players), atol=1e-12)


def test_axioms():
    """Player 3 adds nothing, 0 and 1 are interchangeable, and shares sum to what all bring."""

    def game(c):
        return 0.3 + np.sqrt(c[:, 0].astype(float) + c[:, 1]) * (1 + c[:, 2])

    for budget in (1024, 10):
        values, exact = shapley_values(game, 4, budget)
        assert exact == (budget == 1024)
        whole = game(np.ones((1, 4), bool))[0] - game(np.zeros((1, 4), bool))[0]
        assert values.sum() == pytest.approx(whole)
        assert values[3] == pytest.approx(0)
    values, _ = shapley_values(game, 4)
    assert values[0] == pytest.approx(values[1])
    assert shapley_values(lambda c: np.zeros(len(c)), 0)[0].shape == (0,)  # nobody plays


def test_sampling_comes_near_keeps_to_its_budget_and_to_its_seed():
    rng = np.random.default_rng(0)
    weights, pairs = rng.normal(size=12), np.triu(rng.normal(size=(12, 12)), 1) / 4
    asked = []

    def game(c):
        asked.append(len(c))
        return c @ weights + np.einsum("ni,ij,nj->n", c, pairs, c)

    before = torch.get_rng_state()
    sampled, exact = shapley_values(game, 12, budget=1200, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not exact and sum(asked) <= 1200
    expected = weights + (pairs + pairs.T).sum(1) / 2
    np.testing.assert_allclose(sampled, expected, atol=0.25)
    again, _ = shapley_values(game, 12, budget=1200, seed=3)
    np.testing.assert_array_equal(sampled, again)
