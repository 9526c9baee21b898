"""The input of a model: features of a batch of posts, and which of them are missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


def keep_modalities(has_text: Any, has_image: Any, share: float, draws: Any) -> tuple[Any, Any]:
    """Return which modalities posts have (B,) after dropout; see `Batch.drop_modalities`."""
    dropped, text = has_text & has_image & (draws[0] < share), draws[1] < 0.5
    return has_text & ~(dropped & text), has_image & ~(dropped & ~text)


def limit_modalities(has_text: Any, has_image: Any, parts: int) -> tuple[Any, Any]:
    """Return which modalities posts have (B,) if they had no others than these `PARTS`."""
    return has_text & bool(parts & 1), has_image & bool(parts & 2)


class Batch(NamedTuple):
    """Features of B posts. What stands in for a missing text or image is not read.

    They are arrays as `Features` has them, and tensors where `to` has made them so.
    """

    text: Any  # (B, Dt) pooled
    image: Any  # (B, Dv) pooled, mean over the post's images
    has_text: Any  # (B,) bool
    has_image: Any  # (B,) bool
    text_tokens: Any = None  # (B, n, Dt)
    text_mask: Any = None  # (B, n) True where real
    image_tokens: Any = None  # (B, m, Dv), the regions of all images one after another
    image_mask: Any = None  # (B, m)
    image_index: Any = None  # (B, m) which of the post's images a region belongs to
    ngrams: Any = None  # (B, g) of the text, int32, padded with -1; always an array

    def drop_modalities(self, share: float, draws: Any) -> Batch:
        """Drop, of a share of the posts that have both, one modality.

        Draws (2, B) are uniform in 0..1; the first decides whether, the second which.
        """
        has_text, has_image = keep_modalities(self.has_text, self.has_image, share, draws)
        return self._replace(has_text=has_text, has_image=has_image)

    def with_parts(self, parts: int) -> Batch:
        """Return the posts as if they had no others than these `PARTS`."""
        has_text, has_image = limit_modalities(self.has_text, self.has_image, parts)
        return self._replace(has_text=has_text, has_image=has_image)

    def to(self, device: Any) -> Batch:
        """Return the batch as tensors on a device."""
        import torch

        def tensor(x: Any) -> Any:
            if x is None:
                return None
            if isinstance(x, np.ndarray) and not x.flags.writeable:  # mapped, torch warns of it
                x = x.copy()
            return torch.as_tensor(x, device=device)

        return Batch._make([*map(tensor, self[:-1]), self.ngrams])
