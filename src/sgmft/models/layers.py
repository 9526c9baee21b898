"""Building blocks of several networks: layers, vocabulary look-up, the classifier of eq. 18."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def layer_config(width: int, heads: int, hidden: int, dropout: float = 0.1) -> Any:
    """The shape of BridgeTower layers for `transformers`: post-norm, GELU, bridges that add."""
    from transformers import BridgeTowerTextConfig  # takes seconds: only who needs it waits

    # the one kind of attention that every supported version has for these layers
    settings: dict[str, Any] = {"attn_implementation": "eager", "link_tower_type": "add"}
    settings |= {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": hidden}
    settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BridgeTowerTextConfig(**settings)


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Make of a mask (B, m), True where a key is real, one to add to scores, (B, 1, 1, m)."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]


class CrossModalLayer(nn.Module):
    """BridgeTower's cross-modal layer (Xu et al. 2023), one set of weights for each stream.

    Self-attention, cross-attention to the other stream, feed-forward block (`hidden` wide), each
    followed by residual and LayerNorm. Both streams are updated from the same inputs.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.1) -> None:
        from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer

        super().__init__()
        config = layer_config(width, heads, hidden, dropout)
        self.text, self.image = (BridgeTowerBertCrossLayer(config) for _ in "tv")

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both streams, (B, n, D) and (B, m, D); masks are True where a token is real."""
        words = additive_mask(text_mask, text.dtype)
        regions = additive_mask(image_mask, image.dtype)
        return (
            self.text(text, image, attention_mask=words, encoder_attention_mask=regions)[0],
            self.image(image, text, attention_mask=regions, encoder_attention_mask=words)[0],
        )


def lookup(vocabulary: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return places of numbers x in a vocabulary (V,), ascending, V >= 1, and which are known."""
    if torch.compiler.is_exporting():
        place = _bisect(vocabulary, x)
    else:
        place = torch.searchsorted(vocabulary, x).clamp(max=len(vocabulary) - 1)
    return place, vocabulary[place] == x


def _bisect(vocabulary: Tensor, x: Tensor) -> Tensor:
    """The last place whose number is at most x, or 0: log2 V gathers, since ONNX has no search."""
    size = len(vocabulary)
    place = torch.zeros_like(x, dtype=torch.long)
    step = 1 << (size - 1).bit_length()
    while step := step // 2:
        ahead = place + step
        reached = (ahead < size) & (vocabulary[ahead.clamp(max=size - 1)] <= x)
        place = torch.where(reached, ahead, place)
    return place


# Both are called with x (B, n, D), and masks that are True where there is no token.
# x = LN(x + SA(x)); x = LN(x + FFN(x)), FFN = GELU(x W1 + b1) W2 + b2
self_attention_layer = partial(nn.TransformerEncoderLayer, activation="gelu", batch_first=True)
# mPLUG's asymmetric co-attention, x = LN(x + CA(x, V)) before the FFN; V (B, m, D) is read only
asymmetric_layer = partial(nn.TransformerDecoderLayer, activation="gelu", batch_first=True)


def classifier(
    width: int, classes: int, hidden: Sequence[int] = (512, 256, 128, 64), dropout: float = 0.1
) -> nn.Sequential:
    """Layers with ReLU and dropout between, (B, width) to (B, classes): eq. 18, no softmax."""
    sizes = (width, *hidden)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
