"""Texts for systems that learn their own word embeddings: words as numbers of a vocabulary.

A model sees no text, only features, so each segmented word becomes the first 24 bits of the SHA-256
of its case-folded form, as three numbers 0..255, which float16 holds exactly;
`word_embeddings` looks them up. Of 20,000 words about 12 pairs share a number.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from sgmft.data.preprocessing.text import get_cleaning, split_words
from sgmft.features.encoders.base import Encoded, FloatArray

WORD_WIDTH = 3  # bytes of a word's number


def hash_word(word: str) -> bytes:
    """Hash a word to three bytes, the same for "Home" and "home"."""
    return hashlib.sha256(word.casefold().encode("utf-8", "surrogatepass")).digest()[:WORD_WIDTH]


class WordHashEncoder:
    """The text encoder of `cnn`; see the module, and `TextEncoder` for its arguments."""

    width = word_width = WORD_WIDTH
    packages: tuple[str, ...] = ("jieba",)

    def __init__(self, cleaning: str = "light", max_words: int = 64) -> None:
        self.cleaning, self.max_words = cleaning, max_words
        self._rules = get_cleaning(cleaning)

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts: their words' numbers (n, 3); pooled, for the store alone, the first's."""
        rows = [self._numbers(text) for text in texts]
        pooled = np.array([row[0] for row in rows], np.float32).reshape(-1, WORD_WIDTH)
        return Encoded(pooled, rows if tokens else None)

    def _numbers(self, text: str) -> FloatArray:
        found = split_words(text, self._rules, self.max_words) or [text]
        numbers = np.frombuffer(b"".join(map(hash_word, found)), np.uint8)
        return numbers.reshape(-1, WORD_WIDTH).astype(np.float32)
