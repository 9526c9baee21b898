"""An exported model with the methods of `SemanticLocator`: the same predictions, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.features.encode import encode_posts
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.post_features import PostFeatures, stack_features
from sgmft.features.ragged import Ragged
from sgmft.locator.abstention import FILE as HELD_OUT
from sgmft.locator.abstention import HeldOutProbabilities
from sgmft.locator.onnx.encoder import OnnxEncoder
from sgmft.locator.onnx.manifest import HEAD, HEAD_OUTPUTS, Manifest
from sgmft.locator.prediction import PredictionBatch, Predictor
from sgmft.utils.onnx_session import Session

BATCH = 32  # posts that the head sees together; tokens are padded to the longest of them


class OnnxLocator(Predictor):
    """Predict as the `SemanticLocator` that was exported; see `OnnxLocator.load`.

    Attributes:
        labels: the K labels, in the order of the probabilities.
        held_out: probabilities of labelled posts that it has not learned from; perhaps none.
    """

    def __init__(self, folder: Path) -> None:
        self._manifest = Manifest.read(folder)
        self.labels = self._manifest.labels
        self.encoder = OnnxEncoder(folder, self._manifest)
        self._head = Session(folder / HEAD)
        kept = folder / HELD_OUT
        classes = len(self.labels)
        self.held_out = (
            HeldOutProbabilities.load(kept, classes)
            if kept.is_file()
            else HeldOutProbabilities.none(classes)
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a model that `sgmft export` wrote.

        Raises:
            SgmftError: the folder holds none, or one that is damaged or of a newer format, or a
                package that it needs is not installed.
        """
        return cls(Path(folder))

    def _predict_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        for chunk in encode_posts(posts, self.encoder, tokens=self._manifest.tokens):
            yield PredictionBatch(chunk, *self._run_head(chunk.rows))

    def _run_head(self, rows: Sequence[PostFeatures]) -> tuple[NDArray[np.float32], ...]:
        """Return probabilities (N, K) and guidance (N, 2)."""
        parts = [[np.zeros((0, len(self.labels)), np.float32)], [np.zeros((0, 2), np.float32)]]
        for start in range(0, len(rows), BATCH):
            inputs = inputs_of(
                rows[start : start + BATCH], self.encoder.info, self._manifest.tokens
            )
            for part, x in zip(parts, self._head.run(HEAD_OUTPUTS, inputs), strict=True):
                part.append(x)
        return tuple(np.concatenate(part) for part in parts)


def inputs_of(
    rows: Sequence[PostFeatures], info: EncoderInfo, tokens: bool
) -> dict[str, NDArray[Any]]:
    """Return arrays with the names and shapes of the fields of `sgmft.features.batch.Batch`.

    From the features of B posts; with `tokens` those of words and regions too.
    """
    posts = stack_features(rows, info, tokens)
    none = np.zeros(0, np.int32)
    counted = [
        np.unique(none if row.ngrams is None else row.ngrams, return_counts=True) for row in rows
    ]
    arrays: dict[str, NDArray[Any]] = {
        "text": posts.text,
        "image": posts.image,
        "has_text": posts.has_text,
        "has_image": posts.has_image,
        "ngrams": Ragged.of([ngrams for ngrams, _ in counted], none).pad(fill=-1)[0],
        "ngram_counts": Ragged.of([counts.astype(np.int32) for _, counts in counted], none).pad()[
            0
        ],
    }
    if posts.words is None or posts.regions is None:
        return arrays
    words, text_mask = posts.words.pad()
    regions, image_mask = posts.regions.pad()
    index = np.arange(regions.shape[1]) // max(1, posts.regions_per_image)
    return {
        **arrays,
        "text_tokens": words.astype(np.float32),
        "text_mask": text_mask,
        "image_tokens": regions.astype(np.float32),
        "image_mask": image_mask,
        "image_index": np.tile(index, (len(rows), 1)),
    }
