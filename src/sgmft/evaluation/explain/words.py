"""The words of a post: where they stand in its text, and the text without some of them."""

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from sgmft.data.preprocessing.text import CLEANINGS, simplify, split_words
from sgmft.models.arrays import Flags

SEGMENTED = CLEANINGS["none"]  # of a text that has been cleaned, every word stays


class Word(NamedTuple):
    """A word, or several in a row, with the marks and space after it (and before the first)."""

    text: str
    start: int  # of what it owns in the cleaned text
    end: int
    shown: tuple[int, int]  # where the word is in the original text; empty where it is not found


def find_words(original: str, cleaned: str, most: int) -> list[Word]:
    """Return a text's words, but no marks; of more than `most`, neighbours are taken together."""
    if not cleaned:
        return []
    inside, at = [], 0
    for word in split_words(cleaned, SEGMENTED):
        if (start := cleaned.find(word, at)) >= 0:
            at = start + len(word)
            inside += [(start, at)] if is_word(word) else []
    inside = inside or [(0, len(cleaned))]
    per_word = -(-len(inside) // most)
    groups = [inside[i : i + per_word] for i in range(0, len(inside), per_word)]
    bounds = [0, *(group[0][0] for group in groups[1:]), len(cleaned)]
    place = _places(original, cleaned)
    found = []
    for group, (start, end) in zip(groups, pairwise(bounds), strict=True):
        first, last = group[0][0], group[-1][1]
        places = [place[i] for i in range(first, last) if i in place]
        shown = (min(places), max(places) + 1) if places else (0, 0)
        found.append(Word(cleaned[first:last], start, end, shown))
    return found


def without(cleaned: str, found: Sequence[Word], kept: Flags) -> str:
    """Return the cleaned text with the words that are `kept` (n,); a space where others were."""
    text, gap = "", False
    for word, stays in zip(found, kept, strict=True):
        if stays:
            text += (" " if gap else "") + cleaned[word.start : word.end]
        gap = not stays
    return " ".join(text.split())


def is_word(piece: str) -> bool:
    """Return whether there is a letter, a digit or an emoji in it."""
    return any(kind[0] in "LN" or kind == "So" for kind in map(unicodedata.category, piece))


def _places(original: str, cleaned: str) -> dict[int, int]:
    """Map positions in the cleaned text to positions in the original.

    Through the longest common stretches, without white space (Ratcliff & Metzener 1988).
    """
    read = enumerate(map(simplify, original))
    normal = [(x, i) for i, character in read for x in unicodedata.normalize("NFKC", character)]
    source, target = (
        [(character, i) for character, i in text if not character.isspace()]
        for text in (normal, zip(map(simplify, cleaned), range(len(cleaned)), strict=True))
    )
    matcher = SequenceMatcher(None, [c for c, _ in source], [c for c, _ in target])
    blocks = matcher.get_matching_blocks()
    return {target[x.b + k][1]: source[x.a + k][1] for x in blocks for k in range(x.size)}
