"""The input of a model: features of a batch of posts, and which of them are missing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def remaining_modalities(
    has_text: Tensor, has_image: Tensor, share: float, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """Return which modalities posts have (B,) after dropout; see `Batch.drop_modalities`."""
    dropped, text = has_text & has_image & (draws[0] < share), draws[1] < 0.5
    return has_text & ~(dropped & text), has_image & ~(dropped & ~text)


class Batch(NamedTuple):
    """Features of B posts. What stands in for a missing text or image is not read."""

    text: Tensor  # (B, Dt) pooled
    image: Tensor  # (B, Dv) pooled, mean over the post's images
    has_text: Tensor  # (B,) bool
    has_image: Tensor  # (B,) bool
    text_tokens: Tensor | None = None  # (B, n, Dt)
    text_mask: Tensor | None = None  # (B, n) True where real
    image_tokens: Tensor | None = None  # (B, m, Dv), the regions of all images one after another
    image_mask: Tensor | None = None  # (B, m)
    image_index: Tensor | None = None  # (B, m) which of the post's images a region belongs to
    ngrams: Tensor | None = None  # (B, g) of the text, int32, padded with -1
    ngram_counts: Tensor | None = None  # (B, g); given, a post's n-grams are all different

    def drop_modalities(self, share: float, draws: Tensor) -> Batch:
        """Drop, of a share of the posts that have both, one modality.

        Args:
            share: in 0..1.
            draws: (2, B), uniform in 0..1; the first decides whether, the second which.
        """
        has_text, has_image = remaining_modalities(self.has_text, self.has_image, share, draws)
        return self._replace(has_text=has_text, has_image=has_image)

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return Batch._make(None if x is None else x.to(device) for x in self)
