"""Settings that all compared transformers have."""

from __future__ import annotations

from dataclasses import dataclass

from sgmft.models.attention import check_heads
from sgmft.models.base import NetworkConfig, Scale


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """The shape of a transformer over words and regions.

    Attributes:
        width: D; at 128 these systems are about as large as SG-MFT's tokens preset.
        heads: h.
        layers: how many.
        hidden_ratio: feed-forward width over D.
        dropout: in attention and after each part of a layer.
        scale: of the features that come in.
        max_images: images of one post with an index of their own.
    """

    width: int = 128
    heads: int = 8
    layers: int = 6
    hidden_ratio: float = 4.0
    dropout: float = 0.1
    scale: Scale = "standard"
    max_images: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("hidden_ratio")
        check_heads(self.width, self.heads)

    @property
    def hidden(self) -> int:
        """Width of the feed-forward blocks."""
        return max(1, round(self.hidden_ratio * self.width))
