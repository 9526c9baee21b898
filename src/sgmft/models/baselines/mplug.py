"""mPLUG (Li et al. 2022): asymmetric co-attention with a connected layer every few layers."""

from dataclasses import dataclass

import torch
from torch import nn

from sgmft.features.features import Batch
from sgmft.models.attention import check_heads
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.layers import asymmetric_layer, self_attention_layer
from sgmft.models.network import BimodalNetwork, Scale
from sgmft.models.presets import Dropout, Positive


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """The shape of a compared transformer over words and regions."""

    width: int = 128  # D; at 128 these systems are about as large as SG-MFT's tokens preset
    heads: int = 8  # h
    layers: int = 6  # how many
    hidden_ratio: Positive = 4.0  # feed-forward width over D
    dropout: Dropout = 0.1  # in attention and after each part of a layer
    scale: Scale = "standard"  # of the features that come in
    max_images: int = 16  # images of one post with an index of their own

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)

    @property
    def hidden(self) -> int:
        """Width of the feed-forward blocks."""
        return max(1, round(self.hidden_ratio * self.width))


@dataclass(frozen=True)
class MPLUGConfig(TransformerConfig):
    """The shape of mPLUG's fusion layers; layers, stride and hidden_ratio are as published."""

    layers: int = 6  # fusion layers, the connected ones included
    stride: int = 3  # S; layer i, counted from 0, is connected when i > 0 is a multiple of it

    @property
    def connected_layers(self) -> tuple[int, ...]:
        """Which layers attend over image and text together, counted from 0: (3,) by default."""
        return tuple(range(self.stride, self.layers, self.stride))


class MPLUG(BimodalNetwork):
    """Words attend to regions, which only the connected layers change.

    The published text encoder gives a [CLS] token, which the classifier reads. The features here
    have none: one learned class token, the same for all posts, stands before the words in its
    place. Our classifier is one linear layer.
    """

    config: MPLUGConfig

    def __init__(self, config: MPLUGConfig) -> None:
        D, c = config.width, config
        super().__init__(c, D, scale=c.scale, tokens=True, max_images=c.max_images, pooled=False)
        self.class_token = nn.Parameter(torch.randn(D) * D**-0.5)
        shape = (D, c.heads, c.hidden, c.dropout)
        self.layers = nn.ModuleList(
            self_attention_layer(*shape) if i in c.connected_layers else asymmetric_layer(*shape)
            for i in range(c.layers)
        )
        self.dropout = nn.Dropout(c.dropout)
        self.classifier = nn.Linear(D, c.classes)

    def forward(self, batch: Batch) -> Output:
        """Word and region features of B posts to logits (B, K)."""
        text, image, text_mask, image_mask = self.token_inputs(batch)  # (B, n, D), (B, m, D)
        x = torch.cat([self.class_token.expand(len(text), 1, -1), text], 1)  # (B, 1 + n, D)
        no_text = ~nn.functional.pad(text_mask, (1, 0), value=True)  # (B, 1 + n)
        no_image = ~image_mask
        for i, layer in enumerate(self.layers):
            if i in self.config.connected_layers:
                both = layer(
                    torch.cat([image, x], 1), src_key_padding_mask=torch.cat([no_image, no_text], 1)
                )  # (B, m + 1 + n, D)
                change, x = both.split([image.shape[1], x.shape[1]], 1)
                image = image + change  # V <- V + V'
            else:
                x = layer(x, image, tgt_key_padding_mask=no_text, memory_key_padding_mask=no_image)
        fused = x[:, 0]
        return Output(self.classifier(self.dropout(fused)), fused)
