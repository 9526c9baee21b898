"""Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335), the paper's encoder.

`chinese-clip-huge` (ViT-H/14 + RoBERTa-wwm-large, D = 1024) is the paper's. Pooled features are the
projected class tokens of both towers. Token features are the other tokens, projected alike; image
patches are then averaged to a grid. Only the class tokens pass the final norm and projection in the
library; token features are taken through the same two steps here.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.errors import SgmftError
from sgmft.features.encoders.adapters import digest_weights
from sgmft.features.encoders.base import EncoderInfo, Images, PreparedImage
from sgmft.features.encoders.device import pick_batch
from sgmft.features.encoders.hub import CHINESE_CLIP, Checkpoint, has_any, local_copy
from sgmft.features.encoders.library_encoders import Halves, TorchEncoder, look_up
from sgmft.utils.files import read_json, write_whole

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, used where a checkpoint names none
STD = (0.26862954, 0.26130258, 0.27577711)
QUICK = 1.702  # of "quick GELU" (Hendrycks & Gimpel 2016)


class ChineseClipEncoder(TorchEncoder):
    """Frozen Chinese-CLIP features.

    Its name is a key of `CHINESE_CLIP`, a folder with a checkpoint in the published format, or one
    that `sgmft train --tune` or `sgmft align` wrote; else SgmftError.
    """

    max_tokens = 52  # that it was trained with, [CLS] and [SEP] included

    def __init__(self, name: str, cleaning: str = "light", **settings: Any) -> None:
        super().__init__(**settings)
        clean = repr(get_cleaning(cleaning))
        self.model, changed, weights = self._open(self._find(name), self._base)
        parts = self._patch_grid, self._pixels, *([changed] if changed else [])
        known = (("image_mean", MEAN), ("image_std", STD))
        mean, std = (torch.tensor(self._pixels.get(*x))[:, None] for x in known)
        self._values = (torch.arange(256).float() / 255 - mean) / std  # of pixels, by channel
        if not self._trainable:
            fold_quick_gelu(self.model)
        self.model = self.model.eval().to(self._device, self._dtype)
        config = self.model.config
        # A layer holds its input, a norm of it, queries, keys, values, their result, and the widest
        # activations twice.
        image = config.vision_config
        values = 6 * image.hidden_size + 2 * image.intermediate_size
        each = ((image.image_size // image.patch_size) ** 2 + 1) * values * self._dtype.itemsize
        self._batch_size = self._batch_size or pick_batch(self._device.type, each, 16)
        self.info = EncoderInfo(
            name=name,
            fingerprint=_fingerprint(self.model, self._dtype, clean, *parts, self._design),
            text_width=config.projection_dim,
            image_width=config.projection_dim,
            shared_space=True,
            logit_scale=float(self.model.logit_scale.detach().float().exp()),
            image_size=config.vision_config.image_size,
            cleaning=cleaning,
            image_key=_fingerprint(self.model, self._dtype, *parts),
            weights=weights,
        )

    def _find(self, name: str, revision: str | None = None) -> Checkpoint:
        if (repository := CHINESE_CLIP.get(name)) is None:
            return Checkpoint(name, name)
        folder = local_copy(repository, revision, "vocab.txt")
        self.revision = Path(folder).name  # the cache's folders are called by the commit
        return Checkpoint(name, folder)

    def _load(self, checkpoint: Checkpoint) -> Any:
        from transformers import AutoTokenizer, ChineseCLIPModel

        folder = checkpoint.folder
        config = read_json(Path(folder) / "config.json") or {}
        words = has_any(folder, "vocab.txt", "tokenizer.json")  # the library would go on without
        if config.get("model_type") != "chinese_clip" or not words:
            raise SgmftError(
                f"There is no encoder {checkpoint.name!r}: use compact, compact-e5, cnn, "
                f"{', '.join(CHINESE_CLIP)}, hf:NAME, st:NAME, or a folder with a checkpoint; of "
                "Chinese-CLIP it has config.json (of model_type chinese_clip), vocab.txt and "
                "model.safetensors."
            )
        settings = Path(folder) / "preprocessor_config.json"
        self._pixels = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        given: dict[str, Any] = {"local_files_only": True}
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **given)
        # Heads, activations and norms do not show in the weights, nor do the words' numbers.
        towers = json.dumps([config.get(f"{x}_config") for x in ("text", "vision")], sort_keys=True)
        design = repr((towers, sorted(self.tokenizer.get_vocab().items())))
        self._design = hashlib.sha256(design.encode()).hexdigest()
        return ChineseCLIPModel.from_pretrained(folder, dtype=self._dtype, **given)

    def prepare_image(self, pixels: Images) -> PreparedImage:
        """See `TorchEncoder`; of a square."""
        return {"pictures": pixels[None]}

    def text_features(self, batch: Mapping[str, Tensor], tokens: bool) -> Halves:
        """See `TorchEncoder`; pooled is [CLS]."""
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        hidden = self.model.text_model(**given).last_hidden_state
        projected = self.model.text_projection(hidden if tokens else hidden[:, :1])
        return projected[:, 0], projected if tokens else None

    def image_features(self, batch: Mapping[str, Tensor], tokens: bool) -> Halves:
        """See `TorchEncoder`; pooled is the class token."""
        tower, project = self.model.vision_model, self.model.visual_projection
        pixels = look_up(self._values, batch["pictures"]).to(project.weight.dtype)
        output = tower(pixel_values=pixels)
        pooled = project(output.pooler_output)
        if not tokens:
            return pooled, None
        patches = tower.post_layernorm(output.last_hidden_state[:, 1:])  # (N, g², width)
        side = int(patches.shape[1] ** 0.5)
        square = patches.transpose(1, 2).unflatten(2, (side, side))
        grid = adaptive_avg_pool2d(square, self._patch_grid).flatten(2).transpose(1, 2)
        return pooled, project(grid)

    def save(self, model: Any, folder: Path) -> None:
        """See `TorchEncoder`."""
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        text = json.dumps(self._pixels, indent=2)
        write_whole(folder / "preprocessor_config.json", text.encode())


def fold_quick_gelu(model: Any) -> None:
    """Compute x sigmoid(1.702 x) as SiLU(1.702 x) / 1.702: one pass over wide arrays, not three."""
    from transformers.activations import QuickGELUActivation

    for block in model.vision_model.modules():
        if isinstance(getattr(block, "activation_fn", None), QuickGELUActivation):
            block.fc1.weight.data *= QUICK
            block.fc1.bias.data *= QUICK
            block.fc2.weight.data /= QUICK
            block.activation_fn = nn.SiLU(inplace=True)


def _fingerprint(model: Any, dtype: torch.dtype, *settings: object) -> str:
    return digest_weights(model, torch.float32, ("chinese-clip-2", str(dtype), settings))
