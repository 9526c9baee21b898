"""The registry of encoders, by name, and folders that hold one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sgmft.errors import SgmftError, warn
from sgmft.features.encoders.base import TABLE, Encoder
from sgmft.features.encoders.projected import ProjectedEncoder, is_projected, read_projected
from sgmft.utils.extras import needs_extra
from sgmft.utils.runtime import keep_freed_memory


def _compact(cleaning: str = "light", *, max_words: int = 32, **settings: Any) -> Encoder:
    """Load the default: small networks whose weights come inside Python packages."""
    from sgmft.features.encoders.image_encoder import ImageEncoder
    from sgmft.features.encoders.sentence_encoder import SentenceEncoder

    return ImageEncoder("compact", SentenceEncoder(cleaning, max_words), **settings)


def _cnn(cleaning: str = "light", *, max_words: int = 64, **settings: Any) -> Encoder:
    """Load the one for systems that learn their own word embeddings; images as in `compact`."""
    from sgmft.features.encoders.image_encoder import ImageEncoder
    from sgmft.features.encoders.word_hashes import WordHashEncoder

    return ImageEncoder("cnn", WordHashEncoder(cleaning, max_words), **settings)


def _chinese_clip(name: str, **settings: Any) -> Encoder:
    with needs_extra("torch", f"The encoder {name}"):
        from sgmft.features.encoders.chinese_clip import ChineseClipEncoder

    return ChineseClipEncoder(name, **settings)


CHINESE_CLIP = tuple(f"chinese-clip-{size}" for size in ("base", "large", "large-336px", "huge"))

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "compact": _compact,
    "cnn": _cnn,
    **{name: partial(_chinese_clip, name) for name in CHINESE_CLIP},
}
PLUGINS: dict[str, dict[str, str]] = {}  # name of an encoder -> "file" and "digest" of its plugin


def find_plugin(name: str) -> dict[str, str] | None:
    """Return which plugin an encoder, or a half of it, comes from; None for one of this package."""
    return next((PLUGINS[x] | {"encoder": x} for x in name.split("+") if x in PLUGINS), None)


def check_plugin(plugin: Mapping[str, str]) -> None:
    """Raise SgmftError where the plugin of a model's encoder is missing; warn of another one.

    A changed file may compute the same: whoever has written it knows, and has the last word.
    """
    name, file = plugin["encoder"], plugin["file"]
    if name not in ENCODERS:
        raise SgmftError(f"The encoder {name} comes from the plugin {file}: give --plugin {file}.")
    if name in PLUGINS and PLUGINS[name]["digest"] != plugin["digest"]:
        warn(f"The plugin {file} has changed since the model was trained with its encoder {name}.")


def load_encoder(name: str = "compact", **settings: Any) -> Encoder:
    """Load the encoder of that name, or the one that a folder holds.

    Args:
        name: a key of `ENCODERS`, or a folder: a Chinese-CLIP checkpoint, or what fine-tuning or
            `sgmft align` wrote; or "table:" and a path, see `sgmft.features.table`.
        settings: passed on; all encoders know `cleaning`, `patch_grid`, `batch_size`, `device`.

    Raises:
        SgmftError: no such encoder, or its weights are not on this machine.
    """
    keep_freed_memory()
    if name.startswith(TABLE):
        from sgmft.features.table import open_features_table

        return open_features_table(name.removeprefix(TABLE), **settings)
    if name in ENCODERS:
        return ENCODERS[name](**settings)
    if is_projected(name):
        base, maps, scale = read_projected(name)
        return ProjectedEncoder(load_encoder(base, **settings), maps, name, scale)
    return _chinese_clip(name, **settings)
