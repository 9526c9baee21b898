"""The folder of an exported model: its files and their manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgmft.errors import SgmftError
from sgmft.features.encoders.base import EncoderInfo
from sgmft.utils.checksums import FILES, check_file, verify_checksum

FORMAT = 1  # raised when an older sgmft could not read it
MANIFEST = "onnx.json"
FIX = "export the model again"
HEAD, PICTURES, TEXTS, TOKENIZER = "head.onnx", "pictures.onnx", "texts.onnx", "tokenizer.json"
HEAD_OUTPUTS = ("probabilities", "guidance")  # (B, K) calibrated, (B, 2) relative entropies


def is_exported(folder: str | Path) -> bool:
    """Return whether a folder holds an exported model; SgmftError where it may not be read."""
    try:
        return (Path(folder) / MANIFEST).is_file()
    except OSError as error:
        raise SgmftError(f"{folder} cannot be read ({error.strerror}).") from error


@dataclass(frozen=True)
class Manifest:
    """The settings that the runtime needs."""

    labels: list[str]  # K, in the order of the probabilities
    tokens: bool  # whether the head reads word and region features
    info: EncoderInfo  # of the encoder
    texts: str  # kind of the text encoder: "compact", "cnn" or "chinese-clip"
    max_words: int  # bounds a text's tokens

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder and check the digests of its files.

        SgmftError where it holds no exported model, or one that is damaged or of a newer format.
        """
        if not is_exported(folder):
            raise SgmftError(
                f"{folder} is not a model exported by sgmft: it has no {MANIFEST}. "
                "Write one with: sgmft export MODEL -o FOLDER."
            )
        try:
            found: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))["sgmft"]
            if found["format"] > FORMAT:
                raise SgmftError(
                    f"{folder} was written by sgmft {found['versions']['sgmft']}, in a newer "
                    "format than this one reads: pip install --upgrade sgmft."
                )
            verify_checksum(found, folder / MANIFEST, FIX)
            for name in found.get(FILES, ()):
                check_file(folder / name, found, FIX)
            encoder = found["encoder"]
            return cls(
                [str(label) for label in found["labels"]],
                bool(found["tokens"]),
                EncoderInfo(**encoder["info"]),
                str(encoder["texts"]),
                int(encoder["max_words"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SgmftError(f"{folder / MANIFEST} is damaged: {FIX}.") from error
