"""An encoder that is loaded when needed, perhaps fine-tuned, and the store of its features."""

from pathlib import Path
from typing import Any, NamedTuple

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.base import TABLE, Encoder
from sgmft.features.encoders.registry import check_plugin, load_encoder
from sgmft.features.store import FeatureStore
from sgmft.utils.files import cache_folder


def open_encoder(name: str = "compact", **settings: Any) -> Encoder:
    """Load an encoder as `load_encoder` does, or open the table of vectors behind "table:"."""
    if not name.startswith(TABLE):
        return load_encoder(name, **settings)
    from sgmft.features.table import open_features_table

    return open_features_table(name.removeprefix(TABLE), **settings)


class TunedEncoder(NamedTuple):
    """A fine-tuned encoder on disk."""

    folder: Path  # which `load_encoder` takes
    base: str  # name of the encoder before
    better: bool = True  # whether an epoch was better for the held-out posts; else it is as it was
    keeper: Any = None  # of a folder that is deleted with it


class EncoderHandle:
    """The encoder of a `SemanticLocator`, and of alignment; arguments as there."""

    def __init__(
        self,
        encoder: str,
        cleaning: str = "light",
        *,
        patch_grid: int | None = None,
        trust_remote_code: bool = False,
        features: str | Path | bool | None = None,
        device: str | None = None,
    ) -> None:
        if patch_grid is not None and not 1 <= patch_grid <= 16:
            raise SgmftError(f"patch_grid must be from 1 to 16, not {patch_grid}.")
        # arguments of `load_encoder`, but for the device
        self.encoder_settings: dict[str, Any] = {"name": encoder, "cleaning": cleaning}
        more = {"patch_grid": patch_grid, "trust_remote_code": trust_remote_code or None}
        self.encoder_settings |= {key: x for key, x in more.items() if x is not None}
        self.features_folder = cache_folder() / "features" if features is True else features or None
        self.device = device
        self.tuned: TunedEncoder | None = None  # where the fine-tuned encoder is, if there is one
        self.weights = ""  # which the encoder must have (`EncoderInfo.weights`); "" for any
        self.plugin: dict[str, str] | None = None  # which it must come from; None for any
        self._encoder: Encoder | None = None
        self._kept: tuple[Any, FeatureStore | None] = None, None  # what decides a store, and it

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when first used; SgmftError if it has other weights than it must."""
        if self._encoder is None:
            if self.plugin is not None:
                check_plugin(self.plugin)
            found = open_encoder(**self.encoder_settings, device=self.device)
            if self.weights and found.info.weights != self.weights:
                raise SgmftError(TEXTS["other weights"], name=found.info.name)
            self._encoder = found
        return self._encoder

    @property
    def encoder_name(self) -> str:
        """Name of the encoder, of its base if it is fine-tuned."""
        name = self.encoder.info.name if self.is_table else str(self.encoder_settings["name"])
        return name if self.tuned is None else f"{self.tuned.base}, fine-tuned"

    @property
    def is_table(self) -> bool:
        """Whether features come from a table, and nothing can be encoded."""
        return str(self.encoder_settings["name"]).startswith(TABLE)

    def use_tuned(self, tuned: TunedEncoder) -> None:
        """Go on with a fine-tuned encoder."""
        self.tuned, self.weights = tuned, ""  # it comes with digests of its files
        kind = "hf:" * tuned.base.startswith("hf:")  # else its files may be taken for another's
        self.encoder_settings["name"] = f"{kind}{tuned.folder}"
        self.forget_encoder()

    def forget_encoder(self) -> None:
        """Free the encoder's memory; it is loaded again when it is used."""
        self._encoder = None

    def store(self, tokens: bool) -> FeatureStore | None:
        """Open the feature store; None where nothing is kept."""
        if self.features_folder is None:
            return None
        return FeatureStore(self.features_folder, self.encoder.info, tokens)

    def kept_store(self, tokens: bool) -> FeatureStore | None:
        """Return the store that was opened last, so that it is not opened for each few posts."""
        if self.is_table:  # which is one
            return None
        wanted = self.features_folder, self.encoder.info, tokens
        known, store = self._kept
        if known != wanted or store is None or not store.folder.is_dir():
            self._kept = wanted, self.store(tokens)
        return self._kept[1]
