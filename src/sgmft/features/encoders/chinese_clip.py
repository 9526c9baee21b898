"""Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335), the paper's encoder.

`chinese-clip-huge` (ViT-H/14 + RoBERTa-wwm-large, D = 1024) is the paper's. Pooled features are the
projected class tokens of both towers. Token features are the other tokens, projected alike; image
patches are then averaged to a grid. Only the class tokens pass the final norm and projection in the
library; token features are taken through the same two steps here. Both towers can be written as
ONNX (docs/export.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.features.encoders.base import Encoded, EncoderInfo, FloatArray, Images
from sgmft.features.encoders.batches import encode_image_batches, encode_token_ids
from sgmft.features.encoders.clip_checkpoint import digest_weights, open_checkpoint
from sgmft.features.encoders.device import pick_batch, pick_device, pick_dtype

MAX_TEXT_TOKENS = 52  # the context length Chinese-CLIP was trained with, [CLS] and [SEP] included
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, used where a checkpoint names none
STD = (0.26862954, 0.26130258, 0.27577711)
QUICK = 1.702  # of "quick GELU" (Hendrycks & Gimpel 2016)


class ChineseClipEncoder:
    """Frozen Chinese-CLIP features.

    Its name is a key of `CHINESE_CLIP`, a folder with a checkpoint in the published format, or one
    that `sgmft train --tune` or `sgmft align` wrote. SgmftError where the checkpoint is not on this
    machine and cannot be fetched, or is none.
    """

    def __init__(
        self,
        name: str,
        cleaning: str = "light",
        *,
        patch_grid: int = 4,  # image tokens are averaged to patch_grid x patch_grid regions
        # texts or images in one forward pass; by default 16 on a CPU, on a GPU up to 128, as
        # memory allows
        batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,  # "bfloat16" or "float32"; None is what the hardware computes
        base: str | None = None,  # where the checkpoint of a fine-tuned encoder has moved to
    ) -> None:
        clean = repr(get_cleaning(cleaning))
        self._device = pick_device(device)
        self._dtype: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(self._device)
        read = open_checkpoint(name, self._dtype, base)
        self.tokenizer, self._model, pixels = read.tokenizer, read.model, read.pixels
        settings = (patch_grid, pixels, read.changed) if read.changed else (patch_grid, pixels)
        fold_quick_gelu(self._model)
        self._model = self._model.eval().to(self._device, self._dtype)
        self.text_tower = TextTower(self._model)
        self.image_tower = ImageTower(self._model, pixels, patch_grid).to(self._device)
        config = self._model.config
        # A layer holds its input, a norm of it, queries, keys, values, their result, and the widest
        # activations twice.
        image = config.vision_config
        values = 6 * image.hidden_size + 2 * image.intermediate_size
        each = ((image.image_size // image.patch_size) ** 2 + 1) * values * self._dtype.itemsize
        self._batch_size = batch_size or pick_batch(self._device.type, each, 16)
        self.info = EncoderInfo(
            name=name,
            fingerprint=_fingerprint(self._model, self._dtype, clean, *settings, read.design),
            text_width=config.projection_dim,
            image_width=config.projection_dim,
            shared_space=True,
            logit_scale=float(self._model.logit_scale.detach().float().exp()),
            image_size=config.vision_config.image_size,
            cleaning=cleaning,
            image_key=_fingerprint(self._model, self._dtype, *settings),
            weights=read.digest,
        )

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts: projected [CLS] (N, D), and the projected features of the other tokens.

        Texts beyond 52 tokens are cut, as in training. Batches hold texts of similar length.
        """

        def run(*batch: NDArray[np.int64]) -> FloatArray:
            given = (torch.from_numpy(x).to(self._device) for x in batch)
            return _to_numpy(self.text_tower(*given, tokens))

        ids, width = tokenize(self.tokenizer, texts), self.info.text_width
        return encode_token_ids(ids, self._batch_size, width, tokens, run)

    @torch.inference_mode()
    def encode_images(self, images: Images, tokens: bool) -> Encoded:
        """Encode images: projected class tokens (N, D), and a grid of projected patches."""

        def run(batch: Images) -> list[FloatArray]:
            outputs = self.image_tower(torch.from_numpy(batch).to(self._device), tokens)
            return [_to_numpy(x) for x in outputs]

        return encode_image_batches(images, self._batch_size, self.info.image_width, tokens, run)


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
    """The image tower of a `transformers.ChineseCLIPModel`; `pixels` is how images are prepared."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, pixels: Mapping[str, Any], patch_grid: int) -> None:
        super().__init__()
        self.tower, self.projection = model.vision_model, model.visual_projection
        self.patch_grid = patch_grid
        self.register_buffer("mean", torch.tensor(pixels.get("image_mean", MEAN)))
        self.register_buffer("std", torch.tensor(pixels.get("image_std", STD)))

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


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text's tokens, [CLS] first and [SEP] last; at most 52."""
    if not texts:
        return []
    return list(tokenizer(list(texts), truncation=True, max_length=MAX_TEXT_TOKENS)["input_ids"])


def _to_numpy(x: Tensor) -> FloatArray:
    return np.asarray(x.float().cpu().numpy())


def _fingerprint(model: Any, dtype: torch.dtype, *settings: object) -> str:
    return digest_weights(model, torch.float32, ("chinese-clip-2", str(dtype), settings))
