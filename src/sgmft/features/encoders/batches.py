"""Run images and texts through a network batch by batch, whichever runtime computes it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sgmft.features.encoders.base import IMAGE_OUTPUTS, Encoded, FloatArray, Images
from sgmft.utils.onnx_session import Session

TOKENS = 8192  # of texts that go through a network together, at the most


def encode_image_batches(
    images: Images, batch_size: int, width: int, tokens: bool, graph: Callable[[], Session]
) -> Encoded:
    """Encode N squares (N, s, s, 3) by a graph, opened at the first, to (D,) and regions (r, D)."""
    pooled = [np.zeros((0, width), np.float32)]
    regions: list[FloatArray] = []
    for start in range(0, len(images), batch_size):
        inputs = {"pictures": images[start : start + batch_size]}
        outputs = graph().run(IMAGE_OUTPUTS if tokens else IMAGE_OUTPUTS[:1], inputs)
        pooled.append(outputs[0])
        if tokens:
            regions.extend(outputs[1])
    return Encoded(np.concatenate(pooled), regions if tokens else None)


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
