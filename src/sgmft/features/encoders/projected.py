"""An encoder whose features are mapped into a space of both modalities, as `sgmft align` learns."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sgmft.errors import raising
from sgmft.features.encoders.base import Encoded, Encoder, FloatArray
from sgmft.utils.checksums import MALFORMED, read_own, write_description
from sgmft.utils.files import make_whole, writing

DESCRIPTION, WEIGHTS = "projected.json", "projections.safetensors"
FORMAT = 1
FIX = "copy the aligned encoder, or align it, again"


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
        write_description(folder / DESCRIPTION, described, [WEIGHTS])


def read_projected(folder: str | Path) -> tuple[str, Maps, float] | None:
    """Read the base's name, the maps, and the scale of similarities, if a folder holds such."""
    if not (path := Path(folder) / DESCRIPTION).is_file():
        return None
    bad = f"{folder} cannot be read as an aligned encoder: {FIX}."
    with raising(bad, *MALFORMED, SafetensorError):
        described = read_own(path, FORMAT, str(path), FIX, [WEIGHTS])
        maps = Maps(**load_file(path.with_name(WEIGHTS)))
        return described["base"], maps, float(described["logit_scale"])
