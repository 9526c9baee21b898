"""Co-attention of two token streams: `transformers`' own BridgeTower layers, in pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def layer_config(width: int, heads: int, hidden: int, dropout: float = 0.1) -> Any:
    """The shape of BridgeTower layers, as their constructors in `transformers` take it.

    Returns:
        A `BridgeTowerTextConfig`: post-norm, GELU, bridges that add, eager attention, which is the
        one kind that every supported version of `transformers` has for these layers.
    """
    from transformers import BridgeTowerTextConfig  # takes seconds: only who needs it waits

    kinds: dict[str, Any] = {"attn_implementation": "eager", "link_tower_type": "add"}
    return BridgeTowerTextConfig(
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=hidden,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **kinds,
    )


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores (B, h, n, m) so that only real keys count: (B, 1, 1, m).

    Args:
        mask: (B, m) True where a key is real; at least one in each row.
        dtype: of the features.
    """
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]


class CrossModalLayer(nn.Module):
    """BridgeTower's cross-modal layer (Xu et al. 2023), one set of weights for each stream.

    Self-attention, cross-attention to the other stream, feed-forward block, each followed by
    residual and LayerNorm. Both streams are updated from the same inputs.

    Args:
        width: D.
        heads: h.
        hidden: width of the feed-forward block.
        dropout: on attention weights and after each of the three parts.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.1) -> None:
        from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer

        super().__init__()
        config = layer_config(width, heads, hidden, dropout)
        self.text = BridgeTowerBertCrossLayer(config)
        self.image = BridgeTowerBertCrossLayer(config)

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both streams, (B, n, D) and (B, m, D); masks are True where a token is real."""
        words = additive_mask(text_mask, text.dtype)
        regions = additive_mask(image_mask, image.dtype)
        return (
            self.text(text, image, attention_mask=words, encoder_attention_mask=regions)[0],
            self.image(image, text, attention_mask=regions, encoder_attention_mask=words)[0],
        )
