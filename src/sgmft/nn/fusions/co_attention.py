"""Co-attention (Dou et al. 2022, METER) in the SFM's place."""

from __future__ import annotations

from torch import Tensor, nn

from sgmft.nn.cross_modal import CrossModalLayer
from sgmft.nn.fusions.pooling import pool
from sgmft.nn.heads import Heads
from sgmft.nn.transformer import require_tokens


class CoAttention(nn.Module):
    """Words and regions attend to themselves and to each other; tokens view only.

    BridgeTower's cross-modal layer without bridges. With a feed-forward width of D/2 it has 18 D^2
    weights, about as many as two layers of the SFM, so that there is one for every two `layers`,
    and at least one.

    Args:
        width: D.
        heads: h, of the tokens view.
        layers: the SFM's layers, 8 D^2 weights each, whose size is to be matched.

    Raises:
        SgmftError: the heads are those of the elements view.
    """

    def __init__(self, width: int, heads: Heads, layers: int = 2) -> None:
        super().__init__()
        require_tokens(heads, "co-attention")
        hidden = max(1, width // 2)
        self.blocks = nn.ModuleList(
            CrossModalLayer(width, heads.count, hidden) for _ in range(max(1, layers // 2))
        )

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
        """M_fuse (B, D), the streams' means added, of (B, n, D), (B, m, D) and their masks."""
        for block in self.blocks:
            text, image = block(text, image, text_mask, image_mask)
        return pool(text, text_mask) + pool(image, image_mask)
