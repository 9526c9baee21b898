"""What parts, words and picture regions bring to a label's probability: games for Shapley values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgmft.explain.reader import Chances, PostReader
from sgmft.explain.shapley import Coalitions, Shares, shapley_values
from sgmft.explain.words import Word, without
from sgmft.images import Pixels

MOST_WORDS = 64  # told apart in one text
TEXTS = 200  # the most changed texts to ask about
GRID = 4  # a picture is judged by its GRID x GRID regions
PICTURES = 64  # the most changed pictures to ask about, for one picture


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


def word_shares(reader: PostReader, words: Sequence[Word], label: int) -> Shares:
    """Of each word, the pictures staying: from the post without its text to this one."""

    def game(coalitions: Coalitions) -> Chances:
        texts = [without(reader.text, words, row) for row in coalitions]
        return reader.probabilities(reader.with_texts(texts))[:, label]

    return shapley_values(game, len(words), TEXTS)


def region_shares(reader: PostReader, number: int, label: int) -> Shares:
    """Of each region of picture `number`, row by row, the rest of the post staying.

    A region left out has the picture's mean colour.
    """
    picture = reader.pictures[number]

    def game(coalitions: Coalitions) -> Chances:
        changed = [blank_regions(picture, row) for row in coalitions]
        return reader.probabilities(reader.with_pictures(number, changed))[:, label]

    return shapley_values(game, GRID**2, PICTURES)


def blank_regions(picture: Pixels, kept: Sequence[bool]) -> Pixels:
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
