"""Chinese-CLIP checkpoints: from the hub's cache, the hub, or a folder, in the published format."""

import hashlib
import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import torch

from sgmft.errors import SgmftError
from sgmft.utils.files import write_whole, writing

MODELS = {
    "chinese-clip-base": "OFA-Sys/chinese-clip-vit-base-patch16",
    "chinese-clip-large": "OFA-Sys/chinese-clip-vit-large-patch14",
    "chinese-clip-large-336px": "OFA-Sys/chinese-clip-vit-large-patch14-336px",
    "chinese-clip-huge": "OFA-Sys/chinese-clip-vit-huge-patch14",
}

HUB_SECONDS = 8.0  # to wait for the first response when a checkpoint is not on this machine


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

    folder = Path(name)
    source = MODELS.get(name, name)
    if name not in MODELS and not (folder / "config.json").is_file():
        raise SgmftError(
            f"There is no encoder {name!r}: use compact, cnn, {', '.join(MODELS)}, or a folder "
            "with a Chinese-CLIP checkpoint (config.json, vocab.txt, model.safetensors)."
        )
    logging.disable_progress_bar()
    try:
        if name in MODELS:
            source = _local_copy(source, revision)
        config = json.loads((Path(source) / "config.json").read_text("utf-8"))
        if config.get("model_type") != "chinese_clip":
            raise SgmftError(
                f"{name} holds a {config.get('model_type', 'nameless')} model, not a "
                "Chinese-CLIP checkpoint (model_type chinese_clip in config.json)."
            )
        settings = Path(source) / "preprocessor_config.json"
        pixels = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        if not _has_any(source, "vocab.txt", "tokenizer.json"):  # the library would go on without
            raise SgmftError(
                f"The encoder {name} cannot be read from {source}: there is no vocab.txt, or it is "
                "empty; copy it from where the checkpoint came from."
            )
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        model = ChineseCLIPModel.from_pretrained(source, local_files_only=True, dtype=dtype)
    except SgmftError:
        raise
    except Exception as error:  # a damaged checkpoint makes the library raise many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SgmftError(f"The encoder {name} cannot be read from {source}: {reason}") from error
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


def _has_any(folder: str, *patterns: str) -> bool:
    found = (path for pattern in patterns for path in Path(folder).glob(pattern))
    return any(path.is_file() and path.stat().st_size for path in found)


def _local_copy(repository: str, revision: str | None) -> str:
    """Return the folder of a hub repository, from the local cache or else fetched."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "vocab.txt", "*.safetensors", "pytorch_model.bin"]
    fetch = partial(snapshot_download, repository, revision=revision, allow_patterns=wanted)
    with suppress(OSError):
        folder = str(fetch(local_files_only=True))
        # Programs that asked for the configuration or the vocabulary only leave a part behind.
        if _has_any(folder, "*.safetensors", "pytorch_model.bin") and _has_any(folder, "vocab.txt"):
            return folder
    try:
        _check_hub()
        return str(fetch())
    except Exception as error:  # the hub's client raises many kinds; all mean the same to a user
        raise SgmftError(
            f"The weights of {repository} are not on this machine and cannot be fetched. On a "
            f"machine with a network run `hf download {repository} --local-dir clip/`, copy the "
            "folder clip/ here and pass it as --encoder clip/; or use --encoder compact, which "
            "needs no download."
        ) from error


def _check_hub() -> None:
    """Raise ConnectionError if the hub does not respond in time; its client retries for minutes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    responded = Event()

    def request() -> None:
        with suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
            responded.set()

    thread = Thread(target=request, daemon=True)  # one time-out for each of the host's addresses
    thread.start()
    thread.join(HUB_SECONDS)
    if not responded.is_set():
        raise ConnectionError(f"{constants.ENDPOINT} does not respond")
