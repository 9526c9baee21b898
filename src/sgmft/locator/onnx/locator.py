"""An exported model with the methods of `SemanticLocator`: the same predictions, without torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import Pixels
from sgmft.errors import SgmftError, raising
from sgmft.evaluation.calibration import temper
from sgmft.features.attributes import Attribute, AttributeReader
from sgmft.features.encode import encode_windows
from sgmft.features.encoders.base import Encoded, EncoderInfo
from sgmft.features.encoders.batches import batches_by_length, encode_image_batches
from sgmft.features.encoders.e5 import E5Encoder
from sgmft.features.encoders.text_encoders import SentenceEncoder, WordHashEncoder
from sgmft.features.features import Features
from sgmft.locator.abstention import FILE as HELD_OUT, HeldOutProbabilities
from sgmft.locator.prediction import PredictionBatch, Predictor
from sgmft.locator.state import TrainingRecord
from sgmft.models.arrays import Array
from sgmft.models.base import Model, predict_logits
from sgmft.models.registry import get_method
from sgmft.utils.checksums import FILES, MALFORMED, check_file, read_own
from sgmft.utils.onnx_session import Session

FORMAT = 2  # raised when an older sgmft could not read it
MANIFEST = "onnx.json"
FIX = "export the model again"
HEAD, PICTURES, TEXTS, TOKENIZER = "head.onnx", "pictures.onnx", "texts.onnx", "tokenizer.json"
WEIGHTS = "model.safetensors"  # of a closed-form model, in place of a head
HEAD_OUTPUTS = ("probabilities", "guidance")  # (B, K) calibrated, (B, 2) relative entropies
TEXT_OUTPUTS = ("pooled", "tokens")  # (N, D), (N, n, Dw)
# Inputs of the graph of texts that a tokenizer makes, and what it calls them.
TOKENIZED = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
BATCH = 8  # pictures, or texts, in one run
HEAD_BATCH = 32  # posts that the head sees together; tokens are padded to the longest of them
TextEncoder = Callable[[Sequence[str], bool], Encoded]


def is_exported(folder: str | Path) -> bool:
    """Return whether a folder holds an exported model; SgmftError where it may not be read."""
    with raising(f"{folder} cannot be read ({{error}}).", OSError):
        return (Path(folder) / MANIFEST).is_file()


class Manifest(NamedTuple):
    """The settings that the runtime needs."""

    labels: list[str]  # K, in the order of the probabilities
    tokens: bool  # whether the head reads word and region features
    info: EncoderInfo  # with the fingerprint of the encoder that was exported
    texts: str  # kind of the text encoder: "compact", "compact-e5", "cnn" or "tokenized"
    max_words: int  # bounds a text's tokens
    method: str
    model: dict[str, Any]  # fields of its configuration
    training: TrainingRecord  # without its history
    steps: dict[str, Any] | None = None  # arguments of `cut_square`; None: images are squashed
    attributes: Sequence[Attribute] = ()  # as in `ModelState`

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder and check the digests of its files; else SgmftError."""
        if not is_exported(folder):
            lacks = f"it has no {MANIFEST}. Write one with: sgmft export MODEL -o FOLDER"
            raise SgmftError(f"{folder} is not a model exported by sgmft: {lacks}.")
        with raising(f"{folder / MANIFEST} is damaged: {FIX}.", *MALFORMED):
            found = read_own(folder / MANIFEST, FORMAT, str(folder), FIX)
            for name in found.get(FILES, ()):
                check_file(folder / name, found, FIX)
            encoder, training = found["encoder"], TrainingRecord.from_config(found)
            labels, tokens = [str(label) for label in found["labels"]], bool(found["tokens"])
            texts = EncoderInfo(**encoder["info"]), str(encoder["texts"]), int(encoder["max_words"])
            model = str(found["method"]), dict(found.get("model", {}))
            attributes = [Attribute(**x) for x in found.get("attributes", ())]
            return cls(labels, tokens, *texts, *model, training, encoder.get("steps"), attributes)


class OnnxLocator(Predictor):
    """Predict as the `SemanticLocator` that was exported; see `OnnxLocator.load`.

    Attributes:
        labels: the K labels, in the order of the probabilities.
        held_out: probabilities of labelled posts that it has not learned from; perhaps none.
    """

    def __init__(self, folder: Path) -> None:
        manifest = Manifest.read(folder)
        self.labels, self._tokens = manifest.labels, manifest.tokens
        self._window, self.traits = manifest.training.data.window, manifest.training.data.traits
        self.attributes = AttributeReader((), manifest.attributes)
        self.encoder = OnnxEncoder(folder, manifest)
        self._temperatures = np.array(manifest.training.temperatures)
        self._model: Model | None = None
        if (folder / WEIGHTS).is_file():
            with raising(f"{folder / WEIGHTS} is damaged: {FIX}.", *MALFORMED, SafetensorError):
                method = get_method(manifest.method)
                self._model = method.network(method.load_config(manifest.model))
                self._model.load(folder / WEIGHTS)
        self._head: Any = Session(folder / HEAD) if self._model is None else None
        self.held_out = HeldOutProbabilities.load(folder / HELD_OUT, len(self.labels))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a model that `sgmft export` wrote.

        SgmftError where the folder holds none, or one that is damaged or of a newer format, or a
        package that it needs is not installed.
        """
        return cls(Path(folder))

    def _predict_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        chunks = encode_windows(posts, self.encoder, self._window, tokens=self._tokens)
        for chunk, features in self.attributes.features(chunks, self.encoder.info, self._tokens):
            yield PredictionBatch(chunk, *self._run_head(features))

    def _run_head(self, features: Features) -> tuple[Array, ...]:
        """Return probabilities (N, K), guidance (N, 2) and parts (N,)."""
        if self._model is not None:
            found = predict_logits(self._model, features)
            probs = temper(found.logits, self._temperatures[features.parts])
            return probs, found.guidance, features.parts
        heads = [(np.zeros((0, len(self.labels)), np.float32), np.zeros((0, 2), np.float32))]
        for start in range(0, len(features), HEAD_BATCH):
            inputs = features.batch(slice(start, start + HEAD_BATCH))._asdict()
            heads.append(self._head.run(HEAD_OUTPUTS, inputs))
        return *map(np.concatenate, zip(*heads, strict=True)), features.parts


class OnnxEncoder:
    """An `Encoder` whose networks run in ONNX Runtime, from the folder of an exported model."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.info, self._folder, self._steps = manifest.info, folder, manifest.steps or {}
        self.encode_texts: Any = _text_encoder(folder, manifest)

    def prepare_image(self, pixels: Pixels) -> Pixels:
        """Prepare as the encoder that was exported, if it takes pictures in their own size."""
        return cut_square(pixels, **self._steps)

    def encode_images(self, pictures: Sequence[Pixels], tokens: bool) -> Encoded:
        """Encode as the encoder that was exported, to rounding."""
        squares = np.asarray(pictures) if len(pictures) else np.zeros((0, 1, 1, 3), np.uint8)
        how = BATCH, self.info.image_width, tokens
        return encode_image_batches(squares, *how, lambda: self._pictures)

    @cached_property
    def _pictures(self) -> Session:
        return Session(self._folder / PICTURES)


def cut_square(pixels: Pixels, size: Any, resample: int, crop: list[int] | None) -> Pixels:
    """Resize an image to [height, width] or its shorter side to a number, and cut out the middle.

    `crop` is [height, width] too, or None; `resample` is Pillow's number of a filter.
    """
    height, width = pixels.shape[:2]
    if isinstance(size, int):
        short = min(height, width)
        size = [size if x == short else int(size * x / short) for x in (height, width)]
    resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling(resample))
    crop = crop or size
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    return np.asarray(resized)[top : top + crop[0], left : left + crop[1]]


def _text_encoder(folder: Path, manifest: Manifest) -> TextEncoder:
    if manifest.texts == "tokenized":
        return _tokenized_texts(folder, manifest)
    given = manifest.info.cleaning, manifest.max_words
    if manifest.texts == "compact":
        return SentenceEncoder(*given).encode
    if manifest.texts == "compact-e5":
        return E5Encoder(*given, folder / TEXTS).encode
    if manifest.texts == "cnn":
        return WordHashEncoder(*given).encode
    raise SgmftError(f"{folder} has texts of an unknown kind, {manifest.texts}: {FIX}.")


def _tokenized_texts(folder: Path, manifest: Manifest) -> TextEncoder:
    with raising(f"{folder} needs the package tokenizers: pip install tokenizers.", ImportError):
        from tokenizers import Tokenizer
    with raising(f"{folder / TOKENIZER} is damaged: {FIX}.", Exception):  # which tokenizers raises
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tower = Session(folder / TEXTS)

    def encode(texts: Sequence[str], tokens: bool) -> Encoded:
        pooled = np.zeros((len(texts), manifest.info.text_width), np.float32)
        words = [pooled[:0]] * len(texts)
        for chosen in batches_by_length([*map(len, texts)], BATCH):
            rows = tokenizer.encode_batch([texts[i] for i in chosen])
            known = {name: [getattr(row, key) for row in rows] for name, key in TOKENIZED.items()}
            inputs = {name: np.array(known[name]) for name in tower.inputs}
            pooled[chosen], *states = tower.run(TEXT_OUTPUTS[: 1 + tokens], inputs)
            for i, row, own in zip(chosen, rows, states[0], strict=True) if tokens else ():
                kept = np.array(row.special_tokens_mask) == 0
                kept[min(1, len(kept) - 1)] |= not kept.any()  # as `TorchEncoder` does
                words[i] = own[kept]
        return Encoded(pooled, words if tokens else None)

    return encode
