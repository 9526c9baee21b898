"""Chinese-CLIP checkpoints in the published format, from the hub or a folder, and fine-tuned ones.

Fine-tuning may leave LoRA matrices beside the weights (Hu et al. 2021, arXiv 2106.09685), by peft.
Their folder holds peft's two files and a description of the checkpoint they belong to, so that it
is an encoder by itself wherever that checkpoint can be found.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sgmft.errors import SgmftError
from sgmft.features.encoders.hub import CHINESE_CLIP, Checkpoint, has_any, local_copy
from sgmft.utils import checksums
from sgmft.utils.checksums import FILES
from sgmft.utils.extras import needs_extra
from sgmft.utils.files import read_json, write_whole, writing

DESCRIPTION = "encoder.json"
MATRICES = ("adapter_config.json", "adapter_model.safetensors")  # peft's names
FORMAT = 1
FIX = "copy or train the fine-tuned encoder again"


class ClipCheckpoint(NamedTuple):
    """A checkpoint in memory; tokenizer and model are the library's."""

    tokenizer: Any
    model: Any
    pixels: dict[str, Any]  # how images are prepared
    design: str  # digest of vocabulary and network's design, which do not show in the weights
    revision: str | None  # of the hub's repository it is from; None for a folder
    changed: str = ""  # digest of what fine-tuning added to it
    digest: str = ""  # by which an adapter knows the checkpoint again that it was trained on


def _load(name: str, dtype: torch.dtype, revision: str | None) -> ClipCheckpoint:
    from transformers import AutoTokenizer, ChineseCLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    repository = CHINESE_CLIP.get(name)
    source = local_copy(repository, revision, "vocab.txt") if repository else name
    with Checkpoint(name, source).reading():
        config = read_json(Path(source) / "config.json") or {}
        words = has_any(source, "vocab.txt", "tokenizer.json")  # the library would go on without
        if config.get("model_type") != "chinese_clip" or not words:
            raise SgmftError(
                f"There is no encoder {name!r}: use compact, compact-e5, cnn, "
                f"{', '.join(CHINESE_CLIP)}, hf:NAME, st:NAME, or a folder with a checkpoint; of "
                "Chinese-CLIP it has config.json (of model_type chinese_clip), vocab.txt and "
                "model.safetensors."
            )
        settings = Path(source) / "preprocessor_config.json"
        pixels = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        model = ChineseCLIPModel.from_pretrained(source, local_files_only=True, dtype=dtype)
    # Heads, activations and norms do not show in the weights, nor do the words' numbers.
    towers = [config.get("text_config"), config.get("vision_config")]
    design = repr((json.dumps(towers, sort_keys=True), sorted(tokenizer.get_vocab().items())))
    digest = hashlib.sha256(design.encode()).hexdigest()
    commit = Path(source).name if repository else None  # the cache's folders are called so
    return ClipCheckpoint(tokenizer, model, pixels, digest, commit)


def save_checkpoint(checkpoint: ClipCheckpoint, folder: Path) -> None:
    """Write a checkpoint in the published format; SgmftError where the folder cannot be written."""
    with writing(folder):
        checkpoint.model.save_pretrained(folder)
        checkpoint.tokenizer.save_pretrained(folder)
        text = json.dumps(checkpoint.pixels, indent=2)
        write_whole(folder / "preprocessor_config.json", text.encode())


def add_adapter(model: Any, modules: Sequence[str], rank: int, alpha: float) -> Any:
    """Put LoRA matrices beside linear maps; they begin as no change, and only they are trained.

    The change is alpha / r B A, with B (out, r) and A (r, in). Modules of the model, a
    `transformers.ChineseCLIPModel`, are replaced in place; returns the `peft.PeftModel` around it.
    """
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules))
    with _quiet():
        return peft.get_peft_model(model, config)


def save_adapter(adapted: Any, folder: Path, base: str, read: ClipCheckpoint) -> None:
    """Write LoRA matrices, and `base`, the name or folder of the checkpoint, which is `read`.

    SgmftError where the folder cannot be written.
    """
    with writing(folder):
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's, an empty form
        known = {"name": base, "revision": read.revision, "digest": read.digest}
        digests = checksums.file_digests(folder / name for name in MATRICES)
        described = {"format": FORMAT, "base": known, FILES: digests}
        checksums.write_with_checksum(folder / DESCRIPTION, described)


def open_checkpoint(
    name: str, dtype: torch.dtype, base: str | None = None, revision: str | None = None
) -> ClipCheckpoint:
    """Load a checkpoint, a key of `CHINESE_CLIP` or a folder, or an adapter merged into its own.

    `base` is where an adapter's checkpoint is now, if it was a folder that moved; the revision is
    of the hub's repository, by default the newest that is here, or else there. SgmftError where one
    is not here and cannot be fetched, is damaged or of another kind, or belongs to other weights.
    """
    folder = Path(name)
    if not (folder / DESCRIPTION).is_file():
        read = _load(name, dtype, revision)
        # The same in both precisions of reading.
        return read._replace(digest=digest_weights(read.model, torch.bfloat16))
    described = _described(folder)
    known = described["base"]
    read = open_checkpoint(base or known["name"], dtype, revision=known["revision"])
    if read.digest != known["digest"]:
        raise SgmftError(
            f"The fine-tuned encoder {folder} was made from other weights than those of "
            f"{base or known['name']}: give the checkpoint it was trained from."
        )
    with _quiet():
        model = _peft().PeftModel.from_pretrained(read.model, str(folder)).merge_and_unload()
    changed = checksums.digest_of(described[FILES] | {"before": read.digest})
    return read._replace(model=model, changed=changed, digest=changed[:16])


def digest_weights(model: Any, dtype: torch.dtype, settings: object = "") -> str:
    """Return a digest of settings and a fixed sample of every weight: enough to differ."""
    digest = hashlib.sha256(repr(settings).encode() if settings else b"")
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.flatten()[:64].to(dtype).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _described(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        described = checksums.read_with_checksum(path, FORMAT, FIX)
        known = described["base"]
        if known.keys() != {"name", "revision", "digest"} or described[FILES].keys() != {*MATRICES}:
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SgmftError(f"{path} cannot be read, or is of another kind: {FIX}.") from error
    for name in MATRICES:
        checksums.check_file(folder / name, described, FIX)
    return described


def _quiet() -> AbstractContextManager[object]:
    """Keep from users that peft calls the library by a deprecated name."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def _peft() -> Any:
    with needs_extra("tune", "LoRA"):
        import peft
    return peft
