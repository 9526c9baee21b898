"""The image networks of `compact` in torch, as their package has them."""

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from sgmft.features.encoders.image_weights import MEAN, NETWORKS, STD, load_weights


@torch.inference_mode()
def encode(images: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB images (N, 260, 260, 3) to pooled (N, 2560) and regions (N, grid², 2560)."""
    maps = []
    for number, size in NETWORKS.items():
        network = EfficientNet.from_name(f"efficientnet-lite{number}").eval()
        weights = load_weights(number)
        network.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()})
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != size:
            pixels = interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
        maps.append(network.extract_features((pixels - MEAN) / STD))
    pooled = torch.cat([x.mean((2, 3)) for x in maps], -1)
    regions = torch.cat([adaptive_avg_pool2d(x, grid).flatten(2) for x in maps], 1)
    return pooled.numpy(), regions.transpose(1, 2).numpy()
