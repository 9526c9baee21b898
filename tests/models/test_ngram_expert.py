"""The expert of n-grams: tf-idf as scikit-learn has it, and which n-grams count."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from regression_data import K, grams, scikit, vectorizer
from regression_data import tight as tight

from sgmft.data.preprocessing.ngrams import BUCKETS
from sgmft.models.experts import NgramExpert


def fitted(x, labels):
    made = NgramExpert(0, K)
    made.fit(x, labels, torch.arange(len(x)) % 5)
    return made


def test_every_penalty_is_scikit_learns_on_tf_idf(tight):
    x, labels = grams()
    new, _ = grams(seed=1, longest=30)
    made, cut = NgramExpert(0, K), vectorizer()
    matrix = cut.fit_transform(x.numpy())
    answers = []
    with torch.no_grad():
        path = zip(made.path(x, labels), (1e-3, 3e-4, 1e-4, 3e-5, 1e-5), strict=True)
        for _, penalty in path:
            expected = scikit(matrix, labels, penalty).predict_proba(cut.transform(new.numpy()))
            np.testing.assert_allclose(made(new).exp().numpy(), expected, atol=0.01)
            answers.append(expected)
    assert all(np.abs(a - b).max() > 0.03 for a, b in pairwise(answers))  # or any would do
    assert made.vocabulary.tolist() == sorted(cut.vocabulary_)
    assert made.vocabulary.dtype == torch.int32
    assert BUCKETS - 1 in made.vocabulary and 0 in made.vocabulary  # both ends


def test_n_grams_that_are_not_known_say_nothing():
    x, labels = grams()
    made = fitted(x, labels)
    strange = torch.tensor([[61, 5000, BUCKETS - 2]]).expand(60, -1).int()
    torch.testing.assert_close(made(torch.cat([x, strange], 1)), made(x))


def test_a_text_without_n_grams_gets_the_intercepts():
    x, labels = grams()
    made = fitted(x, labels)
    none, strange = torch.full((2, 4), -1).int(), torch.full((2, 4), 999).int()
    expected = made.bias.log_softmax(-1).expand(2, -1)
    torch.testing.assert_close(made(none), expected)
    torch.testing.assert_close(made(strange), expected)
    assert made(none[:0]).shape == (0, K)


def test_neither_padding_nor_order_nor_other_posts_matter():
    x, labels = grams()
    made = fitted(x, labels)
    said = made(x).detach()
    wider = torch.cat([torch.full((60, 3), -1).int(), x.flip(1), torch.full((60, 2), -1).int()], 1)
    torch.testing.assert_close(made(wider).detach(), said)
    alone = torch.cat([made(row[None, row >= 0]) for row in x])
    torch.testing.assert_close(alone.detach(), said)
    again = fitted(wider, labels)
    assert torch.equal(again.vocabulary, made.vocabulary) and torch.equal(again.idf, made.idf)


def test_an_n_gram_of_one_post_does_not_count_however_often_it_stands_there():
    x = torch.tensor([[1, 9, 9], [1, 2, -1], [2, 1, 3], [3, -1, -1]]).int()
    made = NgramExpert(0, K)
    made.fit(x, torch.tensor([0, 1, 0, 1]), torch.zeros(4))
    assert made.vocabulary.tolist() == [1, 2, 3]
    expected = [1 + math.log(5 / (1 + n)) for n in (3, 2, 2)]
    torch.testing.assert_close(made.idf, torch.tensor(expected))


@pytest.mark.parametrize("size", [1, 5])
def test_of_too_many_n_grams_the_most_frequent_are_kept(size, monkeypatch):
    monkeypatch.setattr("sgmft.models.experts.MAX_VOCABULARY", size)
    x, labels = grams()
    made = fitted(x, labels)
    posts = {g: sum(g in row for row in x.tolist()) for g in {*x.flatten().tolist()} - {-1}}
    kept = sorted(sorted(posts, key=lambda g: (-posts[g], g))[:size])  # on a tie the smaller
    assert made.vocabulary.tolist() == kept
    assert made.weight.shape == (K, size) and made.idf.shape == (size,)
    assert made(x).isfinite().all()


def test_without_any_shared_n_gram_the_class_frequencies_are_left():
    x, labels = torch.arange(20).int()[:, None], torch.tensor([0, 1, 2, 2] * 5)
    made = NgramExpert(0, K)
    said = made.fit(x, labels, torch.arange(20) // 4)
    assert not len(made.vocabulary)
    expected = torch.tensor([0.25, 0.25, 0.5]).expand(20, -1)
    torch.testing.assert_close(said.exp(), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(made(x).exp().detach(), expected, atol=1e-3, rtol=0)
