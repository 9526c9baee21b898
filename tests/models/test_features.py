from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from sgmft.features.encoders.base import EncoderInfo, PostFeatures
from sgmft.features.features import Features
from sgmft.features.ragged import Ragged

DT, DW, DV, REGIONS = 4, 5, 3, 2
INFO = EncoderInfo("x", "0" * 16, DT, DV, False, None, 8, "light", word_width=DW)
NO_WORDS = np.zeros((0, DW), np.float16)
random = np.random.default_rng(0)


def pooled(*shape):
    return random.normal(size=shape).astype(np.float32)


def tokens(n, width):
    return random.normal(size=(n, width)).astype(np.float16)


def make(words, pictures):
    """A post of so many words and pictures; None is no text, no picture."""
    return PostFeatures(
        text=None if words is None else pooled(DT),
        words=None if words is None else tokens(words, DW),
        images=None if pictures is None else pooled(pictures, DV),
        regions=None if pictures is None else tokens(pictures * REGIONS, DV),
        ngrams=None if words is None else random.integers(0, 2**24, 2 * words, np.int32),
    )


@pytest.fixture(scope="module")
def posts():
    return [make(3, 1), make(None, 3), make(5, None), make(None, None), make(0, 2)]


def test_padding_takes_sequences_apart_and_fills_with_zeros(posts):
    ragged = Ragged.of([p.words for p in posts], NO_WORDS)
    values, mask = ragged.pad(np.array([2, 0, 3, 0]))
    assert values.shape == (4, 5, DW) and values.dtype == np.float16
    assert mask.sum(1).tolist() == [5, 3, 0, 3] and mask[1, :3].all()
    for row, post in ((0, 2), (1, 0), (3, 0)):
        assert np.array_equal(values[row][mask[row]], posts[post].words)
    assert (values[~mask] == 0).all()


@pytest.mark.parametrize(
    ("chosen", "shape"), [([0], (1, 3)), ([1, 3, 4], (3, 1)), ([], (0, 1))], ids=str
)
def test_padding_is_as_short_as_the_chosen_sequences_allow(posts, chosen, shape):
    rows = np.array(chosen, np.int64)
    for sequences in ([p.words for p in posts], [None] * 5):  # or none has a sequence
        values, mask = Ragged.of(sequences, NO_WORDS).pad(rows)
        expected = shape if sequences[0] is not None else (len(chosen), 1)
        assert values.shape == (*expected, DW) and mask.shape == expected
        assert values.dtype == np.float16 and mask.any() == (expected == (1, 3))


def test_pooled_features_and_what_is_missing(posts):
    features = Features.of(posts, INFO, tokens=True)
    assert len(features) == 5
    assert features.has_text.tolist() == [True, False, True, False, True]
    assert features.has_image.tolist() == [True, True, False, False, True]
    assert (features.text[~features.has_text] == 0).all()
    assert (features.image[~features.has_image] == 0).all()
    assert np.array_equal(features.text[2], posts[2].text)
    np.testing.assert_allclose(features.image[1], sum(posts[1].images) / 3, rtol=1e-6)
    assert features.text.dtype == features.image.dtype == np.float32


def test_a_batch_is_the_posts_asked_for_in_their_order(posts):
    features = Features.of(posts, INFO, tokens=True)
    batch = features.batch(np.array([1, 0, 2]))
    assert np.array_equal(batch.text, features.text[[1, 0, 2]])
    assert np.array_equal(batch.image, features.image[[1, 0, 2]])
    assert batch.has_text.tolist() == [False, True, True]
    assert batch.has_image.tolist() == [True, True, False]
    assert batch.text_mask.sum(1).tolist() == [0, 3, 5]
    assert batch.image_mask.sum(1).tolist() == [6, 2, 0]
    assert np.array_equal(batch.image_tokens[0], posts[1].regions.astype(np.float32))
    assert np.array_equal(batch.text_tokens[2], posts[2].words.astype(np.float32))
    assert batch.text_tokens.dtype == batch.image_tokens.dtype == np.float32
    assert batch.ngrams is None, "nobody asked for them"


def test_regions_know_their_picture(posts):
    features = Features.of(posts, INFO, tokens=True)
    assert features.regions_per_image == REGIONS
    batch = features.batch(np.array([0, 1]))
    assert batch.image_index.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert batch.image_index[0][batch.image_mask[0]].tolist() == [0, 0]


def test_without_tokens_a_batch_holds_pooled_features_only(posts):
    batch = Features.of(posts, INFO, tokens=False).batch(np.array([0, 1]))
    assert batch.text.shape == (2, DT)
    assert batch[4:] == batch.to("cpu")[4:] == (None,) * 8
    bare = Features.of([p._replace(words=None, regions=None) for p in posts], INFO, tokens=False)
    assert np.array_equal(bare.image, Features.of(posts, INFO, tokens=True).image)


@pytest.mark.parametrize("with_tokens", [True, False])
def test_n_grams_on_request(posts, with_tokens):
    features = Features.of(posts, INFO, tokens=with_tokens)
    plain, batch = (features.batch(np.array([2, 0, 3, 1, 0]), ngrams=n) for n in (False, True))
    assert batch.ngrams.shape == (5, 10) and batch.ngrams.dtype == np.int32
    for found, i in zip(batch.ngrams.tolist(), (2, 0, 3, 1, 0), strict=True):
        wanted = [] if posts[i].ngrams is None else posts[i].ngrams.tolist()
        assert found == wanted + [-1] * (10 - len(wanted))
    assert plain.ngrams is None
    for a, b in zip(plain, batch._replace(ngrams=None), strict=True):
        assert a is b is None or np.array_equal(a, b)


def test_chosen_posts_and_their_n_grams(posts):
    rows = np.array([4, 2, 1, 2])
    features = Features.of(posts, INFO, tokens=False)
    taken = features.take(rows)
    for found, side in zip(taken.pooled(), (features.text, features.image), strict=True):
        assert np.array_equal(found, side[rows])
    assert taken.ngrams.length.tolist() == [0, 10, 0, 10]
    assert taken.ngrams.rows(0, 20).tolist() == posts[2].ngrams.tolist() * 2
    batch = taken.batch(np.array([0, 2]), ngrams=True)
    assert batch.ngrams.tolist() == [[-1], [-1]], "a padded batch is at least one wide"


def test_features_made_by_hand_may_be_without_n_grams(posts):
    features = replace(Features.of(posts, INFO, tokens=True), ngrams=None)
    assert features.take(np.array([2, 0])).ngrams is None
    assert features.batch(np.array([2, 0]), ngrams=True).ngrams is None


@given(
    st.lists(st.none() | st.lists(st.integers(0, 2**24 - 1), max_size=6), max_size=8),
    st.data(),
)
def test_any_n_grams_stacked_chosen_and_padded(grams, data):
    made = [
        make(None, 1) if g is None else make(1, None)._replace(ngrams=np.array(g, np.int32))
        for g in grams
    ]
    places = st.lists(st.integers(0, len(made) - 1), max_size=8) if made else st.just([])
    chosen, rows = data.draw(places), data.draw(places)
    rows = [i for i in rows if i < len(chosen)]
    features = Features.of(made, INFO, tokens=False).take(np.array(chosen, np.int64))
    batch = features.batch(np.array(rows, np.int64), ngrams=True)
    wanted = [grams[chosen[i]] or [] for i in rows]
    longest = max([1, *map(len, wanted)])
    assert batch.ngrams.shape == (len(rows), longest) and batch.ngrams.dtype == np.int32
    assert batch.ngrams.tolist() == [g + [-1] * (longest - len(g)) for g in wanted]


def test_no_posts_at_all_and_posts_without_any_image():
    batch = Features.of([], INFO, tokens=True).batch(np.array([], np.int64), ngrams=True)
    assert batch.text.shape == (0, DT) and batch.ngrams.shape == (0, 1)
    features = Features.of([make(2, None), make(1, None)], INFO, tokens=True)
    batch = features.batch(np.array([0, 1]))
    assert batch.image_tokens.shape == (2, 1, DV) and not batch.image_mask.any()
    assert not batch.has_image.any() and batch.image_index.tolist() == [[0], [0]]


def test_moving_a_batch_keeps_every_field(posts):
    rows = [post._replace(joint=pooled(2)) for post in posts]
    features = Features.of(rows, replace(INFO, joint_width=2), tokens=True)
    attributes = np.arange(3.0 * len(rows), dtype=np.float32).reshape(-1, 3)
    features = replace(features, attributes=attributes)
    batch = features.batch(np.array([0, 4]), ngrams=True)
    moved = batch.to("cpu")
    for name in {*batch._fields} - {"ngrams"}:
        assert torch.equal(torch.from_numpy(getattr(batch, name)), getattr(moved, name))
    assert moved.ngrams is batch.ngrams, "they stay an array"
