"""What one post costs on one processor with `compact`, and how many bytes it leaves.

    OMP_NUM_THREADS=1 python benchmarks/cost.py

Generated posts with one 640-pixel JPEG each. Each stage alone, the median of ROUNDS turns: reading
and decoding, the text network, the picture network, the prediction of the gated experts. Bytes on
disk: the pictures, the feature store without and with word and region features, a shard of
predictions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from compact_features import posts_in
from export import sample

from sgmft import SemanticLocator
from sgmft.data.source import Source
from sgmft.features.encode import PreparedPost, encode_all, prepare_post
from sgmft.features.store import FeatureStore
from sgmft.jobs.predict import ModelFolder, predict_table
from sgmft.models.base import predict_logits

ROUNDS = 5


def cost(work: Callable[[], object], posts: int) -> str:
    """Milliseconds a post."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return f"{1000 * median(seconds) / posts:.2f} ms"


def size(folder: Path, posts: int) -> str:
    """Bytes a post of the Parquet files in a folder."""
    return f"{sum(x.stat().st_size for x in folder.rglob('*.parquet')) / posts:,.0f} bytes"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, table = sample(folder)
        posts = posts_in(folder / "photographs")
        locator = SemanticLocator.from_pretrained(model)
        encoder = locator.encoder
        contents = [prepare_post(post, encoder.info) for post in posts]
        good = [x for x in contents if isinstance(x, PreparedPost)]
        count = len(good)
        texts = [x.text for x in good]
        pictures = np.stack([x.images[0] for x in good])
        features = encode_all(posts, encoder).features
        assert locator.network is not None
        network = locator.network
        print("| stage | a post |\n|---|---|")
        decoding = cost(lambda: [prepare_post(x, encoder.info) for x in posts], count)
        print(f"| read and decode | {decoding} |")
        print(f"| text network | {cost(lambda: encoder.encode_texts(texts, False), count)} |")
        print(
            f"| picture network | {cost(lambda: encoder.encode_images(pictures, False), count)} |"
        )
        print(f"| answer | {cost(lambda: predict_logits(network, features), count)} |")
        print("| on disk | |")
        bytes_read = sum(Path(str(post.images[0])).stat().st_size for post in posts)
        print(f"| pictures | {bytes_read / count:,.0f} bytes |")
        for tokens in (False, True):
            store = FeatureStore(folder / f"features-{tokens}", encoder.info, tokens)
            encode_all(posts, encoder, tokens=tokens, store=store)
            kind = "with words and regions" if tokens else "pooled"
            print(f"| features, {kind} | {size(store.folder, count)} |")
        told = predict_table(Source(str(table)), folder / "out", ModelFolder(str(model)))
        print(f"| predictions | {size(folder / 'out', told.posts)} |")


if __name__ == "__main__":
    main()
