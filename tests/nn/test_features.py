import numpy as np
import pytest
import torch

from sgmft.features import Features, PostFeatures, Ragged
from sgmft.nn import SGMFT, ModelConfig

DT, DV, REGIONS = 4, 3, 2
random = np.random.default_rng(0)


def pooled(*shape):
    return random.normal(size=shape).astype(np.float32)


def tokens(n, width):
    return random.normal(size=(n, width)).astype(np.float16)


def make(words, pictures):
    """A post of so many words and pictures; None is no text, no picture."""
    return PostFeatures(
        text=None if words is None else pooled(DT),
        words=None if words is None else tokens(words, DT),
        images=None if pictures is None else pooled(pictures, DV),
        regions=None if pictures is None else tokens(pictures * REGIONS, DV),
    )


@pytest.fixture(scope="module")
def posts():
    return [make(3, 1), make(None, 3), make(5, None), make(None, None), make(0, 2)]


def test_padding_takes_sequences_apart_and_fills_with_zeros(posts):
    ragged = Ragged.of([p.words for p in posts], DT)
    values, mask = ragged.pad(torch.tensor([2, 0, 3, 0]))
    assert values.shape == (4, 5, DT) and values.dtype == torch.float32
    assert mask.sum(1).tolist() == [5, 3, 0, 3] and mask[1, :3].all()
    assert np.array_equal(values[0], posts[2].words.astype(np.float32))
    for row in (1, 3):
        assert np.array_equal(values[row, :3], posts[0].words.astype(np.float32))
    assert (values[~mask] == 0).all()


def test_padding_is_as_short_as_the_chosen_sequences_allow(posts):
    ragged = Ragged.of([p.words for p in posts], DT)
    assert ragged.pad(torch.tensor([0]))[0].shape == (1, 3, DT)
    values, mask = ragged.pad(torch.tensor([1, 3, 4]))  # nothing in any of them
    assert values.shape == (3, 1, DT) and not mask.any()
    values, mask = ragged.pad(torch.tensor([], dtype=torch.long))
    assert values.shape == (0, 1, DT) and mask.shape == (0, 1)


def test_sequences_that_are_all_missing():
    values, mask = Ragged.of([None, None], DT).pad(torch.tensor([0, 1]))
    assert values.shape == (2, 1, DT) and values.dtype == torch.float32 and not mask.any()


def test_pooled_features_and_what_is_missing(posts):
    features = Features.of(posts, DT, DV, tokens=True)
    assert len(features) == 5
    assert features.has_text.tolist() == [True, False, True, False, True]
    assert features.has_image.tolist() == [True, True, False, False, True]
    assert (features.text[~features.has_text] == 0).all()
    assert (features.image[~features.has_image] == 0).all()
    assert np.array_equal(features.text[2], posts[2].text)
    np.testing.assert_allclose(features.image[1], sum(posts[1].images) / 3, rtol=1e-6)
    assert features.text.dtype == features.image.dtype == torch.float32


def test_a_batch_is_the_posts_asked_for_in_their_order(posts):
    features = Features.of(posts, DT, DV, tokens=True)
    batch = features.batch(torch.tensor([1, 0, 2]))
    assert torch.equal(batch.text, features.text[[1, 0, 2]])
    assert torch.equal(batch.image, features.image[[1, 0, 2]])
    assert batch.has_text.tolist() == [False, True, True]
    assert batch.has_image.tolist() == [True, True, False]
    assert batch.text_mask.sum(1).tolist() == [0, 3, 5]
    assert batch.image_mask.sum(1).tolist() == [6, 2, 0]
    assert np.array_equal(batch.image_tokens[0], posts[1].regions.astype(np.float32))
    assert np.array_equal(batch.text_tokens[2], posts[2].words.astype(np.float32))


def test_regions_know_their_picture(posts):
    features = Features.of(posts, DT, DV, tokens=True)
    assert features.regions_per_picture == REGIONS
    batch = features.batch(torch.tensor([0, 1]))
    assert batch.image_index.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert batch.image_index[0][batch.image_mask[0]].tolist() == [0, 0]


def test_without_tokens_a_batch_holds_pooled_features_only(posts):
    batch = Features.of(posts, DT, DV, tokens=False).batch(torch.tensor([0, 1]))
    assert batch.text.shape == (2, DT)
    assert batch[4:] == (None,) * 5
    assert batch.to(torch.device("cpu"))[4:] == (None,) * 5
    pooled_only = [p._replace(words=None, regions=None) for p in posts]
    assert torch.equal(
        Features.of(pooled_only, DT, DV, tokens=False).image,
        Features.of(posts, DT, DV, tokens=True).image,
    )


def test_no_posts_at_all():
    features = Features.of([], DT, DV, tokens=True)
    assert len(features) == 0
    assert features.batch(torch.tensor([], dtype=torch.long)).text.shape == (0, DT)


def test_posts_without_any_picture():
    features = Features.of([make(2, None), make(1, None)], DT, DV, tokens=True)
    batch = features.batch(torch.tensor([0, 1]))
    assert batch.image_tokens.shape == (2, 1, DV) and not batch.image_mask.any()
    assert not batch.has_image.any() and batch.image_index.tolist() == [[0], [0]]


def test_moving_a_batch_keeps_every_field(posts):
    batch = Features.of(posts, DT, DV, tokens=True).batch(torch.tensor([0, 4]))
    for before, after in zip(batch, batch.to(torch.device("cpu")), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_a_model_runs_on_every_batch(posts, view):
    """A post's logits do not depend on the batch it was cut with."""
    torch.manual_seed(0)
    features = Features.of(posts, DT, DV, tokens=view == "tokens")
    model = SGMFT(ModelConfig(3, DT, DV, width=16, heads=2, view=view)).eval()
    with torch.no_grad():
        together = model(features.batch(torch.arange(5))).logits
        for i in range(5):
            alone = model(features.batch(torch.tensor([i]))).logits
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)
    assert together.isfinite().all()
    assert len({tuple(row) for row in together.tolist()}) == 5
