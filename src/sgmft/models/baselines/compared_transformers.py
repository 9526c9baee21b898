"""mPLUG (Li et al. 2022) and BridgeTower (Xu et al. 2023), transformers over words and regions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.features.features import Batch
from sgmft.models import network
from sgmft.models.attention import check_heads
from sgmft.models.base import NetworkConfig, Output
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
    """Asymmetric co-attention: words attend to regions, which only connected layers change.

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
        kinds = network.asymmetric_layer, network.self_attention_layer
        self.layers = nn.ModuleList(kinds[i in c.connected_layers](*shape) for i in range(c.layers))
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
                nothing = torch.cat([no_image, no_text], 1)  # (B, m + 1 + n)
                both = layer(torch.cat([image, x], 1), src_key_padding_mask=nothing)  # (.., D)
                change, x = both.split([image.shape[1], x.shape[1]], 1)
                image = image + change  # V <- V + V'
            else:
                x = layer(x, image, tgt_key_padding_mask=no_text, memory_key_padding_mask=no_image)
        fused = x[:, 0]
        return Output(self.classifier(self.dropout(fused)), fused)


@dataclass(frozen=True)
class BridgeTowerConfig(TransformerConfig):
    """The shape of BridgeTower; published are width 768, 12 heads and 6 layers."""

    layers: int = 3  # cross-modal layers; all but the first are bridged to a tower's layer


class Tower(nn.Module):
    """One modality's tower: learned class token, uni-modal layers, bridges to cross-modal ones."""

    def __init__(self, config: BridgeTowerConfig) -> None:
        from transformers.models.bridgetower import modeling_bridgetower as published

        super().__init__()
        D, above = config.width, range(config.layers - 1)
        shape = network.layer_config(D, config.heads, config.hidden, config.dropout)
        self.class_token = nn.Parameter(torch.randn(D) * D**-0.5)
        self.type_embedding = nn.Parameter(0.02 * torch.randn(D))
        self.norm = nn.LayerNorm(D)
        self.layers = nn.ModuleList(published.BridgeTowerTextLayer(shape) for _ in above)
        self.bridges = nn.ModuleList(published.BridgeTowerLinkTower(shape) for _ in above)
        self.pooler = published.BridgeTowerPooler(shape)

    def first(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The class token before the tokens: T_1 and its mask, (B, 1 + n, D) and (B, 1 + n)."""
        cls = self.class_token.expand(len(tokens), 1, -1)
        return torch.cat([cls, tokens], 1), nn.functional.pad(mask, (1, 0), value=True)

    def climb(self, k: int, tokens: Tensor, mask: Tensor) -> Tensor:
        """T_k from T_{k-1}, both (B, 1 + n, D); k counts from 2."""
        out = self.layers[k - 2](tokens, network.additive_mask(mask, tokens.dtype))
        return out if isinstance(out, Tensor) else out[0]  # a tuple up to transformers 4

    def bridge(self, k: int, tokens: Tensor, stream: Tensor | None) -> Tensor:
        """Input of level k's cross-modal layer: LN(T_1) first, then LN(T_k + x)."""
        x = tokens + self.type_embedding
        return self.norm(x) if stream is None else self.bridges[k - 2](x, stream, None)


class BridgeTower(BimodalNetwork):
    """A cross-modal encoder that every level of both towers is bridged into.

    The published model bridges the last six layers of its trained encoders. Here only their last
    layer's tokens are cached, so that the towers are `layers - 1` uni-modal layers on top of those:
    T_1 are the projected tokens after a learned class token, and T_{k+1} = layer_k(T_k). All layers
    are those of `transformers`, newly initialised and post-norm: no shared post-norm is needed.
    """

    def __init__(self, config: BridgeTowerConfig) -> None:
        D, c = config.width, config
        super().__init__(c, D, scale=c.scale, tokens=True, max_images=c.max_images, pooled=False)
        self.text_tower, self.image_tower = Tower(c), Tower(c)
        shape = D, c.heads, c.hidden, c.dropout
        self.cross_modal = nn.ModuleList(network.CrossModalLayer(*shape) for _ in range(c.layers))
        hidden = nn.Linear(2 * D, 2 * D), nn.LayerNorm(2 * D), nn.GELU()
        self.classifier = nn.Sequential(*hidden, nn.Linear(2 * D, c.classes))

    def forward(self, batch: Batch) -> Output:
        """Word and region features of B posts to logits (B, K); `fused` is cls (B, 2 D)."""
        text, image, text_mask, image_mask = self.token_inputs(batch)  # (B, n, D), (B, m, D)
        t, text_mask = self.text_tower.first(text, text_mask)  # T_1 (B, 1 + n, D)
        v, image_mask = self.image_tower.first(image, image_mask)  # V_1 (B, 1 + m, D)
        x = y = None
        for k, layer in enumerate(self.cross_modal, 1):
            if k > 1:
                t = self.text_tower.climb(k, t, text_mask)  # T_k
                v = self.image_tower.climb(k, v, image_mask)
            x, y = self.text_tower.bridge(k, t, x), self.image_tower.bridge(k, v, y)
            x, y = layer(x, y, text_mask, image_mask)
        cls = torch.cat([self.text_tower.pooler(x), self.image_tower.pooler(y)], 1)  # (B, 2 D)
        return Output(self.classifier(cls), cls)
