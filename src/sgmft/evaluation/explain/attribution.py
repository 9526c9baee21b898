"""Attribution of a label's probability to text, pictures, words and picture regions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmft.data.preprocessing.images import Pixels
from sgmft.evaluation.explain.masked_model import MaskedPredictor, Probabilities
from sgmft.evaluation.explain.words import Word, without

Coalitions = NDArray[np.bool_]  # (N, n), True where a player takes part
Game = Callable[[Coalitions], Probabilities]  # N coalitions to their N values
MOST_EXACT = 1024  # coalitions, which is ten players
MOST_WORDS = 64  # attributed to in one text
GRID = 4  # of the regions of a picture, GRID x GRID


class ShapleyValues(NamedTuple):
    """What the players of a game bring."""

    values: NDArray[np.float64]  # (n,)
    exact: bool  # False: from some orders of joining only, drawn at random


def part_values(predictor: MaskedPredictor, label: int) -> ShapleyValues:
    """Return the values of the text, if there is one, and of each picture.

    From a post with nothing to this one; what is left out is missing, not blank.
    """
    texts = int(bool(predictor.text))

    def game(coalitions: Coalitions) -> Probabilities:
        rows = [predictor.keep_parts(bool(x[:texts].any()), x[texts:]) for x in coalitions]
        return predictor.predict_proba(rows)[:, label]

    return shapley_values(game, texts + len(predictor.images))


def word_losses(
    predictor: MaskedPredictor, words: Sequence[Word], label: int
) -> NDArray[np.float64]:
    """Return what the probability loses when a word is deleted, the rest staying: (n,)."""

    def game(coalitions: Coalitions) -> Probabilities:
        texts = [without(predictor.text, words, kept) for kept in coalitions]
        return predictor.predict_proba(predictor.replace_text(texts))[:, label]

    return _ablate(game, len(words))


def region_losses(predictor: MaskedPredictor, number: int, label: int) -> NDArray[np.float64]:
    """Return what it loses when a region of picture `number` is blanked: (GRID²,), row by row.

    A blanked region has the picture's mean colour.
    """

    def game(coalitions: Coalitions) -> Probabilities:
        images = [blank_regions(predictor.images[number], kept) for kept in coalitions]
        return predictor.predict_proba(predictor.replace_image(number, images))[:, label]

    return _ablate(game, GRID**2)


def shapley_values(
    game: Game, players: int, budget: int = MOST_EXACT, seed: int = 0
) -> ShapleyValues:
    """Return the values of n players, exact where the game can be asked of every coalition.

    Else they are from orders of joining sampled with `seed`. The game is called with many
    coalitions at once, with `budget` at most, of which sampling takes at least 2 n.
    """
    if not players:
        return ShapleyValues(np.zeros(0), True)
    if 2**players <= budget:
        return ShapleyValues(_exact_values(game, players), True)
    from captum.attr import ShapleyValueSampling

    # The mean gain over random orders of joining (Castro et al. 2009). Efficiency holds for every
    # order, and so for their mean.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        orders = max(2, (budget - 2) // players)
        return ShapleyValues(_perturb(ShapleyValueSampling, game, players, n_samples=orders), False)


def blank_regions(image: Pixels, kept: NDArray[np.bool_]) -> Pixels:
    """Return an image (s, s, 3) with its mean colour in those g x g regions that are not `kept`."""
    changed = image.copy()
    side = round(len(kept) ** 0.5)
    edges = np.linspace(0, len(image), side + 1).round().astype(int)
    colour = image.reshape(-1, 3).mean(0).round().astype(np.uint8)
    for i in np.flatnonzero(~kept):
        row, column = divmod(i, side)
        changed[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = colour
    return changed


def _exact_values(game: Game, players: int) -> NDArray[np.float64]:
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
        without_i = codes[~members[:, i]]
        gains = values[without_i | 1 << i] - values[without_i]
        shares[i] = np.take(weights, sizes[without_i]) @ gains
    return shares


def _ablate(game: Game, players: int) -> NDArray[np.float64]:
    """v(all) - v(all but i), in one call of the game."""
    from captum.attr import FeatureAblation

    return _perturb(FeatureAblation, game, players) if players else np.zeros(0)


def _perturb(
    algorithm: Callable[..., Any], game: Game, players: int, **options: Any
) -> NDArray[np.float64]:
    """Have captum attribute the value of all players to each of them."""

    def value(masks: Tensor) -> Tensor:
        return torch.from_numpy(game(masks.numpy() > 0.5))

    everyone = torch.ones(1, players, dtype=torch.float64)
    values: Tensor = algorithm(value).attribute(
        everyone, baselines=0.0, perturbations_per_eval=players, **options
    )
    return np.asarray(values[0].numpy())
