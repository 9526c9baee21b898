"""Made-up token features with padding and missing sides, and networks with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmft.features.features import Batch
from sgmft.features.ragged import Ragged

WORDS, REGIONS = [4, 1, 3, 0], [3, 6, 0, 4]  # the third post has no picture, the fourth no text
WIDTHS = {"classes": 3, "text_width": 6, "image_width": 5}

# For fusion modules: two posts of four words and five regions, D numbers each.
D, HEADS = 8, 2
TEXT_MASK = torch.tensor([[True, True, True, True], [True, False, True, False]])
IMAGE_MASK = torch.arange(5) < torch.tensor([[5], [2]])

# For networks of pooled features, of eight posts.
HAS_TEXT = torch.tensor([True, True, False, True, True, False, True, True])
HAS_IMAGE = torch.tensor([True, True, True, False, True, False, True, True])


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def pooled_batch() -> Batch:
    """Pooled features of eight posts, seven numbers of a text and five of an image."""
    return Batch(normal(8, 7), normal(8, 5, seed=9), HAS_TEXT, HAS_IMAGE)


def vectors(x: Tensor) -> Ragged:
    """Vectors (N, D) as networks are given them."""
    return Ragged.packed(x.numpy(), np.array([len(x)]))


def random_batch(seed: int = 0) -> Batch:
    """Four posts with random numbers in padding and in missing sides."""
    words, regions = torch.tensor(WORDS), torch.tensor(REGIONS)
    return Batch(
        normal(4, 6, seed=seed),
        normal(4, 5, seed=seed + 1),
        words > 0,
        regions > 0,
        normal(4, 4, 6, seed=seed + 2),
        torch.arange(4) < words[:, None],
        normal(4, 6, 5, seed=seed + 3),
        torch.arange(6) < regions[:, None],
        (torch.arange(6) // 2).expand(4, -1),
        torch.tensor([[3, 9, 3], [7, -1, -1], [1, 2, -1], [-1, -1, -1]], dtype=torch.int32),
    )


def randomize(module: Any, seed: int = 0) -> Any:
    """The same module in float64 and for evaluation, every weight and scale moved at random."""
    torch.manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
        for name, b in module.named_buffers():
            b.copy_(torch.rand_like(b) + 0.5 if "deviation" in name else torch.randn_like(b))
    return module


def assert_close(a: Tensor, b: Tensor) -> None:
    """Equal but for rounding in float64."""
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
