"""From an encoder's features to the model's: scale, width D, missing sides, several pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Scale = Literal["none", "unit", "standard"]


class Vectors(Protocol):
    """N vectors (N, D): a tensor, or what is read part by part since it may not fit into memory."""

    def __len__(self) -> int: ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """The vectors in order, `size` at a time."""
        ...


def divisor(deviation: Tensor) -> Tensor:
    """What to divide features by: their deviation, or 1 where they are constant.

    Divided by next to nothing, the rounding of a constant would become a feature itself.
    """
    return deviation.masked_fill(deviation <= 1e-4, 1.0)


class Normalizer(nn.Module):
    """Feature scale: as the encoder gives it, unit length, or standardised on the training set."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, kind: Scale) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def fit(self, x: Vectors) -> None:
        """Take mean and standard deviation from real training features (N, width).

        In float64 and part by part: all regions of many posts would not fit into memory as floats.
        """
        if self.kind == "standard" and len(x) > 1:
            total, squares = self.mean.new_zeros(2, self.mean.numel()).double()
            for part in x.split(8192):
                total += part.double().sum(0)
            mean = total / len(x)
            for part in x.split(8192):
                squares += (part.double() - mean).square_().sum(0)
            deviation = (squares / (len(x) - 1)).sqrt()
            self.mean.copy_(mean)
            self.deviation.copy_(divisor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, rescaled over the last axis."""
        if self.kind == "unit":
            return nn.functional.normalize(x, dim=-1)
        if self.kind == "standard":
            return (x - self.mean) / self.deviation
        return x


class ModalityInput(nn.Module):
    """One modality's way in.

    A missing side is stood in for by one learned, unmasked null token, and its pooled feature by
    the same vector; masking every key would make a softmax undefined. Pooled and token features of
    one width are taken to D by one linear map; of two widths, by one map each.

    Args:
        source: the encoder's width of pooled features.
        width: the model's D.
        projected: whether a learned linear map takes source to D (needed where the widths differ
            or the encoder's two towers share no space).
        scale: see `Normalizer`.
        tokens: whether token features come in too.
        pictures: how many pictures of one post are told apart; 0 for the text.
        token_source: the encoder's width of one token; 0 for the same as `source`.
        pooled: whether pooled features come in; a map of their own is not made for nothing.
    """

    def __init__(
        self,
        source: int,
        width: int,
        projected: bool,
        scale: Scale,
        tokens: bool,
        pictures: int = 0,
        token_source: int = 0,
        pooled: bool = True,
    ) -> None:
        super().__init__()
        token_source = token_source or source
        apart = tokens and token_source != source
        self.pooled_scale = Normalizer(source, scale)
        self.token_scale = Normalizer(token_source, scale) if tokens else None
        self.reads_pooled = pooled
        used = projected and (pooled or not apart)
        self.project = nn.Linear(source, width) if used else nn.Identity()
        self.project_tokens = nn.Linear(token_source, width) if apart else None
        self.null = nn.Parameter(torch.randn(width) * width**-0.5)
        self.index = nn.Embedding(pictures, width) if pictures and tokens else None
        if self.index is not None:
            nn.init.zeros_(self.index.weight)

    def fit(self, pooled: Vectors, tokens: Vectors | None) -> None:
        """Take the scales from training features (N, source) and tokens (M, token_source)."""
        self.pooled_scale.fit(pooled)
        if self.token_scale is not None and tokens is not None:
            self.token_scale.fit(tokens)

    def pooled(self, x: Tensor, present: Tensor) -> Tensor:
        """(B, source) -> (B, D), the null vector where absent."""
        if not self.reads_pooled:
            raise ValueError("this model was built without pooled features")
        return torch.where(present[:, None], self.project(self.pooled_scale(x)), self.null)

    def tokens(
        self, x: Tensor, mask: Tensor, present: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, n, token_source), mask -> (B, n, D), mask, the null token first where absent."""
        if self.token_scale is None:
            raise ValueError("this model was built without token features")
        project = self.project if self.project_tokens is None else self.project_tokens
        tokens = project(self.token_scale(x))
        if self.index is not None and index is not None:
            tokens = tokens + self.index(index.clamp(max=self.index.num_embeddings - 1))
        mask = mask & present[:, None]
        first = torch.zeros_like(mask)
        first[:, 0] = ~mask.any(1)
        tokens = torch.where(first[..., None], self.null, tokens)
        return tokens * (mask | first)[..., None], mask | first
