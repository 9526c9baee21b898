"""Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335), the paper's encoder.

`chinese-clip-huge` (ViT-H/14 + RoBERTa-wwm-large, D = 1024) is the paper's. Pooled features are the
projected class tokens of both towers. Token features are the other tokens, projected alike; image
patches are then averaged to a grid.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.base import Images, PreparedImage
from sgmft.features.encoders.hub import CHINESE_CLIP, Checkpoint, has_any, local_copy
from sgmft.features.encoders.library_encoders import TransformersEncoder
from sgmft.utils.files import read_json

QUICK = 1.702  # of "quick GELU" (Hendrycks & Gimpel 2016)


class ChineseClipEncoder(TransformersEncoder):
    """Frozen Chinese-CLIP features; images are squashed to a square, not cut.

    Its name is a key of `CHINESE_CLIP`, a folder with a checkpoint in the published format, or one
    that `sgmft train --tune` or `sgmft align` wrote; else SgmftError.
    """

    _is_by_weights = True
    max_tokens = 52  # that it was trained with, [CLS] and [SEP] included

    def __init__(self, name: str, cleaning: str = "light", **settings: Any) -> None:
        super().__init__(self._find(name), cleaning, **settings)
        if not self._trainable:
            fold_quick_gelu(self.model)
        self.info = replace(self.info, image_size=self.model.config.vision_config.image_size)

    def _find(self, name: str, revision: str | None = None) -> Checkpoint:
        if (repository := CHINESE_CLIP.get(name)) is None:
            return Checkpoint(name, name)
        folder = local_copy(repository, revision, "vocab.txt")
        self.revision = Path(folder).name  # the cache's folders are called by the commit
        return Checkpoint(name, folder)

    def _load(self, checkpoint: Checkpoint) -> Any:
        folder = checkpoint.folder
        config = read_json(Path(folder) / "config.json") or {}
        words = has_any(folder, "vocab.txt", "tokenizer.json")  # the library would go on without
        files = words and has_any(folder, "preprocessor_config.json")
        if config.get("model_type") != "chinese_clip" or not files:
            clips = ", ".join(CHINESE_CLIP)
            raise SgmftError(TEXTS["no encoder"], name=checkpoint.name, clips=clips)
        return super()._load(checkpoint)

    def prepare_image(self, pixels: Images) -> PreparedImage:
        """See `TorchEncoder`."""
        edge = self.model.config.vision_config.image_size
        if pixels.shape[:2] != (edge, edge):
            pixels = np.asarray(Image.fromarray(pixels).resize((edge, edge)))
        return {"pictures": pixels[None]}


def fold_quick_gelu(model: Any) -> None:
    """Compute x sigmoid(1.702 x) as SiLU(1.702 x) / 1.702: one pass over wide arrays, not three."""
    from transformers.activations import QuickGELUActivation

    for block in model.vision_model.modules():
        if isinstance(getattr(block, "activation_fn", None), QuickGELUActivation):
            block.fc1.weight.data *= QUICK
            block.fc1.bias.data *= QUICK
            block.fc2.weight.data /= QUICK
            block.activation_fn = nn.SiLU(inplace=True)
