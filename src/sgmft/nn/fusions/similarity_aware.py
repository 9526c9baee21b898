"""The similarity-aware fusion module, SFM (equation 17)."""

from __future__ import annotations

from torch import Tensor, nn

from sgmft.nn.attention import CrossAttention
from sgmft.nn.fusions.pooling import pool
from sgmft.nn.heads import Heads


class SimilarityAwareFusion(nn.Module):
    """M_fuse = CA(X_text) + CA(X_image), after `layers` layers for each modality."""

    def __init__(self, width: int, heads: Heads, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossAttention(width, heads) for _ in range(layers))

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        text_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """M_fuse (B, D) of features in either view, tokens pooled under their masks."""
        for layer in self.layers:
            text, image = layer(text, image, text_mask, image_mask)
        return pool(text, text_mask) + pool(image, image_mask)
