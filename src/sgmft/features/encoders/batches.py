"""Pictures and texts through a network batch by batch, whichever runtime computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import IMAGE_OUTPUTS, Encoded, FloatArray
from sgmft.utils.onnx_session import Session

Numbers = NDArray[np.int64]


def encode_image_batches(
    pictures: NDArray[np.uint8],
    batch_size: int,
    width: int,
    tokens: bool,
    run: Callable[[NDArray[np.uint8]], Sequence[FloatArray]],
) -> Encoded:
    """Features of N pictures.

    Args:
        width: D.
        tokens: whether regions are wanted.
        run: from b pictures to pooled features (b, D) and, where they are wanted, regions
            (b, r, D).
    """
    pooled = [np.zeros((0, width), np.float32)]
    regions: list[FloatArray] = []
    for start in range(0, len(pictures), batch_size):
        said = run(pictures[start : start + batch_size])
        pooled.append(said[0])
        if tokens:
            regions.extend(said[1])
    return Encoded(np.concatenate(pooled), regions if tokens else None)


def graph_runner(
    graph: Session, tokens: bool
) -> Callable[[NDArray[np.uint8]], Sequence[FloatArray]]:
    """What `encode_image_batches` runs where a graph computes."""
    wanted = IMAGE_OUTPUTS if tokens else IMAGE_OUTPUTS[:1]
    return lambda pictures: graph.run(wanted, {"pictures": pictures})


def encode_token_ids(
    ids: Sequence[Sequence[int]],
    batch_size: int,
    width: int,
    tokens: bool,
    run: Callable[[Numbers, Numbers], FloatArray],
) -> Encoded:
    """Features of N texts as numbers of tokens, [CLS] first and [SEP] last, by [CLS].

    Batches hold texts of similar length. The tokens of a text are those between [CLS] and [SEP];
    one that is only those two keeps [SEP].

    Args:
        width: D.
        tokens: whether those are wanted.
        run: from numbers and their mask, both (b, n), to projected tokens (b, n, D), or only the
            first (b, 1, D) where the others are not wanted.
    """
    pooled = np.zeros((len(ids), width), np.float32)
    per_text: list[FloatArray] = [pooled[:0]] * len(ids)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        numbers = np.zeros((len(chosen), max(len(ids[i]) for i in chosen)), np.int64)
        mask = np.zeros_like(numbers)
        for row, i in enumerate(chosen):
            numbers[row, : len(ids[i])] = ids[i]
            mask[row, : len(ids[i])] = 1
        projected = run(numbers, mask)
        for row, i in enumerate(chosen):
            pooled[i] = projected[row, 0]
            if tokens:
                per_text[i] = projected[row, 1 : max(2, len(ids[i]) - 1)].copy()
    return Encoded(pooled, per_text if tokens else None)
