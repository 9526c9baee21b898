"""Asymmetric co-attention (Li et al. 2022, mPLUG) in the SFM's place."""

from __future__ import annotations

from torch import Tensor, nn

from sgmft.nn.fusions.pooling import pool
from sgmft.nn.heads import Heads
from sgmft.nn.transformer import asymmetric_layer, require_tokens


class AsymmetricCoAttention(nn.Module):
    """The text attends to itself and to the image, which stays untouched; tokens view only.

    A block has 16 D^2 weights, as many as two layers of the SFM, so that there is one block for
    every two `layers`, and at least one.

    Args:
        width: D.
        heads: h, of the tokens view.
        layers: the SFM's layers, 8 D^2 weights each, whose size is to be matched.

    Raises:
        SgmftError: the heads are those of the elements view.
    """

    def __init__(self, width: int, heads: Heads, layers: int = 2) -> None:
        super().__init__()
        require_tokens(heads, "asymmetric-co-attention")
        self.blocks = nn.ModuleList(
            asymmetric_layer(width, heads.count, 4 * width) for _ in range(max(1, layers // 2))
        )

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
        """M_fuse (B, D), the mean over the text tokens, of (B, n, D), (B, m, D) and their masks."""
        for block in self.blocks:
            text = block(  # (B, n, D)
                text, image, tgt_key_padding_mask=~text_mask, memory_key_padding_mask=~image_mask
            )
        return pool(text, text_mask)
