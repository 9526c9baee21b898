"""The encoder of an exported model: the protocol of `encoders.base`, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgmft.errors import SgmftError
from sgmft.features.encoders.base import Encoded, FloatArray
from sgmft.features.encoders.batches import encode_image_batches, encode_token_ids, graph_runner
from sgmft.features.encoders.sentence_encoder import SentenceEncoder
from sgmft.features.encoders.word_hashes import WordHashEncoder
from sgmft.locator.onnx.manifest import PICTURES, TEXTS, TOKENIZER, Manifest
from sgmft.utils.onnx_session import Session

BATCH = 8  # pictures, or texts, in one run
TextEncoder = Callable[[Sequence[str], bool], Encoded]


class OnnxEncoder:
    """An encoder whose networks run in ONNX Runtime, from the folder of an exported model.

    SgmftError where a file is missing or damaged, or the encoder is of an unknown kind.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.info = manifest.info  # with the fingerprint of the encoder that was exported
        self._pictures = Session(folder / PICTURES)
        self._texts = _text_encoder(folder, manifest)

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode as the encoder that was exported."""
        return self._texts(texts, tokens)

    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Encode as the encoder that was exported, to rounding."""
        run = graph_runner(self._pictures, tokens)
        return encode_image_batches(pictures, BATCH, self.info.image_width, tokens, run)


def _text_encoder(folder: Path, manifest: Manifest) -> TextEncoder:
    cleaning = manifest.info.cleaning
    if manifest.texts == "compact":
        return SentenceEncoder(cleaning, manifest.max_words).encode
    if manifest.texts == "cnn":
        return WordHashEncoder(cleaning, manifest.max_words).encode
    if manifest.texts == "chinese-clip":
        return ClipTexts(folder, manifest).encode
    raise SgmftError(f"{folder} has texts of an unknown kind, {manifest.texts}: update sgmft.")


class ClipTexts:
    """The text tower of Chinese-CLIP.

    SgmftError where tokenizers is not installed, or a file is missing or damaged.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise SgmftError(
                "Chinese-CLIP needs the package tokenizers: pip install tokenizers."
            ) from error
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises bare Exception
            raise SgmftError(f"{folder / TOKENIZER} is damaged: export the model again.") from error
        self._tokenizer.enable_truncation(manifest.max_words)
        self._tokenizer.no_padding()
        self._tower = Session(folder / TEXTS)
        self._width = manifest.info.text_width

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Projected [CLS] features (N, D), and those of the other real tokens."""
        ids = [row.ids for row in self._tokenizer.encode_batch(list(texts))]

        def run(numbers: NDArray[np.int64], mask: NDArray[np.int64]) -> FloatArray:
            inputs = {"input_ids": numbers, "attention_mask": mask}
            return self._tower.run(["projected"], inputs)[0]

        return encode_token_ids(ids, BATCH, self._width, tokens, run)
