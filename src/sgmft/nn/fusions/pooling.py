"""From tokens to one vector."""

from __future__ import annotations

from torch import Tensor


def pool(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over real tokens: (B, n, D) -> (B, D); a pooled feature (B, D) stays as it is."""
    if x.dim() == 2:
        return x
    if mask is None:
        return x.mean(1)
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
