"""How features are cut into heads and elements: the two views of a feature.

tokens view: a feature is a sequence of n words or regions, (B, n, D); a head attends over the n
tokens with D/h numbers of each.
elements view: a feature is one pooled vector, (B, D); each of the h heads takes its D/h numbers as
a sequence of D/(h w) elements of w numbers. w = 1 is the literal reading of equation 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sgmft.errors import SgmftError


def check_heads(width: int, heads: int) -> None:
    """Raise SgmftError unless a width can be cut into heads."""
    if width % heads:
        raise SgmftError(
            f"width {width} cannot be cut into {heads} heads: choose a multiple of {heads}."
        )


@dataclass(frozen=True)
class Heads:
    """Number of heads h, and the element width w (None in the tokens view)."""

    count: int
    element_width: int | None = None

    @property
    def own_queries(self) -> bool:
        """Whether cross-attention asks with its own queries (tokens) or the other's (eq. 9)."""
        return self.element_width is None

    def split(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, h, n, D/h), or (B, D) -> (B, h, D/(h w), w)."""
        if self.element_width is None:
            return x.unflatten(-1, (self.count, -1)).transpose(1, 2)
        return x.unflatten(-1, (self.count, -1, self.element_width))

    def merge(self, x: Tensor) -> Tensor:
        """The inverse of `split`: heads concatenated."""
        return x.flatten(1) if self.element_width is not None else x.transpose(1, 2).flatten(2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Equations 8 and 9 for all heads: softmax(Q K^T / sqrt(d_K)) V, heads concatenated.

        Args:
            q, k, v: features as `split` takes them.
            key_mask: True where a key is real, (B, m); None when all are.
        """
        mask = None if key_mask is None else key_mask[:, None, None, :]
        heads = scaled_dot_product_attention(
            self.split(q), self.split(k), self.split(v), attn_mask=mask
        )
        return self.merge(heads)
