"""The similarity of words and picture regions, where a model or its encoder has one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sgmft.data.preprocessing.text import split_words
from sgmft.evaluation.explain.explanation import SimilarityMap
from sgmft.evaluation.explain.masked_model import MaskedPredictor
from sgmft.evaluation.explain.words import SEGMENTED, is_word
from sgmft.models.sgmft import SGMFT


def similarity_map(predictor: MaskedPredictor) -> SimilarityMap | None:
    """Return P^e of SG-MFT in the tokens view, else cosines in a shared space, else None.

    None also for a post without text or without pictures.
    """
    if not predictor.text or not predictor.images:
        return None
    read_words = split_words(predictor.text, SEGMENTED)
    values = _guidance(predictor, read_words)
    kind: Literal["P^e", "cosine"] = "P^e"
    if values is None and predictor.model.encoder.info.shared_space:
        values, kind = _cosines(predictor, read_words), "cosine"
    if values is None:
        return None
    rows = [i for i in range(len(values)) if is_word(read_words[i])]
    return SimilarityMap(
        kind,
        tuple(read_words[i] for i in rows),
        math.isqrt(values.shape[1] // len(predictor.images)),
        tuple(tuple(map(float, values[i])) for i in rows),
    )


def _guidance(predictor: MaskedPredictor, read_words: Sequence[str]) -> NDArray[np.float32] | None:
    """Return P^e (n, m) with a row for each word that the encoder read, the mean over its tokens.

    None where the network has none, or tokens cannot be assigned to words.
    """
    network = predictor.model.network
    if not isinstance(network, SGMFT):
        return None
    batch = predictor.features([predictor.whole]).batch(torch.tensor([0]))
    device = next(network.parameters()).device
    found = network.element_map(batch.to(device)) if batch.text_tokens is not None else None
    if found is None:
        return None
    rows = found[0].float().cpu().numpy()  # (tokens, m)
    alone = predictor.model.encoder.encode_texts(read_words, True).tokens
    ends = np.cumsum([0, *(len(tokens) for tokens in alone or ())])
    read = int(np.searchsorted(ends, len(rows), "right")) - 1  # a long text is read in part
    if read < len(read_words) and ends[-1] < len(rows):
        return None
    return np.stack([rows[a:b].mean(0) for a, b in pairwise(ends[: read + 1])])


def _cosines(predictor: MaskedPredictor, read_words: Sequence[str]) -> NDArray[np.float32]:
    """Return cosines (n, m) of each word, encoded alone, and each region."""
    encoder = predictor.model.encoder
    text = encoder.encode_texts(read_words, False).pooled
    regions = np.concatenate(encoder.encode_images(np.stack(predictor.images), True).tokens or [])
    return np.asarray(_unit(text) @ _unit(regions).T)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
