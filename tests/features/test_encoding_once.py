"""Encoding with a store: the same features as without one, and nothing encoded twice."""

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic.sample import write_sample

from image_files import encoded, plain
from recording_encoder import RecordingEncoder, by_id, equal_features
from sgmft.data.posts import Post
from sgmft.features.encode import encode_posts
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.features import Features
from sgmft.features.store import FeatureStore


def test_with_and_without_store_give_the_same(posts, tmp_path) -> None:
    for tokens in (True, False):
        encoder = RecordingEncoder()
        bare = by_id(list(encode_posts(posts, encoder, tokens=tokens, chunk=4)))
        for _ in range(2):  # encoding, then only reading
            store = FeatureStore(tmp_path, encoder.info, tokens)
            kept = by_id(list(encode_posts(posts, encoder, tokens=tokens, store=store, chunk=4)))
            assert kept.keys() == bare.keys()
            assert all(equal_features(kept[id_], bare[id_]) for id_ in bare)


def test_what_is_encoded_once_for_several_posts_is_as_if_each_were_alone(posts) -> None:
    alone = by_id(list(encode_posts(posts, RecordingEncoder(), tokens=True, chunk=1)))
    together = by_id(list(encode_posts(posts, RecordingEncoder(), tokens=True, chunk=100)))
    assert alone.keys() == together.keys()
    assert all(equal_features(alone[id_], together[id_]) for id_ in alone)


@pytest.mark.parametrize("chunk", [3, 100])
def test_nothing_is_encoded_twice(posts, tmp_path, chunk: int) -> None:
    def run(some: list[Post], **settings: str) -> RecordingEncoder:
        encoder = RecordingEncoder(**settings)
        store = FeatureStore(tmp_path / "f", encoder.info, True)
        list(encode_posts(some, encoder, tokens=True, store=store, chunk=chunk))
        return encoder

    first = run(posts)
    # 12 good posts of which two are duplicates; in one chunk no text and no picture comes twice.
    known = {"在家看书", "学校上课", "电影院", "满员", "在家", "多图"}
    assert sorted(first.texts) == sorted(known)
    assert len(first.pictures) == {3: 2 + 1 + 2 + 3 + 1, 100: 3}[chunk]
    assert not any((again := run(posts)).texts) and not again.pictures
    moved = run([Post("旅游"), *posts[::-1]])  # another table with the same posts
    assert moved.texts == ["旅游"] and not moved.pictures
    assert len(run(posts, fingerprint="d" * 16).texts) == len(known), (
        "another encoder has its own store"
    )


def test_a_renamed_picture_is_the_same_and_a_changed_one_is_not(files, tmp_path) -> None:
    encoder = RecordingEncoder()
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


def test_a_repaired_image_is_encoded_on_the_next_run(files, tmp_path) -> None:
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path / "f", encoder.info, True)
    posts = [Post("家", [files["cut.jpg"]]), Post("", [files["cut.jpg"]])]
    (first,) = encode_posts(posts, encoder, tokens=True, store=store)
    assert first.good == [0] and first.rows[0].images is None
    files["cut.jpg"].write_bytes(encoded(plain(), "JPEG"))
    (repaired,) = encode_posts(posts, encoder, tokens=True, store=store)
    assert repaired.good == [0, 1] and repaired.keys[0] != first.keys[0]
    assert repaired.rows[0].images is not None and not any(x.warnings for x in repaired.posts)
    (again,) = encode_posts([Post("家")], encoder, tokens=True, store=store)
    assert again.keys == first.keys, "what was used without the file is what has no file"


@pytest.mark.slow
def test_the_compact_encoder_with_a_store(tmp_path) -> None:
    sample = sample_posts(tmp_path / "sample", 30, damaged=12)
    encoder = load_encoder()
    store = FeatureStore(tmp_path / "f", encoder.info, True)
    bare = list(encode_posts(sample, encoder, tokens=True))
    kept = list(encode_posts(sample, encoder, tokens=True, store=store))
    again = list(encode_posts(sample, encoder, tokens=True, store=store))
    for other in (kept, again):
        for a, b in zip(bare, other, strict=True):
            assert a.posts == b.posts and a.good == b.good and a.keys == b.keys
            assert all(map(equal_features, a.rows, b.rows))
    good = [row for chunk in kept for row in chunk.rows]
    assert len(good) >= 30
    features = Features.of(good, encoder.info, True)
    info = encoder.info
    assert features.text.shape == (len(good), info.text_width)
    assert features.image.shape == (len(good), info.image_width)
    assert features.words.values.shape[1] == info.word_width
    assert features.regions_per_image == 16


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


def test_pictures_that_another_encoder_saw_alike_are_taken_from_its_store(
    tiny, small_posts, tmp_path, monkeypatch
):
    """Another cleaning changes texts only: the same features as encoding anew, without decoding."""
    first = tiny(cleaning="light").encoder
    second = tiny(cleaning="none").encoder
    light = FeatureStore(tmp_path / "light", first.info, True)
    list(encode_posts(small_posts, first, tokens=True, store=light))
    (expected,) = encode_posts(small_posts, second, tokens=True)
    monkeypatch.setattr("sgmft.features.encode.media.decode_media", None)
    for tokens in (True, False):
        none = FeatureStore(tmp_path / "none", second.info, tokens)
        (chunk,) = encode_posts(small_posts, second, tokens=tokens, store=none, image_store=light)
        assert chunk.keys == expected.keys
        for got, wanted in zip(chunk.rows, expected.rows, strict=True):
            assert got.ngrams is not None or got.text is None
            wanted = wanted if tokens else wanted._replace(words=None, regions=None)
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b)
