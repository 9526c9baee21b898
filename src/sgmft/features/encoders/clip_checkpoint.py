"""Chinese-CLIP checkpoints: from the hub's cache, the hub, or a folder, in the published format."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sgmft.errors import SgmftError
from sgmft.features.encoders.hub import Checkpoint, has_any, local_copy
from sgmft.utils.files import read_json, write_whole, writing

MODELS = {
    "chinese-clip-base": "OFA-Sys/chinese-clip-vit-base-patch16",
    "chinese-clip-large": "OFA-Sys/chinese-clip-vit-large-patch14",
    "chinese-clip-large-336px": "OFA-Sys/chinese-clip-vit-large-patch14-336px",
    "chinese-clip-huge": "OFA-Sys/chinese-clip-vit-huge-patch14",
}


class ClipCheckpoint(NamedTuple):
    """A checkpoint in memory; tokenizer and model are the library's."""

    tokenizer: Any
    model: Any
    pixels: dict[str, Any]  # how images are prepared
    design: str  # digest of vocabulary and network's design, which do not show in the weights
    revision: str | None  # of the hub's repository it is from; None for a folder
    changed: str = ""  # digest of what fine-tuning added to it
    digest: str = ""  # by which an adapter knows the checkpoint again that it was trained on


def load_checkpoint(name: str, dtype: torch.dtype, revision: str | None = None) -> ClipCheckpoint:
    """Load a checkpoint by its public name, a key of `MODELS`, or from a folder.

    The revision is of the hub's repository; by default the newest that is here, or else there.
    SgmftError where it is not here and cannot be fetched, or is no Chinese-CLIP checkpoint.
    """
    from transformers import AutoTokenizer, ChineseCLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = local_copy(MODELS[name], revision, "vocab.txt") if name in MODELS else name
    with Checkpoint(name, source).reading():
        config = read_json(Path(source) / "config.json") or {}
        words = has_any(source, "vocab.txt", "tokenizer.json")  # the library would go on without
        if config.get("model_type") != "chinese_clip" or not words:
            raise SgmftError(
                f"There is no encoder {name!r}: use compact, compact-e5, cnn, {', '.join(MODELS)}, "
                "hf:NAME, st:NAME, or a folder with a checkpoint; of Chinese-CLIP it has "
                "config.json (of model_type chinese_clip), vocab.txt and model.safetensors."
            )
        settings = Path(source) / "preprocessor_config.json"
        pixels = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        model = ChineseCLIPModel.from_pretrained(source, local_files_only=True, dtype=dtype)
    # Heads, activations and norms do not show in the weights, nor do the words' numbers.
    towers = [config.get("text_config"), config.get("vision_config")]
    design = repr((json.dumps(towers, sort_keys=True), sorted(tokenizer.get_vocab().items())))
    digest = hashlib.sha256(design.encode()).hexdigest()
    commit = Path(source).name if name in MODELS else None  # the cache's folders are called so
    return ClipCheckpoint(tokenizer, model, pixels, digest, commit)


def save_checkpoint(checkpoint: ClipCheckpoint, folder: Path) -> None:
    """Write a checkpoint in the published format; SgmftError where the folder cannot be written."""
    with writing(folder):
        checkpoint.model.save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
        text = json.dumps(checkpoint.pixels, indent=2)
        write_whole(folder / "preprocessor_config.json", text.encode())
