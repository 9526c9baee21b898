"""Where numbers stand in a sorted vocabulary: a binary search that can be exported, too."""

from __future__ import annotations

import torch
from torch import Tensor


def find(vocabulary: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the vocabulary's numbers each x is, and whether it is one of them.

    Args:
        vocabulary: (V,), ascending, all different, V >= 1.
        x: of any shape and the vocabulary's type.

    Returns:
        Places 0..V-1 in x's shape, int64, and True where the number is known; the place of one
        that is not means nothing.
    """
    search = _bisect if torch.compiler.is_exporting() else _searchsorted
    place = search(vocabulary, x)
    return place, vocabulary[place] == x


def _searchsorted(vocabulary: Tensor, x: Tensor) -> Tensor:
    return torch.searchsorted(vocabulary, x).clamp(max=len(vocabulary) - 1)


def _bisect(vocabulary: Tensor, x: Tensor) -> Tensor:
    """The last place whose number is at most x, or 0: log2 V gathers, since ONNX has no search."""
    size = len(vocabulary)
    place = torch.zeros_like(x, dtype=torch.long)
    step = 1 << (size - 1).bit_length()
    while step := step // 2:
        ahead = place + step
        reached = (ahead < size) & (vocabulary[ahead.clamp(max=size - 1)] <= x)
        place = torch.where(reached, ahead, place)
    return place
