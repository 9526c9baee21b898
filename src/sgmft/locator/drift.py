"""Drift: whether posts to predict are like those that the model was trained on.

Single traits are counted. Counts add up over the parts of a job, and tell nothing of a post.
"""

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.errors import TEXTS, Message, join_messages, warn
from sgmft.locator.prediction import Prediction
from sgmft.utils.files import load_patterns

PARTS = ("", "a text alone", "pictures alone", "a text and pictures")  # by `Features.parts`
SCRIPTS = load_patterns(Path(__file__).with_name("scripts.toml"))  # words of each
LENGTHS = (10, 30, 100, 300)  # characters
LOOKED_AT = 300  # characters whose script counts
UNSURE = 0.5  # below it the most probable label is more likely wrong than right
LEAST_POSTS = 30
LEAST_SHIFT = 0.15  # total variation distance that is told of
LEAST_SCORE = 3.5  # of the chi-squared test as a standard normal, one in 4,000 by chance


def traits_of_post(text: str, parts: int) -> Iterator[str]:
    """Yield what counts of a post, as "trait: value"."""
    yield f"parts: {PARTS[parts]}"
    if text:
        counts = {x: len(words.findall(text[:LOOKED_AT])) for x, words in SCRIPTS.items()}
        script = max(counts, key=lambda x: counts[x])
        yield f"script: {script if counts[script] else 'without letters'}"
        place = bisect(LENGTHS, len(text))
        least, most = (0, *LENGTHS)[place], (*LENGTHS, 0)[place]
        yield f"length: {f'{least} to {most - 1}' if most else f'{least} or more'} characters"


def traits_of_probabilities(probs: Any, labels: Sequence[str]) -> Iterator[str]:
    """Yield what counts of probabilities (K,), as "trait: value"."""
    yield f"label: {labels[int(probs.argmax())]}"
    yield f"probability: {'unsure' if probs.max() < UNSURE else 'sure'}"


def traits_of(prediction: Prediction, labels: Sequence[str]) -> Iterator[str]:
    """Yield what counts of a post and its prediction; nothing of one that cannot be read."""
    if prediction.probabilities is not None:
        yield from traits_of_post(prediction.post.text, prediction.parts)
        yield from traits_of_probabilities(prediction.probabilities, labels)


def count_traits(
    texts: Iterable[str], parts: Iterable[int], probs: Iterable[Any], labels: Sequence[str]
) -> dict[str, int]:
    """Count the traits of posts, and of probabilities (K,) of posts not learned from."""
    found = map(traits_of_post, texts, parts), (traits_of_probabilities(x, labels) for x in probs)
    return dict(Counter(chain.from_iterable(chain(*found))))


def shifts(training: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Return in words how shares of traits have moved, where by more than chance and by much.

    Of each trait that share is named that has grown most. A trait counts from 30 posts on.
    """
    traits = defaultdict[str, dict[str, list[int]]](dict)
    for key in {**training, **found}:
        trait, value = key.split(": ", 1)
        traits[trait][value] = [training.get(key, 0), found.get(key, 0)]
    moved = list[str]()
    for values in traits.values():
        table = np.array([*values.values()], float)
        totals, free = table.sum(0), len(table) - 1
        if free == 0 or totals.min() < LEAST_POSTS:
            continue
        expected = table.sum(1, keepdims=True) * totals / totals.sum()
        ratio = float(((table - expected) ** 2 / expected).sum()) / free
        noise = 2 / (9 * free)  # Wilson & Hilferty 1931
        shares = table / totals
        grown = shares[:, 1] - shares[:, 0]
        if (ratio ** (1 / 3) - 1 + noise) / sqrt(noise) < LEAST_SCORE:
            continue
        most = int(grown.argmax())
        reason, (before, now) = [*values][most], shares[most].tolist()
        if np.abs(grown).sum() / 2 >= LEAST_SHIFT and reason != "sure":
            moved.append(Message(TEXTS["shift"], reason=reason, now=now, before=before))
    return moved


def warn_of_shifts(training: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Warn where posts are unlike those of the training; a model of no posts has no such."""
    if moved := shifts(training, found):
        warn(Message(TEXTS["drift"], reason=join_messages(moved)))
