"""What text, pictures, words and picture regions bring to a label's probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmft.data.preprocessing.images import Pixels
from sgmft.evaluation.explain.masked_model import Chances, MaskedPredictor
from sgmft.evaluation.explain.words import Word, without

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


MOST_WORDS = 64  # told apart in one text

GRID = 4  # a picture is judged by its GRID x GRID regions


def part_values(reader: MaskedPredictor, label: int) -> Shares:
    """Of the text, if there is one, and of each picture: from a post with nothing to this one.

    What is left out is missing, not blank.
    """
    has_text = bool(reader.text)

    def game(coalitions: Coalitions) -> Chances:
        rows = [
            reader.with_parts(has_text and bool(row[0]), row[int(has_text) :]) for row in coalitions
        ]
        return reader.probabilities(rows)[:, label]

    return shapley_values(game, has_text + len(reader.pictures))


def word_losses(reader: MaskedPredictor, words: Sequence[Word], label: int) -> NDArray[np.float64]:
    """What the probability loses when a word is deleted, everything else staying: (n,)."""

    def game(coalitions: Coalitions) -> Chances:
        texts = [without(reader.text, words, row) for row in coalitions]
        return reader.probabilities(reader.with_texts(texts))[:, label]

    return _losses(game, len(words))


def region_losses(reader: MaskedPredictor, number: int, label: int) -> NDArray[np.float64]:
    """What it loses when a region of picture `number` is blanked: (GRID²,), row by row.

    A blanked region has the picture's mean colour.
    """
    picture = reader.pictures[number]

    def game(coalitions: Coalitions) -> Chances:
        changed = [blank_regions(picture, row) for row in coalitions]
        return reader.probabilities(reader.with_images(number, changed))[:, label]

    return _losses(game, GRID**2)


def _losses(game: Game, players: int) -> NDArray[np.float64]:
    """v(all) - v(all but i), by captum's feature ablation, in one call of the game."""
    from captum.attr import FeatureAblation

    if not players:
        return np.zeros(0)

    def value(masks: Tensor) -> Tensor:
        return torch.from_numpy(game(masks.numpy() > 0.5))

    losses: Tensor = FeatureAblation(value).attribute(
        torch.ones(1, players, dtype=torch.float64),
        baselines=0.0,
        perturbations_per_eval=players,
    )
    return np.asarray(losses[0].numpy())


def blank_regions(picture: Pixels, kept: NDArray[np.bool_]) -> Pixels:
    """A picture (s, s, 3) with its mean colour in those of g x g regions that are not `kept`."""
    changed = picture.copy()
    side = round(len(kept) ** 0.5)
    edges = np.linspace(0, len(picture), side + 1).round().astype(int)
    colour = picture.reshape(-1, 3).mean(0).round().astype(np.uint8)
    for i, stays in enumerate(kept):
        if not stays:
            row, column = divmod(i, side)
            changed[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = colour
    return changed
