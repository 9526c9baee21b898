"""Fusion modules (Table 3): one signature, exchangeable by name.

A fusion module is built as `Module(width, heads, layers)`, with D, the `AttentionHeads`, and how
many layers the SFM would have, 8 D^2 weights each, whose size the others match. It is called as
`module(text, image, text_mask, image_mask)`, see docs/compare.md, and returns M_fuse (B, D).
`FUSIONS["mine"] = Mine` adds one of your own, which `fusion="mine"` chooses.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sgmft.errors import TEXTS, SgmftError
from sgmft.models.attention import AttentionHeads, CrossAttention, Mask
from sgmft.models.network import CrossModalLayer, asymmetric_layer, self_attention_layer


def pool(x: Tensor, mask: Mask) -> Tensor:
    """Mean over real tokens: (B, n, D) -> (B, D); a pooled feature (B, D) stays as it is."""
    if x.dim() == 2:
        return x
    if mask is None:
        return x.mean(1)
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def _require_tokens(heads: AttentionHeads, name: str) -> None:
    if heads.element_width is not None:
        raise SgmftError(TEXTS["fusion of tokens"], name=name)


class AsymmetricCoAttention(nn.Module):
    """The text attends to itself and the image, one block of 16 D^2 weights for two `layers`."""

    def __init__(self, width: int, heads: AttentionHeads, layers: int = 2) -> None:
        super().__init__()
        _require_tokens(heads, "asymmetric-co-attention")
        shape, count = (width, heads.count, 4 * width), max(1, layers // 2)
        self.blocks = nn.ModuleList(asymmetric_layer(*shape) for _ in range(count))

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
        """M_fuse, the mean over the text tokens."""
        masks = {"tgt_key_padding_mask": ~text_mask, "memory_key_padding_mask": ~image_mask}
        for block in self.blocks:
            text = block(text, image, **masks)  # (B, n, D)
        return pool(text, text_mask)


class CoAttention(nn.Module):
    """Words and regions attend to each other, one layer of 18 D^2 weights for two `layers`."""

    def __init__(self, width: int, heads: AttentionHeads, layers: int = 2) -> None:
        super().__init__()
        _require_tokens(heads, "co-attention")
        shape, count = (width, heads.count, max(1, width // 2)), max(1, layers // 2)
        self.blocks = nn.ModuleList(CrossModalLayer(*shape) for _ in range(count))

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
        """M_fuse, the streams' means added."""
        for block in self.blocks:
            text, image = block(text, image, text_mask, image_mask)  # (B, n, D), (B, m, D)
        return pool(text, text_mask) + pool(image, image_mask)


class MergeAttention(nn.Module):
    """One transformer over the tokens [T + e0; V + e1], 2 D hidden: layers of 8 D^2 weights."""

    def __init__(self, width: int, heads: AttentionHeads, layers: int = 2) -> None:
        super().__init__()
        _require_tokens(heads, "merge-attention")
        self.types = nn.Parameter(0.02 * torch.randn(2, width))  # e0, e1
        shape = width, heads.count, 2 * width
        self.layers = nn.ModuleList(self_attention_layer(*shape) for _ in range(layers))

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
        """M_fuse, the mean over all tokens."""
        x = torch.cat([text + self.types[0], image + self.types[1]], 1)  # (B, n + m, D)
        mask = torch.cat([text_mask, image_mask], 1)  # (B, n + m)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        return pool(x, mask)


class SimilarityAwareFusion(nn.Module):
    """M_fuse = CA(X_text) + CA(X_image), after `layers` layers for each modality."""

    def __init__(self, width: int, heads: AttentionHeads, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossAttention(width, heads) for _ in range(layers))

    def forward(self, text: Tensor, image: Tensor, text_mask: Mask, image_mask: Mask) -> Tensor:
        """M_fuse in either view, tokens pooled under their masks: eq. 17."""
        for layer in self.layers:
            text, image = layer(text, image, text_mask, image_mask)  # (B, n, D), (B, m, D)
        return pool(text, text_mask) + pool(image, image_mask)


FUSIONS: dict[str, Callable[[int, AttentionHeads, int], nn.Module]] = {
    "sfm": SimilarityAwareFusion,
    "sum": lambda width, heads, _: SimilarityAwareFusion(width, heads, 0),  # of pooled features
    "asymmetric-co-attention": AsymmetricCoAttention,
    "merge-attention": MergeAttention,
    "co-attention": CoAttention,
}
