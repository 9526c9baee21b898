"""The default network where something is missing: it is not read, and the rest is learned from."""

import pytest
import torch
from gated_experts_posts import DT, DV, K, logits, made, only, probabilities, rows, solved
from gated_experts_posts import _fewer_penalties as _fewer_penalties
from gated_experts_posts import network as network
from torch.nn.functional import cross_entropy

from sgmft.features.batch import Batch
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig

# --- what is not read


@pytest.mark.parametrize(
    ("settings", "value"), [({}, 1e6), ({}, torch.nan), ({"joint": False}, torch.nan)], ids=str
)
def test_what_stands_in_for_a_missing_side_is_never_read(settings, value):
    batch, labels = made()
    dirty = batch._replace(text=batch.text.clone(), image=batch.image.clone())
    dirty.text[~dirty.has_text] = value
    dirty.image[~dirty.has_image] = value
    dirty = dirty._replace(
        ngrams=torch.where(dirty.has_text[:, None], dirty.ngrams, 100 + labels[:, None].int())
    )
    expected, network = (solved(b, labels, **settings) for b in (batch, dirty))
    for name, x in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], x), name
    clean, other = expected(batch), network(dirty)
    assert torch.equal(other.logits, clean.logits)
    assert torch.equal(other.fused, clean.fused)
    assert torch.equal(other.parts["gate"], clean.parts["gate"])
    assert other.logits.isfinite().all() and other.guidance.gate.isfinite().all()


def test_a_post_without_sides_gets_the_class_frequencies(network):
    batch, labels = made()
    expected = (torch.bincount(labels) / 120).expand(120, -1)
    torch.testing.assert_close(probabilities(network, only(batch, False, False)), expected)


def test_a_post_with_one_side_is_told_apart_by_that_side_alone(network):
    new, _ = made(60, seed=1, missing=False)
    strange = new._replace(text=new.text.flip(0), ngrams=new.ngrams.flip(0))
    same = (logits(network, only(b, False, True)) for b in (new, strange))
    torch.testing.assert_close(*same)
    strange = new._replace(image=new.image.flip(0))
    same = (logits(network, only(b, True, False)) for b in (new, strange))
    torch.testing.assert_close(*same)
    assert not torch.allclose(logits(network, new), logits(network, strange), atol=0.1)


def test_neither_padding_nor_other_posts_matter(network):
    new, _ = made(30, seed=1)
    expected = logits(network, new)
    fill = torch.full((30, 7), -1).int()
    padded = new._replace(ngrams=torch.cat([fill, new.ngrams, fill], 1))
    torch.testing.assert_close(logits(network, padded), expected)
    alone = torch.cat([logits(network, rows(new, slice(i, i + 1))) for i in range(30)])
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_no_posts_at_all_are_answered_too(network):
    assert logits(network, rows(made()[0], slice(0, 0))).shape == (0, K)


# --- training posts that lack something


@pytest.mark.parametrize("settings", [{}, {"joint": False}], ids=str)
def test_training_posts_without_pictures(settings):
    batch, labels = made(image=False)
    network = solved(batch, labels, **settings)
    right = logits(network, batch).argmax(-1) == labels
    assert right[batch.has_text].float().mean() > 0.6
    new, _ = made(60, seed=1, missing=False)  # with pictures, of which nothing is known
    text = probabilities(network, only(new, True, False))
    torch.testing.assert_close(probabilities(network, new), text)
    pictures = probabilities(network, only(new, False, True))
    torch.testing.assert_close(pictures, pictures[:1].expand(60, -1))


@pytest.mark.parametrize("settings", [{}, {"joint": False}], ids=str)
def test_training_posts_without_texts(settings):
    batch, labels = made(text=False)
    network = solved(batch, labels, **settings)
    assert network.config.vocabulary_size == 0
    right = logits(network, batch).argmax(-1) == labels
    assert right[batch.has_image].float().mean() > 0.6
    new, _ = made(60, seed=1, missing=False)
    image = probabilities(network, only(new, False, True))
    torch.testing.assert_close(probabilities(network, new), image)
    texts = probabilities(network, only(new, True, False))
    torch.testing.assert_close(texts, texts[:1].expand(60, -1))


def test_training_posts_with_either_a_text_or_a_picture():
    batch, labels = made(missing=False)
    batch.has_text[::2] = False
    batch.has_image[1::2] = False
    network = solved(batch, labels)
    new, truth = made(100, seed=1, missing=False)
    loss = cross_entropy(logits(network, new), truth)
    assert all(
        loss < cross_entropy(logits(network, only(new, *one)), truth)
        for one in ((True, False), (False, True))
    )


@pytest.mark.parametrize("lexical", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_of_a_post_or_two_everything_stays_finite(count, lexical):
    batch, _ = made(count, missing=False)
    batch = batch._replace(ngrams=torch.tensor([[1, 2]]).expand(count, -1).int())
    network = solved(batch, torch.arange(count) % K, lexical=lexical)
    new, _ = made(30, seed=1)
    assert logits(network, new).isfinite().all()


@pytest.mark.parametrize("each", [1, 2, 5])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_few_posts_of_each_class_teach_what_is_plain(each, classes):
    rng = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(classes, DT + DV, generator=rng)

    def plain(count):
        labels = torch.arange(classes).repeat(count)
        x = centres[labels] + 0.5 * torch.randn(len(labels), DT + DV, generator=rng)
        there = torch.ones(len(labels), dtype=torch.bool)
        words = torch.stack([100 + labels, 100 + labels, 0 * labels], 1).int()
        return Batch(x[:, :DT], x[:, DT:], there, there, ngrams=words), labels

    network, (new, truth) = solved(*plain(each)), plain(20)
    for sides in ((True, True), (True, False), (False, True)):
        assert (logits(network, only(new, *sides)).argmax(-1) == truth).float().mean() > 0.9


def test_a_class_without_training_posts_is_not_predicted():
    batch, labels = made()
    seen = labels != 1
    network = solved(rows(batch, seen), labels[seen])
    assert probabilities(network, batch)[:, 1].max() < 0.05


def test_training_posts_of_one_class_only():
    batch, labels = made()
    network = solved(batch, torch.full_like(labels, 1))
    assert (probabilities(network, batch)[:, 1] > 0.99).all()


def test_a_class_that_only_one_fold_has():
    batch, labels = made(60)
    labels[labels == 2] = 0
    labels[5] = 2
    torch.manual_seed(0)
    network = GatedExperts(GatedExpertsConfig(K, DT, DV))
    held_out = network.solve(batch, labels)
    assert held_out.isfinite().all() and logits(network, batch).isfinite().all()
    right = held_out.argmax(-1) == labels
    assert right[torch.arange(60) != 5].float().mean() > 0.6


def test_texts_that_share_no_n_gram():
    batch, labels = made(30, missing=False)
    batch = batch._replace(ngrams=torch.arange(30).int()[:, None])
    network = solved(batch, labels)
    assert network.config.vocabulary_size == 0
    assert (logits(network, batch).argmax(-1) == labels).float().mean() > 0.6
