"""Similarity-aware feature interpolation attention (eq. 6 to 13), and plain cross-attention."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sgmft.errors import TEXTS, SgmftError

QKV = tuple[Tensor, Tensor, Tensor]
Mask = Tensor | None  # (B, n), True where a token is real; None where there is no padding


def check_heads(width: int, heads: int, element_width: int | None = None) -> None:
    """Raise SgmftError unless a width can be cut into heads, and those into elements if any."""
    parts = heads * (element_width or 1)
    if width % parts:
        elements = "" if element_width is None else f" of elements {element_width} wide"
        raise SgmftError(TEXTS["heads"], width=width, heads=heads, elements=elements, least=parts)


def _linear(width: int) -> nn.Linear:
    return nn.Linear(width, width, bias=False)


@dataclass(frozen=True)
class AttentionHeads:
    """Number of heads h, and the element width w (None in the tokens view)."""

    count: int
    element_width: int | None = None
    scale: float | None = None  # 1 / sqrt(d_K); None where d_K is the width of what is multiplied

    def split(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, h, n, D/h), or (B, D) -> (B, h, D/(h w), w)."""
        if self.element_width is None:
            return x.unflatten(-1, (self.count, -1)).transpose(1, 2)
        return x.unflatten(-1, (self.count, -1, self.element_width))

    def merge(self, x: Tensor) -> Tensor:
        """The inverse of `split`: heads concatenated."""
        return x.flatten(1) if self.element_width is not None else x.transpose(1, 2).flatten(2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Mask = None) -> Tensor:
        """Equations 8 and 9 for all heads: softmax(Q K^T / sqrt(d_K)) V, heads concatenated."""
        mask = None if key_mask is None else key_mask[:, None, None, :]
        q, k, v = self.split(q), self.split(k), self.split(v)
        return self.merge(scaled_dot_product_attention(q, k, v, mask, scale=self.scale))


class Projections(nn.Module):
    """Equations 6 and 7: one modality's W^Q, W^K, W^V, without bias as printed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = _linear(width), _linear(width), _linear(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K, V, each of x's shape."""
        return self.query(x), self.key(x), self.value(x)


def cross_heads(
    heads: AttentionHeads, text: QKV, image: QKV, text_mask: Mask, image_mask: Mask
) -> tuple[Tensor, Tensor]:
    """Equation 9 for both modalities, heads concatenated, before W^c.

    As printed in the elements view: the other modality's queries attend to this one's keys and
    values. In the tokens view, where the lengths differ, each modality has its own queries.
    """
    (q_t, k_t, v_t), (q_v, k_v, v_v) = text, image
    if heads.element_width is None:
        return heads.attend(q_t, k_v, v_v, image_mask), heads.attend(q_v, k_t, v_t, text_mask)
    return heads.attend(q_v, k_t, v_t), heads.attend(q_t, k_v, v_v)


class InterpolationAttention(nn.Module):
    """Self- and cross-attention of both modalities, mixed feature by feature by the gate P^m."""

    def __init__(self, width: int, heads: AttentionHeads, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.text, self.image = Projections(width), Projections(width)
        self.text_self, self.image_self = _linear(width), _linear(width)  # W^s
        self.text_cross, self.image_cross = _linear(width), _linear(width)  # W^c
        self.text_norm, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, text: Tensor, image: Tensor, gate: Tensor, text_mask: Mask, image_mask: Mask
    ) -> tuple[Tensor, Tensor]:
        """Equations 6 to 13: X^C of text and image, in their shapes; the gate is P^m (B, D)."""
        qkv_t: QKV = self.text(text)  # (B, n, D) each: eq. 6
        qkv_v: QKV = self.image(image)  # (B, m, D) each: eq. 7
        cross_t, cross_v = cross_heads(self.heads, qkv_t, qkv_v, text_mask, image_mask)  # eq. 9
        if self.heads.element_width is None:
            gate = gate[:, None, :]  # (B, 1, D), the same for every token
        self_t = self.text_self(self.heads.attend(*qkv_t, text_mask))  # (B, n, D): eq. 8, 10
        self_v = self.image_self(self.heads.attend(*qkv_v, image_mask))  # (B, m, D)
        mixed_t = self.text_cross(cross_t) * gate + self_t * (1 - gate)  # (B, n, D): eq. 11, 12
        mixed_v = self.image_cross(cross_v) * gate + self_v * (1 - gate)  # (B, m, D)
        text = self.text_norm(self.dropout(mixed_t) + text)  # (B, n, D): eq. 13
        image = self.image_norm(self.dropout(mixed_v) + image)  # (B, m, D)
        return text, image


class CrossAttention(nn.Module):
    """One layer of multi-head cross-attention for each modality: equation 11 with eq. 9's heads."""

    def __init__(self, width: int, heads: AttentionHeads) -> None:
        super().__init__()
        self.heads = heads
        self.text, self.image = Projections(width), Projections(width)
        self.text_cross, self.image_cross = _linear(width), _linear(width)

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Mask = None, image_mask: Mask = None
    ) -> tuple[Tensor, Tensor]:
        """CA of text and of image; arguments and shapes as in `InterpolationAttention`."""
        qkv = self.text(text), self.image(image)
        cross_t, cross_v = cross_heads(self.heads, *qkv, text_mask, image_mask)
        return self.text_cross(cross_t), self.image_cross(cross_v)
