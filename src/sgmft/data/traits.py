"""Traits of posts that can give a label away: words, and how pictures are, not what they show."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError, open_image, square
from sgmft.data.preprocessing.media import media_name, read_media
from sgmft.data.preprocessing.text import get_cleaning, split_words
from sgmft.utils.runtime import thread_count

FIFTHS = (0.2, 0.4, 0.6, 0.8)  # where ranges of numbers end, as ties allow
GREY, EVEN = 12, 4  # how far the channels of a pixel, and a border's pixels, may differ
_MARKED = re.compile(r"[#@][\w·-]+|https?://[\w.-]+|^rt\b")


def read_traits(posts: Sequence[Post]) -> tuple[list[set[str]], NDArray[np.float32]]:
    """Return the traits of N posts, each as "kind: value", and outlines of their first pictures.

    Kinds are word; format; grey and border (of one colour, on two sides), where it is so; and, with
    ranges for values, characters, pictures, bytes, width, height and shape (width by height).
    Outlines (N, 16 x 15), a difference hash, say where a picture grows lighter, 1, or darker, -1.
    """
    with ThreadPoolExecutor(thread_count()) as pool:
        known = list(pool.map(_measure, posts))
    for name in sorted({name for _, numbers, _ in known for name in numbers}):
        own = [(traits, numbers[name]) for traits, numbers, _ in known if name in numbers]
        values = np.array([value for _, value in own])
        edges = np.unique(np.quantile(values, FIFTHS, method="lower"))
        place = np.searchsorted(edges, values)
        for (traits, _), number in zip(own, place, strict=True):
            part = values[place == number]
            ends = dict.fromkeys(f"{x:g}" for x in (part.min(), part.max()))
            traits.add(f"{name}: {' – '.join(ends)}")
    return [traits for traits, *_ in known], np.stack([x for *_, x in known])


def _measure(post: Post) -> tuple[set[str], dict[str, float], NDArray[np.float32]]:
    text, outline = post.text.casefold(), np.zeros(240, np.float32)
    words = {*split_words(text, get_cleaning("none")), *_MARKED.findall(text)}
    traits = {f"word: {x}" for x in words if re.search(r"\w", x)}
    numbers: dict[str, float] = {"characters": len(text), "pictures": len(post.images)}
    for file in post.images[:1]:
        with suppress(ImageError), open_image(data := read_media(file), media_name(file)) as image:
            (w, h), kind = image.size, image.format
            pixels = square(image, 64).astype(int)
            numbers |= {"bytes": len(data), "width": w, "height": h, "shape": w / h}
            sides = pixels[[0, -1]], pixels[:, [0, -1]].swapaxes(0, 1)
            flags = {"grey": np.quantile(np.ptp(pixels, -1), 0.99) <= GREY}
            flags["border"] = any(np.ptp(x, 1).max() <= EVEN for x in sides)
            traits |= {f"format: {kind}", *(f"{x}: yes" for x, flag in flags.items() if flag)}
            slopes = np.diff(pixels.reshape(16, 4, 16, 4, 3).mean((1, 3, 4)), axis=1).ravel()
            outline[:] = np.sign(slopes) * (np.abs(slopes) >= 1)
    return traits, numbers, outline
