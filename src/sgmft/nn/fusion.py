"""The similarity-aware fusion module (equation 17), and what stands in when it is left out."""

from __future__ import annotations

from torch import Tensor, nn

from sgmft.nn.attention import CrossAttention
from sgmft.nn.heads import Heads


def pool(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over real tokens: (B, n, D) -> (B, D); a pooled feature (B, D) stays as it is."""
    if x.dim() == 2:
        return x
    if mask is None:
        return x.mean(1)
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


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


class SumFusion(nn.Module):
    """No fusion module (Table 2's rows without SFM): the pooled features are added."""

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        text_mask: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """M_fuse (B, D)."""
        return pool(text, text_mask) + pool(image, image_mask)
