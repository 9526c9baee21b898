"""The two towers of Chinese-CLIP with their projections: token ids and pixels to features.

Only the class tokens pass the final norm and projection in the library; token features are taken
through the same two steps here. Both can be written as ONNX (docs/export.md).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

QUICK = 1.702  # of "quick GELU" (Hendrycks & Gimpel 2016)


def fold_quick_gelu(model: Any) -> None:
    """Compute x sigmoid(1.702 x) as SiLU(1.702 x) / 1.702, both factors in the linear maps beside.

    One pass over the widest arrays of the image tower in the place of three.
    """
    from transformers.activations import QuickGELUActivation

    for block in model.vision_model.modules():
        if isinstance(getattr(block, "activation_fn", None), QuickGELUActivation):
            block.fc1.weight.data *= QUICK
            block.fc1.bias.data *= QUICK
            block.fc2.weight.data /= QUICK
            block.activation_fn = nn.SiLU(inplace=True)


class TextTower(nn.Module):
    """The text tower of a `transformers.ChineseCLIPModel`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projection = model.text_model, model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor, words: bool = True) -> Tensor:
        """Map token ids and their mask (N, n) to projected tokens (N, n, D), [CLS] first.

        Without `words` only [CLS] is projected, (N, 1, D).
        """
        hidden = self.tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.projection(hidden if words else hidden[:, :1])


class ImageTower(nn.Module):
    """The image tower of a `transformers.ChineseCLIPModel`; `mean` and `std` of colours in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: Any, mean: Sequence[float], std: Sequence[float], patch_grid: int
    ) -> None:
        super().__init__()
        self.tower, self.projection = model.vision_model, model.visual_projection
        self.patch_grid = patch_grid
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor, regions: bool = True) -> tuple[Tensor, ...]:
        """RGB images (N, s, s, 3), uint8, to projected class tokens (N, D), regions (N, r, D)."""
        pixels = ((images.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        output = self.tower(pixel_values=pixels.to(self.projection.weight.dtype))
        pooled = self.projection(output.pooler_output)
        if not regions:
            return (pooled,)
        patches = self.tower.post_layernorm(output.last_hidden_state[:, 1:])  # (N, g², width)
        side = int(patches.shape[1] ** 0.5)
        square = patches.transpose(1, 2).unflatten(2, (side, side))
        grid = adaptive_avg_pool2d(square, self.patch_grid).flatten(2).transpose(1, 2)
        return pooled, self.projection(grid)
