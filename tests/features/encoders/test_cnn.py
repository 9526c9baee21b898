"""The encoder of words as numbers: each word's own number, and `compact`'s picture features."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from image_files import quarters, scene
from sgmft.data.posts import Post
from sgmft.data.preprocessing.text import CLEANINGS, split_words
from sgmft.features.encode import encode_all
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.encoders.text_encoders import HASH_WIDTH, hash_word
from sgmft.features.store import FeatureStore

TEXTS = ["今天在家里看电视，真舒服", "Working late in the OFFICE tonight", "哈哈😂", "好"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("cnn")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([np.asarray(make((260, 260))) for make in (scene, quarters)])


def digest(word: str) -> list[int]:
    return list(bytes.fromhex(hashlib.sha256(word.encode()).hexdigest()[:6]))


def test_a_token_is_a_words_digest(encoder) -> None:
    found = encoder.encode_texts(TEXTS, tokens=True)
    for text, pooled, tokens in zip(TEXTS, found.pooled, found.tokens, strict=True):
        segmented = split_words(text, CLEANINGS["light"])
        assert len(segmented) > 0 and tokens.dtype == np.float32
        assert tokens.tolist() == [digest(word.lower()) for word in segmented]
        assert pooled.tolist() == tokens[0].tolist()
    assert found.pooled.dtype == np.float32


def test_known_numbers_do_not_drift(encoder) -> None:
    """Saved models hold these: another number for a word makes it unknown to all of them."""
    (tokens,) = encoder.encode_texts(["hello"], tokens=True).tokens
    assert tokens.tolist() == [[0x2C, 0xF2, 0x4D]]  # SHA-256 of "hello", as published everywhere


def test_case_does_not_matter(encoder) -> None:
    one, other = encoder.encode_texts(["At HOME in the Straße", "at home in the STRASSE"], True)[1]
    assert one.tolist() == other.tolist()


@given(st.text(min_size=1))
def test_any_word_has_a_number_that_float16_keeps(word: str) -> None:
    number = hash_word(word)
    assert len(number) == HASH_WIDTH and number == hash_word(word)
    stored = np.frombuffer(number, np.uint8).astype(np.float16)
    assert bytes(stored.astype(np.uint8)) == number


def test_words_are_bounded_and_never_none() -> None:
    assert len(load_encoder("cnn").encode_texts(["word " * 100], True).tokens[0]) == 64
    few = load_encoder("cnn", max_words=3, cleaning="paper")
    tokens = few.encode_texts(["今天在家里看电视，真舒服，明天去学校上课", "的"], True).tokens
    assert tokens[0].shape == (3, 3)
    assert tokens[1].tolist() == [digest("的")], "a text of stop words is itself one token"


def test_without_tokens_there_are_none(encoder, pictures) -> None:
    texts, images = encoder.encode_texts(TEXTS, False), encoder.encode_images(pictures, False)
    assert texts.tokens is None and images.tokens is None
    assert np.array_equal(texts.pooled, encoder.encode_texts(TEXTS, True).pooled)
    assert np.array_equal(images.pooled, encoder.encode_images(pictures, True).pooled)


@pytest.mark.parametrize("settings", [{}, {"patch_grid": 2}])
def test_picture_features_are_those_of_compact(pictures, settings: dict[str, Any]) -> None:
    ours = load_encoder("cnn", **settings).encode_images(pictures, True)
    compact = load_encoder("compact", **settings)
    theirs = compact.encode_images(pictures, True)
    assert load_encoder("cnn", **settings).info.image_key == compact.info.image_key
    assert np.array_equal(ours.pooled, theirs.pooled)
    assert np.array_equal(np.stack(ours.tokens), np.stack(theirs.tokens))


def test_the_store_keeps_every_number(encoder, tmp_path: Path) -> None:
    Image.new("RGB", (32, 24), "red").save(tmp_path / "red.png")
    posts = [
        Post(TEXTS[0], [tmp_path / "red.png"]),
        Post(TEXTS[1]),
        Post("", [tmp_path / "red.png"]),
    ]
    store = FeatureStore(tmp_path / "store", encoder.info, tokens=True)
    new = encode_all(posts, encoder, tokens=True, store=store).features
    kept = FeatureStore(tmp_path / "store", encoder.info, tokens=True)
    again = encode_all(posts, encoder, tokens=True, store=kept).features
    expected = np.concatenate(encoder.encode_texts(TEXTS[:2], True).tokens)
    for features in (new, again):
        assert features.has_text.tolist() == [True, True, False]
        assert features.words.values.tolist() == expected.tolist()
