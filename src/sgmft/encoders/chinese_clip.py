"""Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335), the paper's encoder.

`chinese-clip-huge` (ViT-H/14 + RoBERTa-wwm-large, D = 1024) is the paper's. Pooled features are the
projected class tokens of both towers. Only those pass the final norm and projection in the library,
so the token features are taken through the same two steps here; picture patches are then averaged
to a grid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmft.encoders.base import Encoded, EncoderInfo, FloatArray
from sgmft.encoders.batches import encode_numbered_texts, encode_pictures
from sgmft.encoders.clip_towers import PictureTower, TextTower, fold_quick_gelu
from sgmft.encoders.device import pick_device, pick_dtype
from sgmft.errors import SgmftError
from sgmft.text import get_cleaning

MODELS = {
    "chinese-clip-base": "OFA-Sys/chinese-clip-vit-base-patch16",
    "chinese-clip-large": "OFA-Sys/chinese-clip-vit-large-patch14",
    "chinese-clip-large-336px": "OFA-Sys/chinese-clip-vit-large-patch14-336px",
    "chinese-clip-huge": "OFA-Sys/chinese-clip-vit-huge-patch14",
}
MAX_TEXT_TOKENS = 52  # the context length Chinese-CLIP was trained with, [CLS] and [SEP] included
HUB_SECONDS = 8.0  # to wait for the first answer when a checkpoint is not on this machine
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, used where a checkpoint names none
STD = (0.26862954, 0.26130258, 0.27577711)


class ChineseClipEncoder:
    """Frozen Chinese-CLIP features.

    Args:
        name: a key of `MODELS`, or a local folder holding a checkpoint in the published format.
        cleaning: the text cleaning, see `sgmft.text.CLEANINGS`.
        patch_grid: picture tokens are averaged to patch_grid x patch_grid regions.
        batch_size: texts or pictures in one forward pass.
        device: a torch device; by default a GPU if there is one.
        dtype: "bfloat16" or "float32"; by default whichever the hardware computes natively.

    Raises:
        SgmftError: the checkpoint is not on this machine and cannot be fetched, or is no
            Chinese-CLIP checkpoint.
    """

    def __init__(
        self,
        name: str,
        cleaning: str = "light",
        *,
        patch_grid: int = 4,
        batch_size: int = 16,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        get_cleaning(cleaning)
        self._batch_size = batch_size
        self._device = pick_device(device)
        self._dtype: torch.dtype = getattr(torch, dtype) if dtype else pick_dtype(self._device)
        self.tokenizer, self._model, pixels, design = _load(name, self._dtype)
        fold_quick_gelu(self._model)
        self._model = self._model.eval().to(self._device, self._dtype)
        mean, std = pixels.get("image_mean", MEAN), pixels.get("image_std", STD)
        self.texts = TextTower(self._model)
        self.pictures = PictureTower(self._model, mean, std, patch_grid).to(self._device)
        config = self._model.config
        self._info = EncoderInfo(
            name=name,
            fingerprint=_fingerprint(
                self._model, self._dtype, cleaning, patch_grid, pixels, design
            ),
            text_width=config.projection_dim,
            image_width=config.projection_dim,
            shared_space=True,
            logit_scale=float(self._model.logit_scale.detach().float().exp()),
            image_size=config.vision_config.image_size,
            cleaning=cleaning,
            image_key=_fingerprint(self._model, self._dtype, patch_grid, pixels),
        )

    @property
    def info(self) -> EncoderInfo:
        """Widths, settings and fingerprint."""
        return self._info

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Projected [CLS] features (N, D), and the projected features of the other real tokens.

        Texts beyond 52 tokens are cut, as in training. Batches hold texts of similar length.
        """
        ids: list[list[int]] = (
            self.tokenizer(list(texts), truncation=True, max_length=MAX_TEXT_TOKENS)["input_ids"]
            if texts
            else []
        )

        def run(numbers: NDArray[np.int64], mask: NDArray[np.int64]) -> FloatArray:
            given = (torch.from_numpy(x).to(self._device) for x in (numbers, mask))
            return _to_numpy(self.texts(*given, tokens))

        width = self._info.text_width
        return encode_numbered_texts(ids, self._batch_size, width, tokens, run)

    @torch.inference_mode()
    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Projected class-token features (N, D), and a grid of projected patch features."""

        def run(batch: NDArray[np.uint8]) -> list[FloatArray]:
            said = self.pictures(torch.from_numpy(batch).to(self._device), tokens)
            return [_to_numpy(x) for x in said]

        width = self._info.image_width
        return encode_pictures(pictures, self._batch_size, width, tokens, run)


def _to_numpy(x: Tensor) -> FloatArray:
    return np.asarray(x.float().cpu().numpy())


def _fingerprint(model: Any, dtype: torch.dtype, *settings: object) -> str:
    """Digest of the settings and of a fixed sample of every weight: cheap, and enough to differ."""
    digest = hashlib.sha256(repr(("chinese-clip-2", str(dtype), settings)).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _load(name: str, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any], str]:
    """Tokenizer, model, picture settings, and a digest of the vocabulary and the network's design.

    The name is a public one or a local folder. Weights are read as `dtype`, one after another.
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
            source = _local_copy(source)
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
    return tokenizer, model, pixels, hashlib.sha256(design.encode()).hexdigest()


def _has_any(folder: str, *patterns: str) -> bool:
    found = (path for pattern in patterns for path in Path(folder).glob(pattern))
    return any(path.is_file() and path.stat().st_size for path in found)


def _local_copy(repository: str) -> str:
    """Folder of a hub repository, from the local cache or else fetched."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "vocab.txt", "*.safetensors", "pytorch_model.bin"]
    with suppress(OSError):
        folder = snapshot_download(repository, allow_patterns=wanted, local_files_only=True)
        # Programs that asked for the configuration or the vocabulary only leave a part behind.
        if _has_any(folder, "*.safetensors", "pytorch_model.bin") and _has_any(folder, "vocab.txt"):
            return folder
    try:
        _check_hub()
        return snapshot_download(repository, allow_patterns=wanted)
    except Exception as error:  # the hub's client raises many kinds; all mean the same to a user
        raise SgmftError(
            f"The weights of {repository} are not on this machine and cannot be fetched. On a "
            f"machine with a network run `hf download {repository} --local-dir clip/`, copy the "
            "folder clip/ here and pass it as --encoder clip/; or use --encoder compact, which "
            "needs no download."
        ) from error


def _check_hub() -> None:
    """Raise ConnectionError if the hub gives no answer in time; its client retries for minutes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    answered = Event()

    def ask() -> None:
        with suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
            answered.set()

    asking = Thread(target=ask, daemon=True)  # one time-out for each of the host's addresses
    asking.start()
    asking.join(HUB_SECONDS)
    if not answered.is_set():
        raise ConnectionError(f"{constants.ENDPOINT} gives no answer")
