"""Posts to features by `compact`, as `sgmft encode` does it, against a plain loop.

    python benchmarks/compact_features.py

96 posts of a text and a JPEG picture of 640 pixels. The plain loop is what one writes first: open,
scale and norm a post's picture, run the package's two networks in float32 on it, encode its text,
and go on to the next post. Ours reads the same files. In the same run, each stage of ours alone,
and the texts of posts without pictures by all processors and by one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from compact_pictures import package
from measuring import in_turns, least_cosine, print_row
from PIL import Image
from sample_posts import write_sample

from sgmft import Post
from sgmft.data.preprocessing.images import decode_image, read_image
from sgmft.data.tables import read_posts
from sgmft.features.encode import encode_all
from sgmft.features.encoders.image_encoder import MEAN, NETWORKS, STD
from sgmft.features.encoders.registry import load_encoder
from sgmft.utils.runtime import thread_count

POSTS, SIDE, ROUNDS = 96, 640, 3
TEXTS = 600  # of posts without pictures


def posts_in(folder: Path) -> list[Post]:
    """Generated texts with photographs of 640 pixels."""
    found = []
    for post in read_posts(write_sample(folder, 2 * POSTS, noise=0, several=0)):
        with Image.open(post.images[0]) as picture:
            path = folder / f"{post.id}.jpg"
            picture.convert("RGB").resize((SIDE, SIDE)).save(path, quality=90)
        found.append(Post(post.text, [path]))
    return found[:POSTS]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        posts = posts_in(Path(name))
        encoder = load_encoder("compact", device="cpu")
        networks = [(package(key), size) for key, size in NETWORKS.items()]

        @torch.inference_mode()
        def theirs() -> np.ndarray:
            rows = []
            for post in posts:
                with Image.open(post.images[0]) as picture:
                    whole = picture.convert("RGB")
                sides = []
                for network, size in networks:
                    pixels = torch.from_numpy(np.array(whole.resize((size, size), 3))).float()
                    x = ((pixels - MEAN) / STD).permute(2, 0, 1)[None]
                    sides.append(network.extract_features(x).mean((2, 3))[0].numpy())
                sides.append(encoder.encode_texts([post.text], False).pooled[0])
                rows.append(np.concatenate(sides))
            return np.stack(rows)

        def ours() -> np.ndarray:
            features = encode_all(posts, encoder).features
            return np.concatenate([features.image, features.text], 1)

        def stages() -> dict[str, float]:
            began = [time.perf_counter()]
            pixels = np.stack(
                [decode_image(read_image(p.images[0]), "a", encoder.info.image_size) for p in posts]
            )
            began.append(time.perf_counter())
            encoder.encode_texts([post.text for post in posts], False)
            began.append(time.perf_counter())
            encoder.encode_images(pixels, False)
            began.append(time.perf_counter())
            return dict(zip(("decoding", "texts", "network"), np.diff(began), strict=True))

        found = in_turns(theirs, ours, ROUNDS)
        print_row(
            "`compact` features of posts with 640-px JPEGs",
            "the package's float32 loop, post by post",
            found.ratio,
            "≥ 6",
            f"cosines ≥ {least_cosine(*found.answers):.4f}",
        )
        seconds = [stages() for _ in range(ROUNDS)]
        told = {stage: median(one[stage] for one in seconds) for stage in seconds[0]}
        share = max(told.values()) / median(found.ours)
        stage_times = ", ".join(f"{stage} {second:.1f} s" for stage, second in told.items())
        print_row(
            "its rate, of that of the slowest stage alone",
            f"{stage_times}; together {median(found.ours):.1f} s",
            f"{100 * share:.0f} %",
            "≥ 90 %",
            "–",
        )
        table = write_sample(Path(name) / "texts", TEXTS, noise=0, several=0)
        alone = [Post(post.text) for post in read_posts(table)]

        def by(threads: int) -> Callable[[], np.ndarray]:
            def run() -> np.ndarray:
                os.environ["OMP_NUM_THREADS"] = str(threads)
                return encode_all(alone, encoder).features.text

            return run

        found = in_turns(by(1), by(thread_count()), ROUNDS)
        took = f"{1000 * median(found.ours) / len(alone):.1f} ms a text"
        took += ", the same bits" if np.array_equal(*found.answers) else ", other bits"
        print_row("`compact` features of texts", "by one thread", found.ratio, "–", took)


if __name__ == "__main__":
    main()
