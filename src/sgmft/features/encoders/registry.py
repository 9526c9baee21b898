"""The registry of encoders, by name, and folders that hold one."""

import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sgmft.errors import SgmftError, needs_extra, warn
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.hub import CHINESE_CLIP, NAMES, find_checkpoint
from sgmft.features.encoders.tuned import ProjectedEncoder, read_adapter, read_projected
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import read_json
from sgmft.utils.runtime import keep_freed_memory

EMBEDDED: dict[str, str] = NAMES["embedded"]


def _embedded(name: str, cleaning: str = "light", **settings: Any) -> Encoder:
    from sgmft.features.encoders.image_encoder import ImageEncoder

    words = {key: settings.pop(key) for key in ("max_words",) if key in settings}
    texts = pkgutil.resolve_name(f"{__package__}.{EMBEDDED[name]}")(cleaning, **words)
    return ImageEncoder(name, texts, **settings)


def _chinese_clip(name: str, **settings: Any) -> Encoder:
    with needs_extra("torch", f"The encoder {name}"):
        from sgmft.features.encoders.chinese_clip import ChineseClipEncoder

    return ChineseClipEncoder(name, **settings)


ENCODERS: dict[str, Callable[..., Encoder]] = {
    **{name: partial(_embedded, name) for name in EMBEDDED},
    **{name: partial(_chinese_clip, name) for name in CHINESE_CLIP},
}
PLUGINS: dict[str, dict[str, str]] = {}  # name of an encoder -> "file" and "digest" of its plugin


def find_plugin(name: str) -> dict[str, str] | None:
    """Return which plugin an encoder, or a half of it, comes from; None for one of this package."""
    return next((PLUGINS[x] | {"encoder": x} for x in name.split("+") if x in PLUGINS), None)


def check_plugin(plugin: Mapping[str, str]) -> None:
    """Raise SgmftError where the plugin of a model's encoder is missing; warn of a changed one."""
    name, file = plugin["encoder"], plugin["file"]
    if name not in ENCODERS:
        raise SgmftError(f"The encoder {name} comes from the plugin {file}: give --plugin {file}.")
    if name in PLUGINS and PLUGINS[name]["digest"] != plugin["digest"]:
        warn(f"The plugin {file} has changed since the model was trained with its encoder {name}.")


class TwoTowers:
    """The text half of one encoder and the image half of another; their spaces are not shared."""

    def __init__(self, text: Encoder, image: Encoder, name: str) -> None:
        self.encode_texts, self.encode_images = text.encode_texts, image.encode_images
        self.prepare_image = getattr(image, "prepare_image", np.asarray)
        infos = text.info, image.info
        self.info = replace(
            text.info,
            name=name,
            fingerprint=short_digest(repr([x.fingerprint for x in infos]).encode()),
            **{key: getattr(image.info, key) for key in ("image_width", "image_size", "image_key")},
            shared_space=False,
            joint_width=0,
            logit_scale=None,
            weights="+".join(x.weights for x in infos),
            has_tokens=all(x.has_tokens for x in infos),
            pinned="+".join(x.pinned or x.name for x in infos),
            remote_code=any(x.remote_code for x in infos),
        )


def load_encoder(name: str = "compact", **settings: Any) -> Encoder:
    """Load the encoder of that name, or the one that a folder holds.

    A name is a key of `ENCODERS`; hf:NAME or st:NAME, of a folder or a hub repository with a model
    of transformers or sentence-transformers, perhaps with @REVISION; a folder, also of Chinese-CLIP
    or what fine-tuning or `sgmft align` wrote; or two of these, TEXT+IMAGE. Settings are passed on;
    all know `cleaning`, `patch_grid`, `batch_size`, `device`, and `trust_remote_code`. SgmftError
    where there is no such encoder or weight on this machine, or it takes no texts or no pictures.
    """
    keep_freed_memory()
    # The first plus with a name behind it; a name or a folder may have others.
    known = "|".join(["(?:hf|st):.+", *map(re.escape, ENCODERS)])
    towers = [name] if name in ENCODERS else re.split(rf"\+(?=(?:{known})$)", name, maxsplit=1)
    loaded = [_load(tower, **settings) for tower in towers]
    text, image = loaded[0].info, loaded[-1].info
    if not text.text_width:
        raise SgmftError(f"{text.name} takes no texts: use compact+{text.name}, or so.")
    if not image.image_width:
        raise SgmftError(f"{image.name} takes no pictures: use {image.name}+compact, or so.")
    return loaded[0] if len(loaded) == 1 else TwoTowers(loaded[0], loaded[1], name)


def _load(name: str, trust_remote_code: bool = False, **settings: Any) -> Encoder:
    if name in ENCODERS:
        return ENCODERS[name](**settings)
    if (projected := read_projected(name)) is not None:
        base, maps, scale = projected
        loaded = load_encoder(base, trust_remote_code=trust_remote_code, **settings)
        return ProjectedEncoder(loaded, maps, name, scale)
    if not name.startswith(("hf:", "st:")):
        config, adapter = read_json(Path(name) / "config.json") or {}, read_adapter(name)
        other = config.get("model_type", "chinese_clip") != "chinese_clip"
        base = adapter.base if adapter else "hf:" * other
        if (Path(name) / "modules.json").is_file():
            name = f"st:{name}"
        elif base.startswith("hf:"):
            name = f"hf:{name}"
        else:
            return _chinese_clip(name, **settings)
    with needs_extra("encoders", f"The encoder {name}"):
        from sgmft.features.encoders import library_encoders as library

        checkpoint = find_checkpoint(name, trust_remote_code)
        if name.startswith("hf:"):
            return library.TransformersEncoder(checkpoint, **settings)
        return library.SentenceTransformersEncoder(checkpoint, **settings)
