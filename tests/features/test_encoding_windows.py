"""Long posts encoded in windows: their rows, and everybody else's, which stay as they were."""

from dataclasses import replace
from pathlib import Path

import pytest

from image_files import encoded, plain
from recording_encoder import RecordingEncoder, equal_features
from sgmft.data.posts import Post
from sgmft.data.preprocessing.text import MAX_CHARACTERS, get_cleaning, split_windows
from sgmft.features.encode import encode_posts, encode_windows
from sgmft.features.encoders.base import PostFeatures
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.store import FeatureStore

SENTENCE = "昨天和老朋友聊了很多以前的事情，关于选择，关于远方，关于我们各自的生活。"
LONG = SENTENCE * 3 + "散场以后我们从电影院走出来，爆米花还剩半桶。"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "red.png").write_bytes(encoded(plain((255, 0, 0)), "PNG"))
    return tmp_path / "red.png"


@pytest.mark.parametrize("tokens", [True, False])
def test_rows_of_a_long_post(picture: Path, tokens: bool) -> None:
    encoder = RecordingEncoder(cleaning="light")
    posts = [Post("家"), Post(LONG), Post("", error="bad"), Post(LONG, [picture]), Post("学校")]
    (chunk,) = encode_windows(posts, encoder, 32, tokens=tokens)
    windows = split_windows(LONG, get_cleaning("light"))
    assert chunk.good == [0, 1, 3, 4] and list(chunk.windows) == [0, 4, 4, 0]
    (alone,) = encode_posts(map(Post, windows), encoder, tokens=tokens)
    (whole,) = encode_posts(posts, encoder, tokens=tokens)
    image = whole.rows[2]
    both = [x._replace(images=image.images, regions=image.regions) for x in alone.rows]
    wanted = [whole.rows[0], *alone.rows, *alone.rows, *both, *alone.rows, whole.rows[3]]
    assert all(map(equal_features, chunk.rows, wanted)) and len(chunk.rows) == len(wanted)


def test_short_posts_keep_their_features_to_the_last_bit() -> None:
    encoder = load_encoder()
    posts = [Post("周末在家看书"), Post(LONG), Post("在学校上课，好困"), Post("I am at work")]
    (plain_chunk,) = encode_posts(posts, encoder, tokens=True)
    (chunk,) = encode_windows(posts, encoder, 32, tokens=True)
    assert list(chunk.windows) == [0, 4, 0, 0] and len(chunk.rows) == 11
    for found, wanted in ((0, 0), (9, 2), (10, 3)):
        assert equal_features(chunk.rows[found], plain_chunk.rows[wanted])


def test_windows_are_kept_and_a_finished_store_may_be_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, posts = RecordingEncoder(cleaning="light"), [Post("家"), Post(LONG)]

    def run() -> list[PostFeatures]:
        store = FeatureStore(tmp_path, encoder.info, True)
        return [
            x for c in encode_windows(posts, encoder, 32, tokens=True, store=store) for x in c.rows
        ]

    once, texts = run(), len(encoder.texts)
    assert texts == 4 and all(map(equal_features, run(), once)) and len(encoder.texts) == texts
    for shard in tmp_path.rglob("part-*.parquet"):
        shard.unlink()
    store = FeatureStore(tmp_path, encoder.info, True)
    list(encode_posts(posts, encoder, tokens=True, store=store))
    monkeypatch.setattr("os.access", lambda *given: False)
    shards = list(tmp_path.rglob("part-*.parquet"))
    assert all(map(equal_features, run(), once))
    assert list(tmp_path.rglob("part-*.parquet")) == shards


def test_what_is_not_read_is_said() -> None:
    posts = [Post("家" * MAX_CHARACTERS), Post("家" * (MAX_CHARACTERS + 1)), Post("")]
    posts.append(replace(posts[1], warnings=("is odd",)))
    (chunk,) = encode_windows(posts, RecordingEncoder(cleaning="light"), 32)
    told = "has a text of 5001 characters, of which the first 5000 are read"
    assert [post.warnings for post in chunk.posts] == [(), (told,), (), ("is odd", told)]
    assert chunk.posts[2].error and chunk.good == [0, 1, 3]
