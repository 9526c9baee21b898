"""The picture networks of an exported model in 8 bits, for a user's own pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sgmft.encoders.base import EncoderInfo
from sgmft.encoding import prepare
from sgmft.errors import SgmftError
from sgmft.graphs.quantizing import quantize_graph
from sgmft.images import Pixels
from sgmft.posts import Post
from sgmft.seals import short_digest

if TYPE_CHECKING:
    from sgmft.prediction import Predictor

SEEN, BATCH = 128, 8  # pictures that ranges are taken from, and of one run
COMPARED = 128  # posts


def quantize_pictures(path: Path, posts: Sequence[Post], info: EncoderInfo) -> EncoderInfo:
    """Write the graph of the picture networks again in 8 bits.

    Args:
        path: of the graph.
        posts: such as the model will see. Ranges are taken from up to 128 pictures of a half of
            them, drawn at random but always the same.
        info: of the encoder in float32.

    Returns:
        The encoder's, with a fingerprint of its own.

    Raises:
        SgmftError: none of those posts has a picture that can be read.
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
    """On how many posts two models have one label, and of how many.

    Args:
        posts: as `quantize_pictures` was given them; up to 128 of the other half are asked.
    """
    asked = [post for post in _halves(posts)[1] if post.images][:COMPARED]
    labels = zip(one.predict(asked), other.predict(asked), strict=True)
    answered = [a == b for a, b in labels if a is not None]
    return sum(answered), len(answered)


def _halves(posts: Sequence[Post]) -> tuple[list[Post], list[Post]]:
    order = np.random.default_rng(0).permutation(len(posts))
    half = (len(posts) + 1) // 2
    return [posts[i] for i in order[:half]], [posts[i] for i in order[half:]]


def pictures_of(posts: Sequence[Post], info: EncoderInfo) -> Iterator[Pixels]:
    """One of each post that has one which can be read, up to SEEN."""
    prepared = (prepare(post, info) for post in posts if post.images)
    return islice((post.pictures[0] for post in prepared if not isinstance(post, str)), SEEN)
