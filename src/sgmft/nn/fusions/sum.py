"""No fusion module: Table 2's rows without SFM."""

from __future__ import annotations

from torch import Tensor, nn

from sgmft.nn.fusions.pooling import pool
from sgmft.nn.heads import Heads


class SumFusion(nn.Module):
    """The pooled features of both sides are added; nothing is learned."""

    def __init__(self, width: int, heads: Heads, layers: int = 0) -> None:
        super().__init__()

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        text_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """M_fuse (B, D)."""
        return pool(text, text_mask) + pool(image, image_mask)
