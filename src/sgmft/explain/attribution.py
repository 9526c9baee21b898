"""What text, pictures, words and picture regions bring to a label's probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmft.explain.reader import Chances, PostReader
from sgmft.explain.shapley import Coalitions, Game, Shares, shapley_values
from sgmft.explain.words import Word, without
from sgmft.images import Pixels

MOST_WORDS = 64  # told apart in one text
GRID = 4  # a picture is judged by its GRID x GRID regions


def part_shares(reader: PostReader, label: int) -> Shares:
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


def word_losses(reader: PostReader, words: Sequence[Word], label: int) -> NDArray[np.float64]:
    """What the probability loses when a word is deleted, everything else staying: (n,)."""

    def game(coalitions: Coalitions) -> Chances:
        texts = [without(reader.text, words, row) for row in coalitions]
        return reader.probabilities(reader.with_texts(texts))[:, label]

    return _losses(game, len(words))


def region_losses(reader: PostReader, number: int, label: int) -> NDArray[np.float64]:
    """What it loses when a region of picture `number` is blanked: (GRID²,), row by row.

    A blanked region has the picture's mean colour.
    """
    picture = reader.pictures[number]

    def game(coalitions: Coalitions) -> Chances:
        changed = [blank_regions(picture, row) for row in coalitions]
        return reader.probabilities(reader.with_pictures(number, changed))[:, label]

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
