"""Posts to features: their order, the reasons of bad ones, and whose features they are."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from recording_encoder import IMAGE, SIZE, TEXT, WORD, RecordingEncoder, by_id, equal_features
from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import decode_image
from sgmft.data.preprocessing.text import hash_ngrams
from sgmft.features.encode import MAX_IMAGES, encode_posts
from sgmft.features.encoders.base import Encoded
from sgmft.features.features import Features
from sgmft.features.store import FeatureStore

REASONS = {
    "emoji": "nothing to go on",
    "carried": "row 7 has no columns",
    "nothing": "nothing to go on",
    "missing alone": "there is no file missing.jpg",
}
WARNINGS = {
    "missing": "there is no file missing.jpg",
    "cut": "cut.jpg",
    "many": f"{MAX_IMAGES + 1} pictures",
    "empty": "empty.jpg",
}


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("with_store", [False, True])
def test_order_and_reasons(posts, files, tmp_path, chunk: int, with_store: bool) -> None:
    posts.append(Post("😂😂", [files["missing.jpg"]], id="missing alone"))
    encoder = RecordingEncoder()
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
        assert [WARNINGS[str(post.id)] in x for x in post.warnings] == [True] * (
            post.id in WARNINGS
        )
    for c in chunks:
        assert c.good == [i for i, post in enumerate(c.posts) if post.error is None]
        assert len(c.keys) == len(c.rows) == len(c.good)
    missing = next(post.error for post in seen if post.id == "missing alone")
    assert missing.template == "there is no file {name}", "it can still be translated"


def test_features_belong_to_their_posts(posts, files) -> None:
    encoder = RecordingEncoder()
    found = by_id(list(encode_posts(posts, encoder, tokens=True, chunk=6)))

    def picture(name: str) -> Encoded:  # by itself
        return encoder.encode_images(decode_image(files[name].read_bytes(), name, SIZE)[None], True)

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
    assert found["just enough"].images.shape == (MAX_IMAGES, IMAGE)
    assert found["many"].images.shape == (MAX_IMAGES, IMAGE)
    np.testing.assert_array_equal(found["cut"].images, picture("red.png").pooled)
    assert found["text"].images is found["text"].regions is None
    assert found["picture"].text is found["picture"].words is None
    assert found["emoji with a picture"].text is None
    assert equal_features(found["both"], found["both again"])


@pytest.mark.parametrize("tokens", [True, False])
def test_every_post_with_a_text_has_its_n_grams(posts, tokens: bool) -> None:
    written = Post("@小明 在家 看书 http://t.cn/A6 😂", id="written")
    found = by_id(list(encode_posts([*posts, written], RecordingEncoder(), tokens=tokens)))
    np.testing.assert_array_equal(found["both"].ngrams, hash_ngrams("在家看书"))
    np.testing.assert_array_equal(found["three"].ngrams, hash_ngrams("电影院"))
    np.testing.assert_array_equal(
        found["written"].ngrams, hash_ngrams("在家看书")
    )  # as it is cleaned
    for row in found.values():
        assert (row.ngrams is None) == (row.text is None)
    assert found["picture"].ngrams is found["emoji with a picture"].ngrams is None


def test_tokens_only_where_asked_for(posts) -> None:
    for row in by_id(list(encode_posts(posts, RecordingEncoder()))).values():
        assert row.words is None and row.regions is None


def test_no_posts_and_only_bad_ones(tmp_path) -> None:
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path, encoder.info, True)
    assert list(encode_posts([], encoder, store=store)) == []
    (chunk,) = encode_posts([Post("")] * 3, encoder, tokens=True, store=store)
    assert chunk.good == chunk.keys == chunk.rows == [] and len(chunk.posts) == 3
    features = Features.of(chunk.rows, encoder.info, True)
    assert features.text.shape == (0, TEXT) and features.image.shape == (0, IMAGE)
    assert features.words.values.shape == (0, WORD) and features.ngrams.values.shape == (0,)


def test_posts_are_taken_one_chunk_ahead() -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Post(f"第{taken}条")

    stream = encode_posts(endless(), RecordingEncoder(), chunk=5)
    for expected in (10, 15, 20):
        next(stream)
        assert taken == expected


@pytest.mark.parametrize("apart", [False, True])
def test_texts_are_encoded_beside_pictures_where_they_can_be(posts, apart: bool) -> None:
    class Meeting(RecordingEncoder):
        """Waits, before a picture is encoded, for texts to be under way."""

        def __init__(self) -> None:
            super().__init__()
            self.info = replace(self.info, texts_apart=apart)
            self.begun, self.seen, self.beside = Event(), Event(), []

        def encode_texts(self, texts, tokens):
            self.begun.set()
            self.beside.append(self.seen.wait(10 if apart else 0))
            return super().encode_texts(texts, tokens)

        def encode_images(self, pictures, tokens):
            assert self.begun.wait(10)
            self.seen.set()
            return super().encode_images(pictures, tokens)

    encoder, plain = Meeting(), RecordingEncoder()
    found, wanted = (list(encode_posts(posts, x, tokens=True)) for x in (encoder, plain))
    assert encoder.beside == [apart]
    for one, other in zip(found, wanted, strict=True):
        assert one.keys == other.keys
        assert all(equal_features(a, b) for a, b in zip(one.rows, other.rows, strict=True))
