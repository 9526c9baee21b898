"""Quantise the picture networks of an exported model to 8 bits, for a user's own pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import Pixels
from sgmft.errors import SgmftError
from sgmft.features.encode import prepare_post
from sgmft.features.encoders.base import EncoderInfo
from sgmft.locator.prediction import Predictor
from sgmft.utils.checksums import short_digest

KINDS = ("Conv", "Clip", "Add")  # with ReLU6, a convolution's range is that of what it clips to
SEEN, BATCH = 128, 8  # pictures that ranges are taken from, and of one run
COMPARED = 128  # posts
PIXELS = 3  # channels of what the first convolution reads


def quantize_graph(path: Path, batches: Iterable[Mapping[str, NDArray[Any]]], out: Path) -> None:
    """Write the graph at `path` to `out`, perhaps the same file, its convolutions in integers.

    Activations are unsigned 8-bit integers, over the range that they take in `batches`; weights are
    integers of 7 bits with a scale for each channel, since two products of 8 bits overflow on
    processors without instructions for them (VNNI). Convolutions that read pixels, and whatever is
    no convolution, stay in float32.
    """
    from onnx import load
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            return next(self._batches, None)

    graph = load(path).graph
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    first = [node.name for node in convolutions if shapes[node.input[1]][1] == PIXELS]
    with TemporaryDirectory(dir=out.parent, prefix=".") as folder, _quiet():
        whole = Path(folder) / out.name
        quantize_static(
            path,
            whole,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=first,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        whole.replace(out)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer, whose advice goes to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def quantize_image_network(path: Path, posts: Sequence[Post], info: EncoderInfo) -> EncoderInfo:
    """Write the graph of the picture networks again in 8 bits; return its `EncoderInfo`.

    Ranges are taken from up to 128 pictures of a half of the posts, drawn at random but always the
    same; SgmftError where none of those has a picture that can be read. The encoder's info, that of
    float32, is returned with a fingerprint of its own.
    """
    pictures = list(pictures_of(_halves(posts)[0], info))
    if not pictures:
        raise SgmftError(
            "8 bits need pictures such as the model will see, and none of the posts that --int8 "
            "named has one that can be read."
        )
    stacked = np.stack(pictures)
    batches = ({"pictures": stacked[i : i + BATCH]} for i in range(0, len(stacked), BATCH))
    quantize_graph(path, batches, path)
    digest = short_digest(path.read_bytes())
    fingerprint = short_digest(f"{info.fingerprint} {digest}".encode())
    return replace(info, fingerprint=fingerprint, image_key=f"{info.image_key}, int8 {digest}")


def agreement(one: Predictor, other: Predictor, posts: Sequence[Post]) -> tuple[int, int]:
    """Return the number of posts on which two models agree, and of those that were compared.

    These are up to 128 posts of the half that `quantize_image_network` did not take ranges from.
    """
    compared = [post for post in _halves(posts)[1] if post.images][:COMPARED]
    labels = zip(one.predict(compared), other.predict(compared), strict=True)
    same = [a == b for a, b in labels if a is not None]
    return sum(same), len(same)


def _halves(posts: Sequence[Post]) -> tuple[list[Post], list[Post]]:
    order = np.random.default_rng(0).permutation(len(posts))
    half = (len(posts) + 1) // 2
    return [posts[i] for i in order[:half]], [posts[i] for i in order[half:]]


def pictures_of(posts: Sequence[Post], info: EncoderInfo) -> Iterator[Pixels]:
    """Yield one picture of each post that has one which can be read, up to SEEN."""
    prepared = (prepare_post(post, info) for post in posts if post.images)
    return islice((post.images[0] for post in prepared if not isinstance(post, str)), SEEN)
