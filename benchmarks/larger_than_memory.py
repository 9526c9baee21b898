"""A training on more features than memory: `python benchmarks/larger_than_memory.py`.

Features of made-up posts are written to a store. A first training, on few of them, shows what the
process needs whatever the number of posts. Then its memory is limited (RLIMIT_DATA: everything but
files mapped for reading) to that and `--room` of a megabyte count below the size of the features,
and it trains on all of them. At last it is asked to hold them in memory, and cannot.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import sgmft.locator.locator as locator_module
from sgmft import Post, SemanticLocator
from sgmft.features.encode import PreparedPost, encode_all, prepare_post
from sgmft.features.encoders.base import Encoded, EncoderInfo, PostFeatures
from sgmft.features.encoders.registry import ENCODERS
from sgmft.features.store import FeatureStore

WORDS, REGIONS = 20, 16  # of a post, as the encoder `compact` has them for a short one
FEW = 600  # posts, enough that statistics are taken from parts of full size
MB = 1e6


class Unasked:
    """An encoder of the widths of `compact` that must not be asked for anything."""

    def __init__(self, **settings: Any) -> None:
        self.info = EncoderInfo(
            "unasked", "f" * 16, 1536, 2560, False, None, 8, "light", word_width=512
        )

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        assert not texts, "the store has all of them"
        return Encoded(np.zeros((0, self.info.text_width), np.float32), [])

    def encode_images(self, pictures: np.ndarray, tokens: bool) -> Encoded:
        assert not len(pictures), "the store has all of them"
        return Encoded(np.zeros((0, self.info.image_width), np.float32), [])


def fill(folder: Path, posts: Sequence[Post]) -> int:
    """Write the features of posts to a store; how many bytes they are."""
    encoder, rng, size = Unasked(), np.random.default_rng(0), 0
    info = encoder.info
    store = FeatureStore(folder, info, tokens=True)
    for first in range(0, len(posts), 256):
        rows = {}
        for post in posts[first : first + 256]:
            content = prepare_post(post, encoder.info)
            assert isinstance(content, PreparedPost)
            row = PostFeatures(
                rng.standard_normal(info.text_width, np.float32),
                rng.standard_normal((WORDS, info.word_width), np.float32).astype(np.float16),
                rng.standard_normal((1, info.image_width), np.float32),
                rng.standard_normal((REGIONS, info.image_width), np.float32).astype(np.float16),
                np.arange(2 * WORDS, dtype=np.int32),
            )
            rows[content.key] = row
            size += sum(x.nbytes for x in row if x is not None)
        store.write(rows)
    return size


def status(name: str) -> int:
    """A figure of this process in bytes, such as RssAnon or VmData."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The largest RssAnon and VmData while it lasts, looked at a hundred times a second."""
    peak, done = {"RssAnon": 0, "VmData": 0}, threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            for name in peak:
                peak[name] = max(peak[name], status(name))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def train(folder: Path, posts: Sequence[Post], epochs: int) -> float:
    """Train the preset `tokens` to the end; in how many seconds."""
    settings = {"epochs": epochs, "patience": 0}
    locator = SemanticLocator("unasked", preset="tokens", settings=settings, features=folder)
    start = time.monotonic()
    locator.fit(posts)
    assert len(locator.training.to_config()["history"]) == epochs
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--room", type=float, default=0.4, help="share of the features' size")
    options = parser.parse_args()
    ENCODERS["unasked"] = Unasked  # type: ignore[assignment]
    posts = [Post(f"sofa day{i}", label="HSW"[i % 3]) for i in range(options.posts)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = fill(folder, posts)
        stored = sum(path.stat().st_size for path in folder.rglob("part-*"))
        print(f"features of {len(posts)} posts: {size / MB:.0f} MB, {stored / MB:.0f} in the store")
        with watched() as peak:
            train(folder, posts[:FEW], 1)
        idle = status("VmData")
        print(f"a training on {FEW} of them: RssAnon at most {peak['RssAnon'] / MB:.0f} MB")
        limit = max(idle, peak["VmData"]) + int(options.room * size)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        print(
            f"limit: {limit / MB:.0f} MB, {options.room * size / MB:.0f} more than it took so far"
        )
        with watched() as peak:
            seconds = train(folder, posts, options.epochs)
        print(
            f"on all, from files: RssAnon at most {peak['RssAnon'] / MB:.0f} MB, "
            f"{options.epochs * len(posts) / seconds:.0f} posts a second, {seconds:.0f} s"
        )
        locator_module.encode_all = _in_memory
        try:
            train(folder, posts, options.epochs)
        except (MemoryError, RuntimeError, OSError) as error:
            print(f"on all, in memory: {type(error).__name__}, {error}")
        else:
            sys.exit("on all, in memory: went well, so that the limit proves nothing")


def _in_memory(*given: Any, **options: Any) -> Any:
    return encode_all(*given, **{**options, "on_disk": False})


if __name__ == "__main__":
    main()
