"""Faults of labelled posts, found in cross-fitted probabilities, features and single traits."""

import re
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from typing import Any

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError, open_image, square
from sgmft.data.preprocessing.media import media_name, read_media
from sgmft.data.preprocessing.text import get_cleaning, split_words
from sgmft.evaluation.metrics import area_under_roc
from sgmft.features.features import Features
from sgmft.models.arrays import Flags, Floats, Integers, Reals, normalize
from sgmft.models.base import mean_and_divisor
from sgmft.utils.runtime import thread_count

NEAR_TEXT, NEAR_IMAGE = 0.9, 0.85  # cosines of features and outlines; distinct ones have less
LONG = 10  # characters from which two posts of the same text are no accident
FEW = 10  # posts with a trait, without it, or of a class: fewer say nothing
LEVEL = 0.01  # of significance, after correction for all traits that were tried
STRONG, WEAK, PURE = 0.2, 0.1, 0.9  # Cramér's V, and the share of one label in a trait's posts
FIFTHS = (0.2, 0.4, 0.6, 0.8)  # where ranges of numbers end, as ties allow
GREY, EVEN = 12, 4  # how far the channels of a pixel, and a border's pixels, may differ
_MARKED = re.compile(r"[#@][\w·-]+|https?://[\w.-]+|^rt\b")


def doubt_labels(probs: Reals, labels: Integers) -> tuple[Reals, Integers, Flags]:
    """Rate how doubtful labels are, by probabilities (N, K) of fits without each post.

    Returns, for each of N posts, the label's probability; the likeliest other class; and whether
    the label is probably wrong: another class is likelier, and as probable as in posts of that
    class on average, off the diagonal of the confident joint (Northcutt et al. 2021).
    """
    rows, counts = np.arange(len(labels)), np.bincount(labels, minlength=probs.shape[1])
    own = probs[rows, labels]
    usual = np.bincount(labels, own, len(counts)) / np.maximum(counts, 1)  # (K,)
    wrong = np.any((probs >= usual) & (probs > own[:, None]), axis=1)
    return own, np.where(np.arange(len(counts)) == labels[:, None], -1, probs).argmax(1), wrong


def group_alike(
    features: Features, outlines: Floats, keys: Sequence[str], posts: Sequence[Post]
) -> list[list[int]]:
    """Return groups of posts, by position, that are the same or nearly so, some through others.

    Two are alike that have the same content key, texts of 10 characters or more with a cosine from
    0.9, or pictures whose outlines, see `read_traits`, have one from 0.85.
    """
    from scipy.sparse import csr_matrix, vstack
    from scipy.sparse.csgraph import connected_components

    text, image = features.pooled()[0], normalize(outlines)
    mean, deviation = mean_and_divisor(text)
    text = normalize((text - mean) / deviation).astype(np.float32)
    text[[len(post.text) < LONG for post in posts]] = 0
    same = np.unique(np.array(keys), return_inverse=True)[1]
    parts = []
    for at in (slice(first, first + 2048) for first in range(0, len(keys), 2048)):
        near = (text[at] @ text.T >= NEAR_TEXT) | (image[at] @ image.T >= NEAR_IMAGE)
        parts.append(csr_matrix(near | (same[at, None] == same)))
    group = connected_components(vstack(parts), directed=False)[1]
    return [np.flatnonzero(group == x).tolist() for x in np.flatnonzero(np.bincount(group) > 1)]


def read_traits(posts: Sequence[Post]) -> tuple[list[set[str]], Floats]:
    """Return the traits of N posts, each as "kind: value", and outlines of their first pictures.

    Kinds are word; format; grey and border (of one colour, on two sides), where it is so; and, with
    ranges for values, characters, pictures, bytes, width, height and shape (width by height).
    Outlines (N, 16 x 15), a difference hash, say where a picture grows lighter, 1, or darker, -1.
    """
    with ThreadPoolExecutor(thread_count()) as pool:
        known = list(pool.map(_measure, posts))
    for name in sorted({name for _, numbers, _ in known for name in numbers}):
        own = [(traits, numbers[name]) for traits, numbers, _ in known if name in numbers]
        values = np.array([value for _, value in own])
        place = np.searchsorted(np.unique(np.quantile(values, FIFTHS, method="lower")), values)
        for (traits, _), number in zip(own, place, strict=True):
            part = values[place == number]
            ends = dict.fromkeys(f"{x:g}" for x in (part.min(), part.max()))
            traits.add(f"{name}: {' – '.join(ends)}")
    return [traits for traits, *_ in known], np.stack([x for *_, x in known])


def _measure(post: Post) -> tuple[set[str], dict[str, float], Floats]:
    text, outline = post.text.casefold(), np.zeros(240, np.float32)
    words = {*split_words(text, get_cleaning("none")), *_MARKED.findall(text)}
    traits = {f"word: {x}" for x in words if re.search(r"\w", x)}
    numbers: dict[str, float] = {"characters": len(text), "pictures": len(post.images)}
    for file in post.images[:1]:
        with suppress(ImageError), open_image(data := read_media(file), media_name(file)) as image:
            (w, h), kind = image.size, image.format
            pixels = square(image, 64).astype(int)
            numbers |= {"bytes": len(data), "width": w, "height": h, "shape": w / h}
            sides = pixels[[0, -1]], pixels[:, [0, -1]].swapaxes(0, 1)
            flags = {"grey": np.quantile(np.ptp(pixels, -1), 0.99) <= GREY}
            flags["border"] = any(np.ptp(x, 1).max() <= EVEN for x in sides)
            traits |= {f"format: {kind}", *(f"{x}: yes" for x, flag in flags.items() if flag)}
            slopes = np.diff(pixels.reshape(16, 4, 16, 4, 3).mean((1, 3, 4)), axis=1).ravel()
            outline[:] = np.sign(slopes) * (np.abs(slopes) >= 1)
    return traits, numbers, outline


def find_telling_traits(
    traits: Sequence[Set[str]], classes: Integers, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the traits of posts that alone give labels away, the strongest first.

    By the chi-square test of having one against the labels, corrected for all tried (Bonferroni),
    and Cramér's V, corrected for bias (Bergsma 2013): from 0.2, or 0.1 where nine tenths of the
    posts with it have one label. A row has that label, and the shares of its and all posts.
    """
    from scipy.stats import chi2_contingency

    having, total = dict[str, list[int]](), len(classes)
    for i, own in enumerate(traits):
        for name in own:
            having.setdefault(name, []).append(i)
    tried = {x: rows for x, rows in having.items() if FEW <= len(rows) <= total - FEW}
    of_class, found = np.bincount(classes, minlength=len(labels)), []
    for name, rows in sorted(tried.items()):
        counts, n = np.bincount(classes[rows], minlength=len(labels)), len(rows)
        square, p, freedom, _ = chi2_contingency([counts, of_class - counts], correction=False)
        strength = max(0.0, square / total - freedom / (total - 1)) ** 0.5
        if p * len(tried) < LEVEL and strength >= (WEAK if counts.max() >= PURE * n else STRONG):
            excess = (counts - n / total * of_class) / np.sqrt(of_class)
            k = int(np.where(of_class >= FEW, excess, -np.inf).argmax())
            kind, _, value = name.partition(": ")
            row = {"kind": kind, "value": value, "label": labels[k], "posts": n}
            row |= {"of_label": counts[k] / of_class[k], "of_all": n / total}
            found.append(row | {"precision": counts[k] / n, "strength": strength})
    return sorted(found, key=lambda row: -row["strength"])


def compare_classes(probs: Reals, classes: Integers, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return how far any two labels are told apart, see `doubt_labels` for `probs`; worst first.

    By the posts of either: the area under the ROC curve, and for how many the other is likelier.
    """
    found = []
    for i, j in combinations(range(len(labels)), 2):
        rows = np.flatnonzero((classes == i) | (classes == j))
        pair, second = probs[rows][:, [i, j]].astype(float), (classes[rows] == j).astype(int)
        pair /= np.maximum(pair.sum(1, keepdims=True), 1e-300)
        if FEW <= second.sum() <= len(rows) - FEW:
            row = {"first": labels[i], "second": labels[j], "area": area_under_roc(pair, second)}
            found.append(row | {"confused": int((pair.argmax(1) != second).sum())})
    return sorted(found, key=lambda row: row["area"])
