"""Merge-attention (Hendricks et al. 2021) in the SFM's place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgmft.nn.fusions.pooling import pool
from sgmft.nn.heads import Heads
from sgmft.nn.transformer import require_tokens, self_attention_layer


class MergeAttention(nn.Module):
    """One transformer over [T + e0; V + e1], words and regions as one sequence; tokens view only.

    A layer has 8 D^2 weights, as many as a layer of the SFM, with a feed-forward width of 2 D.

    Args:
        width: D.
        heads: h, of the tokens view.
        layers: transformer layers.

    Raises:
        SgmftError: the heads are those of the elements view.
    """

    def __init__(self, width: int, heads: Heads, layers: int = 2) -> None:
        super().__init__()
        require_tokens(heads, "merge-attention")
        self.types = nn.Parameter(0.02 * torch.randn(2, width))  # e0, e1
        self.layers = nn.ModuleList(
            self_attention_layer(width, heads.count, 2 * width) for _ in range(layers)
        )

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
        """M_fuse (B, D), the mean over all tokens, of (B, n, D), (B, m, D) and their masks."""
        x = torch.cat([text + self.types[0], image + self.types[1]], 1)  # (B, n + m, D)
        mask = torch.cat([text_mask, image_mask], 1)  # (B, n + m)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        return pool(x, mask)
