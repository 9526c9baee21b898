"""Run images and texts through a network batch by batch, whichever runtime computes it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgmft.features.encoders.base import IMAGE_OUTPUTS, Encoded, FloatArray, Images
from sgmft.features.ragged import Ragged
from sgmft.utils.onnx_session import Session

TokenIds = NDArray[np.int64]
TOKENS = 8192  # of texts that go through a network together, at the most


def encode_image_batches(
    images: Images,
    batch_size: int,
    width: int,
    tokens: bool,
    run: Callable[[Images], Sequence[FloatArray]],
) -> Encoded:
    """Encode N images; `run` maps b to pooled features (b, D) and, if wanted, regions (b, r, D)."""
    pooled = [np.zeros((0, width), np.float32)]
    regions: list[FloatArray] = []
    for start in range(0, len(images), batch_size):
        outputs = run(images[start : start + batch_size])
        pooled.append(outputs[0])
        if tokens:
            regions.extend(outputs[1])
    return Encoded(np.concatenate(pooled), regions if tokens else None)


def graph_runner(
    graph: Callable[[], Session], tokens: bool
) -> Callable[[Images], Sequence[FloatArray]]:
    """Return the `run` of `encode_image_batches` for a graph that is opened at the first images."""
    wanted = IMAGE_OUTPUTS if tokens else IMAGE_OUTPUTS[:1]
    return lambda images: graph().run(wanted, {"pictures": images})


def encode_token_ids(
    ids: Sequence[Sequence[int]],
    batch_size: int,
    width: int,
    tokens: bool,
    run: Callable[[TokenIds, TokenIds], FloatArray],
) -> Encoded:
    """Encode N texts given as token ids, [CLS] first and [SEP] last; pooled is [CLS].

    Batches hold texts of similar length. The tokens of a text are those between [CLS] and [SEP];
    one that is only those two keeps [SEP]. `run` maps ids and their mask, both (b, n), to projected
    tokens (b, n, D), or only the first (b, 1, D) where the others are not wanted.
    """
    pooled = np.zeros((len(ids), width), np.float32)
    words: list[FloatArray] = [pooled[:0]] * len(ids)
    texts = Ragged.of([np.array(row, np.int64) for row in ids], np.zeros(0, np.int64))
    for chosen in batches_by_length(texts.length, batch_size):
        padded, mask = texts.pad(chosen)
        projected = run(padded, mask.astype(np.int64))
        pooled[chosen] = projected[:, 0]
        if tokens:
            for i, row in zip(chosen, projected, strict=True):
                words[i] = row[1 : max(2, len(ids[i]) - 1)].copy()
    return Encoded(pooled, words if tokens else None)


def batches_by_length(lengths: Any, batch_size: int) -> Iterator[list[int]]:
    """Yield positions of texts of similar length, fewer of long ones; short texts first."""
    order = np.argsort(lengths, kind="stable").tolist()
    while order:
        fits = (i for i in range(batch_size, 1, -1) if i * lengths[order[:i][-1]] <= TOKENS)
        count = next(fits, 1)
        yield order[:count]
        order = order[count:]


def alike_batches(images: Sequence[Any], batch_size: int) -> Iterator[list[int]]:
    """Yield positions of prepared images whose arrays have the same shapes."""
    groups: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(repr([x.shape for x in image.values()]), []).append(i)
    for rows in groups.values():
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))


def encode_joint(
    encoder: Any,  # an `Encoder`, perhaps with `encode_joint`
    posts: Sequence[tuple[str, Sequence[Any]]],
) -> list[FloatArray | None]:
    """Encode cleaned texts and their images together; None where one is missing, or by others."""
    found: list[FloatArray | None] = [None] * len(posts)
    rows = [i for i, (text, images) in enumerate(posts) if text and images]
    if encoder.info.joint_width and rows:
        texts, images = zip(*(posts[i] for i in rows), strict=True)
        for i, vector in zip(rows, encoder.encode_joint(texts, images), strict=True):
            found[i] = vector
    return found
