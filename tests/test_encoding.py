"""Posts to features: order, bad posts, nothing twice, and a process killed at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from picture_files import encoded, plain, quarters, scene, truncated
from sgmft.encoders import Encoded, EncoderInfo, load_encoder
from sgmft.encoding import MAX_PICTURES, Chunk, encode_posts, stack
from sgmft.features import PostFeatures
from sgmft.lexical import ngrams
from sgmft.posts import Post
from sgmft.sample import write_sample
from sgmft.store import FeatureStore

TEXT, WORD, IMAGE, SIZE = 8, 5, 6, 32
POSTS = 120  # in the test that kills


class CountingEncoder:
    """Features are dice thrown by what a text or picture holds; remembers what it was given."""

    def __init__(self, fingerprint: str = "c" * 16, cleaning: str = "paper") -> None:
        self.info = EncoderInfo(
            "counting", fingerprint, TEXT, IMAGE, False, None, SIZE, cleaning, word_width=WORD
        )
        self.texts: list[str] = []
        self.pictures: list[bytes] = []

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        assert all(texts), "an empty text must not reach an encoder"
        self.texts += texts
        rows = [self._dice(text.encode()) for text in texts]
        pooled = np.array([dice.normal(size=TEXT) for dice in rows], np.float32)
        words = [
            dice.normal(size=(len(text), WORD)).astype(np.float32)
            for text, dice in zip(texts, rows, strict=True)
        ]
        return Encoded(pooled.reshape(-1, TEXT), words if tokens else None)

    def encode_images(self, pictures: np.ndarray, tokens: bool) -> Encoded:
        assert pictures.shape[1:] == (SIZE, SIZE, 3) and pictures.dtype == np.uint8
        self.pictures += [picture.tobytes() for picture in pictures]
        rows = [self._dice(picture.tobytes()) for picture in pictures]
        pooled = np.array([dice.normal(size=IMAGE) for dice in rows], np.float32)
        regions = [dice.normal(size=(4, IMAGE)).astype(np.float32) for dice in rows]
        return Encoded(pooled.reshape(-1, IMAGE), regions if tokens else None)

    @staticmethod
    def _dice(content: bytes) -> np.random.Generator:
        return np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest()[:8]))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {
        "red.png": encoded(plain()),
        "quarters.png": encoded(quarters()),
        "scene.jpg": encoded(scene((60, 40)), "JPEG"),
        "cut.jpg": truncated(),
        "empty.jpg": b"",
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in (*made, "missing.jpg")}


@pytest.fixture
def posts(files: dict[str, Path]) -> list[Post]:
    red, four, photo = files["red.png"], files["quarters.png"], files["scene.jpg"]
    return [
        Post("在家看书", [red], id="both"),
        Post("学校上课", id="text"),
        Post("", [photo], id="picture"),
        Post("在家", [files["missing.jpg"]], id="missing"),
        Post("在家", [red, files["cut.jpg"]], id="cut"),
        Post("😂😂", id="emoji"),
        Post("😂😂", [four], id="emoji with a picture"),
        Post("多图", [red] * (MAX_PICTURES + 1), id="many"),
        Post("在家看书", [red], id="both again"),
        Post("电影院", [red, four, photo], id="three"),
        Post("电影院", [four, red, photo], id="three, other order"),
        Post("坏行", error="row 7 has no columns", id="carried"),
        Post("在家", [files["empty.jpg"]], id="empty"),
        Post("", id="nothing"),
        Post("满员", [red] * MAX_PICTURES, id="just enough"),
    ]


REASONS = {
    "missing": "there is no file missing.jpg",
    "cut": "cut.jpg",
    "emoji": "nothing to go on",
    "many": f"{MAX_PICTURES + 1} pictures",
    "carried": "row 7 has no columns",
    "empty": "empty.jpg",
    "nothing": "nothing to go on",
}


def by_id(chunks: list[Chunk]) -> dict[str, PostFeatures]:
    return {
        str(chunk.posts[i].id): row
        for chunk in chunks
        for i, row in zip(chunk.good, chunk.rows, strict=True)
    }


def same(a: PostFeatures, b: PostFeatures) -> bool:
    return all(
        x is y is None
        if x is None or y is None
        else x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("with_store", [False, True])
def test_order_and_reasons(posts, tmp_path, chunk: int, with_store: bool) -> None:
    encoder = CountingEncoder()
    store = FeatureStore(tmp_path / "f", encoder.info, True) if with_store else None
    before = list(posts)
    chunks = list(encode_posts(iter(posts), encoder, tokens=True, store=store, chunk=chunk))
    assert [len(c.posts) for c in chunks[:-1]] == [chunk] * (len(chunks) - 1)
    seen = [post for c in chunks for post in c.posts]
    assert [post.id for post in seen] == [post.id for post in before]
    assert posts == before, "the caller's posts are left alone"
    found = by_id(chunks)
    for post in seen:
        if reason := REASONS.get(str(post.id)):
            assert post.error is not None and reason in post.error and post.id not in found
        else:
            assert post.error is None and post.id in found
    for c in chunks:
        assert c.good == [i for i, post in enumerate(c.posts) if post.error is None]
        assert len(c.keys) == len(c.rows) == len(c.good)


def test_features_belong_to_their_posts(posts, files) -> None:
    encoder = CountingEncoder()
    found = by_id(list(encode_posts(posts, encoder, tokens=True, chunk=6)))
    from sgmft.images import load_picture  # what a post's picture is by itself

    def picture(name: str) -> Encoded:
        return encoder.encode_images(load_picture(files[name], SIZE)[None], True)

    both, three, swapped = found["both"], found["three"], found["three, other order"]
    home = encoder.encode_texts(["在家看书"], True)
    np.testing.assert_array_equal(both.text, home.pooled[0])
    np.testing.assert_array_equal(both.words, home.tokens[0].astype(np.float16))
    np.testing.assert_array_equal(both.images, picture("red.png").pooled)
    alone = [picture(name) for name in ("red.png", "quarters.png", "scene.jpg")]
    np.testing.assert_array_equal(three.images, np.concatenate([p.pooled for p in alone]))
    regions = np.concatenate([p.tokens[0] for p in alone]).astype(np.float16)
    np.testing.assert_array_equal(three.regions, regions)
    np.testing.assert_array_equal(three.images[[1, 0, 2]], swapped.images)
    assert three.text.dtype == three.images.dtype == np.float32
    assert three.words.dtype == three.regions.dtype == np.float16
    assert found["just enough"].images.shape == (MAX_PICTURES, IMAGE)
    assert found["text"].images is found["text"].regions is None
    assert found["picture"].text is found["picture"].words is None
    assert found["emoji with a picture"].text is None
    assert same(found["both"], found["both again"])


@pytest.mark.parametrize("tokens", [True, False])
def test_every_post_with_a_text_has_its_n_grams(posts, tokens: bool) -> None:
    written = Post("@小明 在家 看书 http://t.cn/A6 😂", id="written")
    found = by_id(list(encode_posts([*posts, written], CountingEncoder(), tokens=tokens)))
    np.testing.assert_array_equal(found["both"].ngrams, ngrams("在家看书"))
    np.testing.assert_array_equal(found["three"].ngrams, ngrams("电影院"))
    np.testing.assert_array_equal(found["written"].ngrams, ngrams("在家看书"))  # as it is cleaned
    for row in found.values():
        assert (row.ngrams is None) == (row.text is None)
    assert found["picture"].ngrams is found["emoji with a picture"].ngrams is None


def test_tokens_only_where_asked_for(posts) -> None:
    for row in by_id(list(encode_posts(posts, CountingEncoder()))).values():
        assert row.words is None and row.regions is None


def test_with_and_without_store_give_the_same(posts, tmp_path) -> None:
    for tokens in (True, False):
        encoder = CountingEncoder()
        bare = by_id(list(encode_posts(posts, encoder, tokens=tokens, chunk=4)))
        for _ in range(2):  # encoding, then only reading
            store = FeatureStore(tmp_path, encoder.info, tokens)
            kept = by_id(list(encode_posts(posts, encoder, tokens=tokens, store=store, chunk=4)))
            assert kept.keys() == bare.keys()
            assert all(same(kept[id_], bare[id_]) for id_ in bare)


@pytest.mark.parametrize("chunk", [3, 100])
def test_nothing_is_encoded_twice(posts, tmp_path, chunk: int) -> None:
    def run(some: list[Post], **settings: str) -> CountingEncoder:
        encoder = CountingEncoder(**settings)
        store = FeatureStore(tmp_path / "f", encoder.info, True)
        list(encode_posts(some, encoder, tokens=True, store=store, chunk=chunk))
        return encoder

    first = run(posts)
    # 8 good posts of which one is a duplicate; pictures of those 7: 1, 0, 1, 1, 3, 3, 32.
    assert sorted(first.texts) == sorted(["在家看书", "学校上课", "电影院", "电影院", "满员"])
    assert len(first.pictures) == 1 + 1 + 1 + 3 + 3 + MAX_PICTURES
    assert not any((again := run(posts)).texts) and not again.pictures
    moved = run([Post("旅游"), *posts[::-1]])  # another table with the same posts
    assert moved.texts == ["旅游"] and not moved.pictures
    assert len(run(posts, fingerprint="d" * 16).texts) == 5, "another encoder has its own store"


def test_a_renamed_picture_is_the_same_and_a_changed_one_is_not(files, tmp_path) -> None:
    encoder = CountingEncoder()
    store = FeatureStore(tmp_path / "f", encoder.info, True)

    def key(post: Post) -> str:
        (chunk,) = encode_posts([post], encoder, tokens=True, store=store)
        return chunk.keys[0]

    copy = tmp_path / "other name.png"
    copy.write_bytes(files["red.png"].read_bytes())
    first = key(Post("家", [files["red.png"]]))
    assert key(Post("家", [copy], id="9", label="Home", user="u")) == first
    copy.write_bytes(files["quarters.png"].read_bytes())
    assert key(Post("家", [copy])) != first
    different = {
        first,
        key(Post("家")),
        key(Post("家?")),
        key(Post("家\ud800")),
        key(Post("家\ud801")),
        key(Post("", [files["red.png"]])),
        key(Post("家", [files["red.png"], files["red.png"]])),
    }
    assert len(different) == 7


def test_a_picture_that_was_mended_is_encoded_on_the_next_run(files, tmp_path) -> None:
    encoder = CountingEncoder()
    store = FeatureStore(tmp_path / "f", encoder.info, True)
    post = Post("家", [files["cut.jpg"]])
    assert not next(encode_posts([post], encoder, tokens=True, store=store)).good
    files["cut.jpg"].write_bytes(encoded(plain(), "JPEG"))
    assert next(encode_posts([post], encoder, tokens=True, store=store)).good == [0]


def test_no_posts_and_only_bad_ones(tmp_path) -> None:
    encoder = CountingEncoder()
    store = FeatureStore(tmp_path, encoder.info, True)
    assert list(encode_posts([], encoder, store=store)) == []
    (chunk,) = encode_posts([Post("")] * 3, encoder, tokens=True, store=store)
    assert chunk.good == chunk.keys == chunk.rows == [] and len(chunk.posts) == 3
    features = stack(chunk.rows, encoder, True)
    assert features.text.shape == (0, TEXT) and features.image.shape == (0, IMAGE)
    assert features.words.values.shape == (0, WORD) and features.ngrams.values.shape == (0,)


def test_posts_are_taken_a_chunk_at_a_time() -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Post(f"第{taken}条")

    stream = encode_posts(endless(), CountingEncoder(), chunk=5)
    for expected in (5, 10, 15):
        next(stream)
        assert taken == expected


def test_the_compact_encoder_with_a_store(tmp_path) -> None:
    sample = sample_posts(tmp_path / "sample", 30, damaged=12)
    encoder = load_encoder(dtype="float32")
    store = FeatureStore(tmp_path / "f", encoder.info, True)
    bare = list(encode_posts(sample, encoder, tokens=True))
    kept = list(encode_posts(sample, encoder, tokens=True, store=store))
    again = list(encode_posts(sample, encoder, tokens=True, store=store))
    for other in (kept, again):
        for a, b in zip(bare, other, strict=True):
            assert a.posts == b.posts and a.good == b.good and a.keys == b.keys
            assert all(map(same, a.rows, b.rows))
    good = [row for chunk in kept for row in chunk.rows]
    assert len(good) >= 30
    features = stack(good, encoder, True)
    info = encoder.info
    assert features.text.shape == (len(good), info.text_width)
    assert features.image.shape == (len(good), info.image_width)
    assert features.words.values.shape[1] == info.word_width
    assert features.regions_per_picture == 16


def sample_posts(folder: Path, count: int, damaged: int = 0) -> list[Post]:
    """Sample posts as they are, without the table reader's checks."""
    table = write_sample(folder, posts=count, seed=5, damaged=damaged, users=7)
    posts = []
    for line in table.read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            posts.append(Post(error="not JSON"))
            continue
        images = [folder / name for name in row.get("images") or []]
        posts.append(Post(str(row.get("text") or ""), images, id=str(row.get("id"))))
    return posts


# Encodes the sample in children of one process that has loaded what takes long, and kills them:
# each when so many shards are there and so many seconds have passed; None lets it finish.
DRIVER = """
import json, os, signal, sys, time
from multiprocessing import get_context
from pathlib import Path
from test_encoding import sample_table
from sgmft.encoders import load_encoder
from sgmft.encoding import encode_posts
from sgmft.store import FeatureStore

encoder = load_encoder()
encoder.encode_texts(["家"], True)

def encode(table, folder):
    store = FeatureStore(folder, encoder.info, True)
    for chunk in encode_posts(sample_table(table), encoder, tokens=True, store=store, chunk=8):
        pass

table, folder, moments = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
shards = lambda: {p.name: p.stat().st_mtime_ns for p in folder.glob("*/part-*.parquet")}
for wanted, delay in moments:
    worker = get_context("fork").Process(target=encode, args=(table, folder))
    before = shards()
    worker.start()
    while wanted is not None and worker.is_alive() and len(shards()) < wanted:
        time.sleep(0.002)
    if wanted is not None:
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    after = shards()
    kept = all(after.get(name) == when for name, when in before.items())
    print(json.dumps([worker.exitcode, len(before), len(after), kept]), flush=True)
"""


def sample_table(table: Path) -> list[Post]:
    lines = map(json.loads, table.read_text("utf-8").splitlines())
    return [Post(row["text"], [table.parent / n for n in row["images"]]) for row in lines]


def drive(table: Path, folder: Path, moments: list[tuple[int | None, float]]) -> list[list[int]]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(table), str(folder), json.dumps(moments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment_and_run_again(tmp_path) -> None:
    table = write_sample(tmp_path / "sample", posts=POSTS, seed=1, users=9)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    ((exit_code, _, total, _),) = drive(table, calm, [(None, 0)])
    assert exit_code == 0 and total == POSTS // 8
    # The last moments fall into the encoding, the writing and the renaming of a shard.
    moments = [(0, 0.02), (1, 0.0), (3, 0.05), (5, 0.1), (8, 0.02), (None, 0.0)]
    ends = drive(table, rough, moments)
    for (exit_code, before, after, kept), (wanted, _) in zip(ends, moments, strict=True):
        assert kept, "a finished shard was written again"
        if wanted is None:
            assert exit_code == 0 and before < after
        else:
            assert exit_code == -9 and wanted <= after < total
    files, expected = (
        {p.name: p.read_bytes() for p in folder.glob("*/part-*.parquet")}
        for folder in (rough, calm)
    )
    assert len(expected) == total and files == expected

    class Refusing(CountingEncoder):
        """Everything must come from the store."""

        def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
            assert not texts
            return super().encode_texts(texts, tokens)

        def encode_images(self, pictures: np.ndarray, tokens: bool) -> Encoded:
            assert not len(pictures)
            return Encoded(np.zeros((0, refusing.info.image_width), np.float32), [])

    refusing = Refusing()
    refusing.info = load_encoder().info
    a, b = (
        list(
            encode_posts(
                sample_table(table),
                refusing,
                tokens=True,
                store=FeatureStore(folder, refusing.info, True),
                chunk=50,
            )
        )
        for folder in (calm, rough)
    )
    for one, other in zip(a, b, strict=True):
        assert one.keys == other.keys and all(map(same, one.rows, other.rows))
    assert sum(len(chunk.good) for chunk in a) == POSTS


def test_pictures_that_another_encoder_saw_alike_are_taken_from_its_store(
    tiny, toy_posts, tmp_path, monkeypatch
):
    """Another cleaning changes texts only: the same features as encoding anew, without decoding."""
    first = tiny(cleaning="light").encoder
    second = tiny(cleaning="none").encoder
    light = FeatureStore(tmp_path / "light", first.info, True)
    list(encode_posts(toy_posts, first, tokens=True, store=light))
    (expected,) = encode_posts(toy_posts, second, tokens=True)
    monkeypatch.setattr("sgmft.encoding.decode_picture", None)
    for tokens in (True, False):
        none = FeatureStore(tmp_path / "none", second.info, tokens)
        (chunk,) = encode_posts(toy_posts, second, tokens=tokens, store=none, pictures=light)
        assert chunk.keys == expected.keys
        for got, wanted in zip(chunk.rows, expected.rows, strict=True):
            assert got.ngrams is not None or got.text is None
            wanted = wanted if tokens else wanted._replace(words=None, regions=None)
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b)
