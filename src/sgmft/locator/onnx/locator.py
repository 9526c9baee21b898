"""An exported model with the methods of `SemanticLocator`: the same predictions, without torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from sgmft.data.posts import Post
from sgmft.data.preprocessing.windows import LONGEST
from sgmft.errors import SgmftError
from sgmft.evaluation.calibration import temper
from sgmft.features.encode import encode_windows
from sgmft.features.encoders.base import Encoded, EncoderInfo, FloatArray, PostFeatures
from sgmft.features.encoders.batches import encode_image_batches, encode_token_ids, graph_runner
from sgmft.features.encoders.e5 import E5Encoder
from sgmft.features.encoders.sentence_encoder import SentenceEncoder
from sgmft.features.encoders.word_hashes import WordHashEncoder
from sgmft.features.features import Features
from sgmft.locator.abstention import FILE as HELD_OUT
from sgmft.locator.abstention import HeldOutProbabilities
from sgmft.locator.prediction import PredictionBatch, Predictor
from sgmft.locator.state import read_temperatures
from sgmft.models.arrays import Array, Integers
from sgmft.models.base import Model, predict_logits
from sgmft.models.registry import get_method
from sgmft.utils.checksums import FILES, check_file, read_own
from sgmft.utils.onnx_session import Session

FORMAT = 2  # raised when an older sgmft could not read it
MANIFEST = "onnx.json"
FIX = "export the model again"
HEAD, PICTURES, TEXTS, TOKENIZER = "head.onnx", "pictures.onnx", "texts.onnx", "tokenizer.json"
WEIGHTS = "model.safetensors"  # of a closed-form model, in the place of a head
HEAD_OUTPUTS = ("probabilities", "guidance")  # (B, K) calibrated, (B, 2) relative entropies
BATCH = 8  # pictures, or texts, in one run
HEAD_BATCH = 32  # posts that the head sees together; tokens are padded to the longest of them
TextEncoder = Callable[[Sequence[str], bool], Encoded]


def is_exported(folder: str | Path) -> bool:
    """Return whether a folder holds an exported model; SgmftError where it may not be read."""
    try:
        return (Path(folder) / MANIFEST).is_file()
    except OSError as error:
        raise SgmftError(f"{folder} cannot be read ({error.strerror}).") from error


class Manifest(NamedTuple):
    """The settings that the runtime needs."""

    labels: list[str]  # K, in the order of the probabilities
    tokens: bool  # whether the head reads word and region features
    info: EncoderInfo  # with the fingerprint of the encoder that was exported
    texts: str  # kind of the text encoder: "compact", "compact-e5", "cnn" or "chinese-clip"
    max_words: int  # bounds a text's tokens
    method: str
    model: dict[str, Any]  # fields of its configuration
    temperatures: tuple[float, ...]  # see `TrainingRecord`
    window: int = LONGEST  # see `TrainingData`

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder and check the digests of its files; else SgmftError."""
        if not is_exported(folder):
            raise SgmftError(
                f"{folder} is not a model exported by sgmft: it has no {MANIFEST}. "
                "Write one with: sgmft export MODEL -o FOLDER."
            )
        try:
            found = read_own(folder / MANIFEST, FORMAT, str(folder), FIX)
            for name in found.get(FILES, ()):
                check_file(folder / name, found, FIX)
            encoder = found["encoder"]
            return cls(
                [str(label) for label in found["labels"]],
                bool(found["tokens"]),
                EncoderInfo(**encoder["info"]),
                str(encoder["texts"]),
                int(encoder["max_words"]),
                str(found["method"]),
                dict(found.get("model", {})),
                read_temperatures(found["calibration"]),
                int(found.get("data", {}).get("window", LONGEST)),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SgmftError(f"{folder / MANIFEST} is damaged: {FIX}.") from error


class OnnxLocator(Predictor):
    """Predict as the `SemanticLocator` that was exported; see `OnnxLocator.load`.

    Attributes:
        labels: the K labels, in the order of the probabilities.
        held_out: probabilities of labelled posts that it has not learned from; perhaps none.
    """

    def __init__(self, folder: Path) -> None:
        manifest = Manifest.read(folder)
        self.labels, self._tokens = manifest.labels, manifest.tokens
        self._window = manifest.window
        self.encoder = OnnxEncoder(folder, manifest)
        self._temperatures = np.array(manifest.temperatures)
        self._model = _load_model(folder, manifest) if (folder / WEIGHTS).is_file() else None
        self._head = Session(folder / HEAD) if self._model is None else None
        if self._head is not None and "ngrams" in self._head.inputs:
            raise SgmftError(f"{folder} was exported by an earlier sgmft: {FIX}.")
        self.held_out = HeldOutProbabilities.load(folder / HELD_OUT, len(self.labels))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a model that `sgmft export` wrote.

        Raises:
            SgmftError: the folder holds none, or one that is damaged or of a newer format, or a
                package that it needs is not installed.
        """
        return cls(Path(folder))

    def _predict_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        for chunk in encode_windows(posts, self.encoder, self._window, tokens=self._tokens):
            yield PredictionBatch(chunk, *self._run_head(chunk.rows))

    def _run_head(self, rows: Sequence[PostFeatures]) -> tuple[Array, ...]:
        """Return probabilities (N, K), guidance (N, 2) and parts (N,)."""
        features = Features.of(rows, self.encoder.info, self._tokens)
        if self._model is not None:
            found = predict_logits(self._model, features)
            probs = temper(found.logits, self._temperatures[features.parts])
            return probs, found.guidance, features.parts
        assert self._head is not None
        parts = [[np.zeros((0, len(self.labels)), np.float32)], [np.zeros((0, 2), np.float32)]]
        for start in range(0, len(rows), HEAD_BATCH):
            inputs = features.batch(slice(start, start + HEAD_BATCH))._asdict()
            for part, x in zip(parts, self._head.run(HEAD_OUTPUTS, inputs), strict=True):
                part.append(x)
        return np.concatenate(parts[0]), np.concatenate(parts[1]), features.parts


def _load_model(folder: Path, manifest: Manifest) -> Model:
    try:
        method = get_method(manifest.method)
        model: Model = method.network(method.load_config(manifest.model))
        model.load(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise SgmftError(f"{folder / WEIGHTS} is damaged: {FIX}.") from error
    return model


class OnnxEncoder:
    """An `Encoder` whose networks run in ONNX Runtime, from the folder of an exported model."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.info, self._folder = manifest.info, folder
        self._texts = _text_encoder(folder, manifest)

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode as the encoder that was exported."""
        return self._texts(texts, tokens)

    def encode_images(self, pictures: NDArray[np.uint8], tokens: bool) -> Encoded:
        """Encode as the encoder that was exported, to rounding."""
        run = graph_runner(lambda: self._pictures, tokens)
        return encode_image_batches(pictures, BATCH, self.info.image_width, tokens, run)

    @cached_property
    def _pictures(self) -> Session:
        return Session(self._folder / PICTURES)


def _text_encoder(folder: Path, manifest: Manifest) -> TextEncoder:
    cleaning = manifest.info.cleaning
    if manifest.texts == "compact":
        return SentenceEncoder(cleaning, manifest.max_words).encode
    if manifest.texts == "compact-e5":
        return E5Encoder(cleaning, manifest.max_words, folder / TEXTS).encode
    if manifest.texts == "cnn":
        return WordHashEncoder(cleaning, manifest.max_words).encode
    if manifest.texts == "chinese-clip":
        return _clip_texts(folder, manifest)
    raise SgmftError(f"{folder} has texts of an unknown kind, {manifest.texts}: update sgmft.")


def _clip_texts(folder: Path, manifest: Manifest) -> TextEncoder:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        fix = "pip install tokenizers"
        raise SgmftError(f"Chinese-CLIP needs the package tokenizers: {fix}.") from error
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises bare Exception
        raise SgmftError(f"{folder / TOKENIZER} is damaged: {FIX}.") from error
    tokenizer.enable_truncation(manifest.max_words)
    tokenizer.no_padding()
    tower = Session(folder / TEXTS)

    def run(numbers: Integers, mask: Integers) -> FloatArray:
        return tower.run(["projected"], {"input_ids": numbers, "attention_mask": mask})[0]

    def encode(texts: Sequence[str], tokens: bool) -> Encoded:
        ids = [row.ids for row in tokenizer.encode_batch(list(texts))]
        return encode_token_ids(ids, BATCH, manifest.info.text_width, tokens, run)

    return encode
