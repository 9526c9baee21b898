"""What has an encoder: which it is, loaded when it is needed, perhaps a fine-tuned one."""

from __future__ import annotations

from typing import Any

from sgmft.encoders import Encoder, load_encoder
from sgmft.errors import SgmftError
from sgmft.tuning.settings import TunedEncoder


class WithEncoder:
    """A part of `SemanticLocator`.

    Args:
        encoder: as `sgmft.encoders.load_encoder` takes it.
        cleaning, patch_grid, device: as in `SemanticLocator`.

    Attributes:
        encoder_settings: arguments of `load_encoder`, but for the device.
        tuned: where the fine-tuned encoder is, if there is one.

    Raises:
        SgmftError: `patch_grid` makes no sense.
    """

    def __init__(
        self, encoder: str, cleaning: str, patch_grid: int | None, device: str | None
    ) -> None:
        if patch_grid is not None and not 1 <= patch_grid <= 16:
            raise SgmftError(f"patch_grid must be from 1 to 16, not {patch_grid}.")
        self.encoder_settings: dict[str, Any] = {"name": encoder, "cleaning": cleaning}
        if patch_grid is not None:
            self.encoder_settings["patch_grid"] = patch_grid
        self.device = device
        self.tuned: TunedEncoder | None = None
        self._encoder: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when first asked for."""
        if self._encoder is None:
            self._encoder = load_encoder(**self.encoder_settings, device=self.device)
        return self._encoder

    @property
    def encoder_name(self) -> str:
        """The encoder's name, that of its base if it is fine-tuned."""
        name = str(self.encoder_settings["name"])
        return name if self.tuned is None else f"{self.tuned.base}, fine-tuned"

    def use_tuned(self, tuned: TunedEncoder) -> None:
        """Go on with a fine-tuned encoder."""
        self.tuned = tuned
        self.encoder_settings["name"] = str(tuned.folder)
        self.forget_encoder()

    def forget_encoder(self) -> None:
        """Free the encoder's memory; it is loaded again when it is asked for."""
        self._encoder = None
