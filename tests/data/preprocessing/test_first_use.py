"""The first posts of a process, prepared by several threads, are prepared as all others are.

As a script it is such a process: `test_first_use.py FOLDER THREADS SEED` prints what it prepared,
and without a seed the features that it encoded.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

TEXTS = [
    "看，喝喝咖啡～❤️前任攻略2 1",
    "转发微博//@小明:电影院[二哈]//@user_2：学校 http://t.cn/A6abc回家",
    "👨‍👩‍👧在家🏳️‍🌈，1️⃣#️⃣ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "I am working at home 😂 in the room, see www.weibo.com/x",
    "#北京美食# 我们在電影院看電影🈚㊙️",
    "Привет café 한국어 ありがとう हिन्दी ไทย",
    "",
]


def prepare(folder: Path, threads: int, seed: int) -> dict[str, str]:
    """What becomes of all texts, under every cleaning, and of the files in a folder, as digests.

    Every thread meets the emoji first, at the same time as the others, then words, then the rest.
    """
    from sgmft.data.preprocessing.media import decode_media
    from sgmft.data.preprocessing.text import CLEANINGS, clean_text, split_words

    barrier, draw = Barrier(threads), random.Random(seed)
    texts: dict[str, Callable[[], object]] = {}
    for i, text in enumerate(TEXTS):
        for name, cleaning in CLEANINGS.items():
            texts[f"{name} {i}"] = lambda text=text, x=cleaning: clean_text(text, x)
            texts[f"{name} {i}, words"] = lambda text=text, x=cleaning: split_words(text, x)
    files: dict[str, Callable[[], object]] = {
        path.name: lambda path=path: [x.tolist() for x in decode_media(path.read_bytes(), "", 24)]
        for path in sorted(folder.iterdir())
    }

    def work(number: int) -> list[tuple[str, str]]:
        first = ["light 0", f"light {number % 3}", f"paper {number % 3}, words"]
        rest = [*texts, *files]
        draw.shuffle(rest)
        barrier.wait()
        made = [(name, (texts | files)[name]()) for name in (*first, *rest)]
        return [(name, hashlib.sha256(repr(x).encode()).hexdigest()) for name, x in made]

    before = list(warnings.filters)
    with ThreadPoolExecutor(threads) as pool:
        found = set[tuple[str, str]]().union(*pool.map(work, range(threads)))
    assert warnings.filters == before
    assert len(found) == len(texts) + len(files), "two threads made different things"
    return dict(found)


def encode(folder: Path, threads: int) -> list[list[str]]:
    """The features of the first posts of a process, as digests: texts, files, and both."""
    from sgmft.data.posts import Post
    from sgmft.features.encode import encode_posts
    from sgmft.features.encoders.registry import load_encoder

    os.cpu_count = lambda: threads  # so many prepare posts
    files = sorted(folder.iterdir())
    posts = [*map(Post, TEXTS), *(Post("", [file]) for file in files)]
    posts += [Post(text, [file]) for text, file in zip(TEXTS, files, strict=False)]
    chunks = list(encode_posts(posts, load_encoder(), tokens=True, chunk=16))
    rows = [[post.error for chunk in chunks for post in chunk.posts]]
    rows += [[x if x is None else x.tobytes() for x in row] for c in chunks for row in c.rows]
    return [[hashlib.sha256(repr(x).encode()).hexdigest() for x in row] for row in rows]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of every format, animations, videos, and a motion photo."""
    import image_files as made
    import video_files as film

    folder = tmp_path_factory.mktemp("files")
    made_files = {
        **{x: made.encoded(made.scene((60, 40)), x) for x in made.FORMATS},
        "turned": made.turned(made.quarters(), 6),
        "clear": made.encoded(made.plain((255, 0, 0, 128), mode="RGBA"), "WEBP"),
        "palette": made.encoded(made.plain(3, mode="P"), "GIF", transparency=3),
        **{f"moving {x}": film.moving(x, 8) for x in made.FORMATS if x in "GIF PNG WEBP AVIF"},
        **{x: film.video(film.coloured(16), x) for x in film.CODECS},
        "motion photo": film.motion_photo(),
    }
    for name, data in made_files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def expected(files: Path) -> dict[str, str]:
    prepare(files, 1, 0)
    return prepare(files, 1, 0)  # with everything loaded


@pytest.fixture(scope="module")
def features(files: Path) -> list[list[str]]:
    return in_a_new_process(files, 1)


def in_a_new_process(files: Path, threads: int, *seed: int) -> Any:
    command = [sys.executable, __file__, files, str(threads), *map(str, seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "threads", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4))]
)
def test_first_posts(files: Path, expected: dict[str, str], threads: int) -> None:
    assert in_a_new_process(files, threads, 0) == expected


@pytest.mark.slow
@pytest.mark.parametrize("threads", range(1, 9))
def test_first_posts_again_and_again(files: Path, expected: dict[str, str], threads: int) -> None:
    for seed in range(1, 6):
        assert in_a_new_process(files, threads, seed) == expected


@pytest.mark.slow
@pytest.mark.parametrize("threads", range(1, 9))
def test_features_of_first_posts(files: Path, features: list[list[str]], threads: int) -> None:
    assert len(features) > len(TEXTS) + len(list(files.iterdir()))
    assert in_a_new_process(files, threads) == features


if __name__ == "__main__":
    sys.setswitchinterval(1e-4)
    folder, threads, *seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
    print(json.dumps(prepare(folder, threads, *seed) if seed else encode(folder, threads)))
