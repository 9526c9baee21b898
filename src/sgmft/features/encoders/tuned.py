"""Folders with what `sgmft train --tune lora` or `sgmft align` learned: encoders by themselves."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sgmft.errors import TEXTS, SgmftError, needs_extra, raising
from sgmft.features.encoders.base import Encoded, Encoder, FloatArray
from sgmft.utils.checksums import FILES, MALFORMED, digest_of, read_own, write_description
from sgmft.utils.files import make_whole, writing

if TYPE_CHECKING:
    import torch

ADAPTED = "encoder.json"
MATRICES = ("adapter_config.json", "adapter_model.safetensors")  # peft's names
PROJECTED, WEIGHTS = "projected.json", "projections.safetensors"
FORMAT = 1  # of either description
TUNE_AGAIN = "copy or train the fine-tuned encoder again"
ALIGN_AGAIN = "copy the aligned encoder, or align it, again"


class Adapter(NamedTuple):
    """LoRA matrices (Hu et al. 2021, arXiv 2106.09685), by peft, beside a checkpoint's weights.

    They are in a folder, and not read yet; it describes the checkpoint, wherever that is found.
    """

    folder: str
    base: str  # name or folder of the checkpoint
    revision: str | None  # of its hub repository, where the name does not say it
    digest: str  # of its weights, see `digest_weights`
    files: dict[str, str]  # digests of peft's

    def merge(self, model: Any, digest: str, name: str) -> tuple[Any, str]:
        """Add the matrices to a checkpoint of this digest; return it, and its new digest."""
        if digest != self.digest:
            raise SgmftError(TEXTS["other checkpoint"], folder=self.folder, name=name)
        with lora_library() as peft:
            model = peft.PeftModel.from_pretrained(model, self.folder).merge_and_unload()
        return model, digest_of(self.files | {"before": digest})


def save_adapter(adapted: Any, folder: Path, base: str, revision: str | None, digest: str) -> None:
    """Write LoRA matrices, and which checkpoint they belong to, see `Adapter`."""
    with writing(folder):
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's, an empty form
        (folder / MATRICES[1]).chmod(0o644)  # else only its owner reads it
        known = {"name": base, "revision": revision, "digest": digest}
        write_description(folder / ADAPTED, {"format": FORMAT, "base": known}, MATRICES)


def read_adapter(folder: str | Path) -> Adapter | None:
    """Read what a folder says of the matrices in it; None without any, SgmftError if damaged."""
    if not (path := Path(folder) / ADAPTED).is_file():
        return None
    with raising(f"{path} cannot be read, or is of another kind: {TUNE_AGAIN}.", *MALFORMED):
        described = read_own(path, FORMAT, str(path), TUNE_AGAIN, MATRICES)
        known, files = described["base"], described[FILES]
        if known.keys() != {"name", "revision", "digest"} or files.keys() != {*MATRICES}:
            raise TypeError
    return Adapter(str(folder), known["name"], known["revision"], known["digest"], files)


def digest_weights(model: Any, dtype: "torch.dtype", settings: object = "") -> str:
    """Return a digest of settings and a fixed sample of every weight: enough to differ."""
    digest = hashlib.sha256(repr(settings).encode() if settings else b"")
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.flatten()[:64].to(dtype).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def lora_library() -> Iterator[Any]:
    """Yield the package, and keep from users that it calls the library by a deprecated name."""
    with needs_extra("tune", "LoRA"):
        import peft
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        yield peft


class Maps(NamedTuple):
    """Maps x to (x - mean) @ weight.T, one per modality; the deviations are in the weights."""

    text_mean: FloatArray  # (Dt,)
    text_weight: FloatArray  # (D, Dt)
    image_mean: FloatArray  # (Dv,)
    image_weight: FloatArray  # (D, Dv)


class ProjectedEncoder:
    """Features of another encoder, both modalities and words mapped into one space of width D."""

    def __init__(self, base: Encoder, maps: Maps, name: str, logit_scale: float) -> None:
        digest = hashlib.sha256(base.info.fingerprint.encode())
        for x in maps:
            digest.update(np.ascontiguousarray(x).data)
        widths = ("text_width", "image_width", "word_width")
        known: dict[str, Any] = dict.fromkeys(widths, len(maps.text_weight))
        known |= {"name": name, "fingerprint": digest.hexdigest()[:16]}
        known |= {"image_key": "", "pinned": ""}
        known["has_tokens"] = base.info.has_tokens and base.info.word_width <= base.info.text_width
        self.prepare_image = getattr(base, "prepare_image", np.asarray)
        self.encode_joint = getattr(base, "encode_joint", None)  # as it is
        self.encode_texts = partial(_encode, base.encode_texts, *maps[:2])  # as `Encoder` has it
        self.encode_images = partial(_encode, base.encode_images, *maps[2:])
        self.info = replace(base.info, **known, shared_space=True, logit_scale=logit_scale)


def _encode(encode: Any, mean: FloatArray, weight: FloatArray, given: Any, tokens: bool) -> Encoded:
    """Encode and map features; those of a word, where they are fewer, as the first of a text's."""
    found = encode(given, tokens)

    def project(x: FloatArray) -> FloatArray:
        width = x.shape[-1]
        return np.asarray((x - mean[:width]) @ weight[:, :width].T, np.float32)

    own = None if found.tokens is None else list(map(project, found.tokens))
    return Encoded(project(found.pooled), own)


def save_projected(folder: Path, base: str, maps: Maps, logit_scale: float) -> None:
    """Write a folder that `load_encoder` takes, for an encoder of the name `base`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        make_whole(folder / WEIGHTS, lambda path: save_file(maps._asdict(), path))
        described = {"format": FORMAT, "base": base, "logit_scale": logit_scale}
        write_description(folder / PROJECTED, described, [WEIGHTS])


def read_projected(folder: str | Path) -> tuple[str, Maps, float] | None:
    """Read the base's name, the maps, and the scale of similarities, if a folder holds such."""
    if not (path := Path(folder) / PROJECTED).is_file():
        return None
    bad = f"{folder} cannot be read as an aligned encoder: {ALIGN_AGAIN}."
    with raising(bad, *MALFORMED, SafetensorError):
        described = read_own(path, FORMAT, str(path), ALIGN_AGAIN, [WEIGHTS])
        maps = Maps(**load_file(path.with_name(WEIGHTS)))
        return described["base"], maps, float(described["logit_scale"])
