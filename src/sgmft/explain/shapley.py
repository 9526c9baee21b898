"""Shapley values (Shapley 1953): what each player brings, on average over all orders of joining.

A game gives a value to each coalition. The values of the players sum to the value of all of them
less that of none (efficiency); players that do the same get the same (symmetry); one that changes
nothing gets 0 (dummy).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Coalitions = NDArray[np.bool_]  # (N, n), True where a player takes part
Game = Callable[[Coalitions], NDArray[np.float64]]  # N coalitions to their N values

MOST_EXACT = 1024  # coalitions, which is ten players


class Shares(NamedTuple):
    """What the players of a game bring."""

    values: NDArray[np.float64]  # (n,)
    exact: bool  # False: from some orders of joining only, drawn at random


def shapley_values(game: Game, players: int, budget: int = MOST_EXACT, seed: int = 0) -> Shares:
    """Exact values where the game can be asked of every coalition, sampled ones otherwise.

    Args:
        game: called with many coalitions at once.
        players: n.
        budget: the most coalitions to ask for; sampling asks for at least 2 n.
        seed: of the sampled orders.
    """
    if not players:
        return Shares(np.zeros(0), True)
    if 2**players <= budget:
        return Shares(_exact(game, players), True)
    return Shares(_sampled(game, players, max(2, (budget - 2) // players), seed), False)


def _exact(game: Game, players: int) -> NDArray[np.float64]:
    """phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))."""
    codes = np.arange(2**players)
    members = (codes[:, None] >> np.arange(players) & 1).astype(bool)
    values = game(members)
    sizes = members.sum(1)
    weights = [
        math.factorial(k) * math.factorial(players - k - 1) / math.factorial(players)
        for k in range(players)
    ]
    shares = np.zeros(players)
    for i in range(players):
        without = codes[~members[:, i]]
        gains = values[without | 1 << i] - values[without]
        shares[i] = np.take(weights, sizes[without]) @ gains
    return shares


def _sampled(game: Game, players: int, orders: int, seed: int) -> NDArray[np.float64]:
    """The mean gain over random orders of joining (Castro et al. 2009), by captum.

    Efficiency holds for every order, and so for their mean.
    """
    from captum.attr import ShapleyValueSampling

    def value(masks: Tensor) -> Tensor:
        return torch.from_numpy(game(masks.numpy() > 0.5))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shares: Tensor = ShapleyValueSampling(value).attribute(
            torch.ones(1, players, dtype=torch.float64),
            baselines=0.0,
            n_samples=orders,
            perturbations_per_eval=players,
        )
    return np.asarray(shares[0].numpy())
