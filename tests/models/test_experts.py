"""Experts and the choice of their penalty by folds, against scikit-learn and plain loops."""

import numpy as np
import pytest
import torch
from regression_data import D, K, dense, grams, scikit, vectorizer
from regression_data import tight as tight

from sgmft.models.experts import DenseExpert, NgramExpert, draw_folds

# --- folds


@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize("counts", [[7, 1, 13, 4], [1, 1], [3], [50, 49]])
def test_folds_have_equal_shares_of_each_class(counts, folds):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    fold = draw_folds(labels, folds)
    for members in (fold, *(fold[labels == k] for k in range(len(counts)))):
        sizes = torch.bincount(members, minlength=folds)
        assert len(sizes) == folds and sizes.max() - sizes.min() <= 1


def test_folds_are_drawn_by_torchs_seed():
    labels = torch.arange(40) % 3

    def drawn(seed):
        torch.manual_seed(seed)
        return draw_folds(labels, 5)

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_what_is_constant_in_a_folds_posts_says_nothing_of_those_left_out(tight):
    """As empty regions of few pictures are; in float32, whose rounding differs between posts."""
    x, labels = dense(45, seed=5)
    fold = torch.arange(45) % 4
    odd = torch.full((45, 60), 0.1)
    odd[0] = torch.linspace(1, 9, 60)  # other folds may learn from it, its own cannot
    made = DenseExpert(D, K), DenseExpert(D + 60, K)
    for one in made:
        one.penalties = (0.1,)
    alone, beside = (
        one.fit(rows.float(), labels, fold)
        for one, rows in zip(made, (x, torch.cat([x, odd], 1)), strict=True)
    )
    out = fold == 0
    torch.testing.assert_close(beside[out], alone[out], atol=1e-3, rtol=0)


# --- the choice of a penalty


def dense_reference(x, labels, penalty):
    """What says log p of posts, from scikit-learn fitted to these."""
    mean, deviation = x.numpy().mean(0), x.numpy().std(0, ddof=1)
    model = scikit((x.numpy() - mean) / deviation, labels, penalty)
    return lambda new: model.predict_log_proba((new.numpy() - mean) / deviation)


def lexical_reference(x, labels, penalty):
    cut = vectorizer()
    model = scikit(cut.fit_transform(x.numpy()), labels, penalty)
    return lambda new: model.predict_log_proba(cut.transform(new.numpy()))


KINDS = {
    "dense": (DenseExpert, dense, dense_reference, (10.0, 1.0, 0.1, 0.01)),
    "lexical": (NgramExpert, grams, lexical_reference, (0.1, 0.03, 0.01, 1e-3)),
}


def expert(name, monkeypatch, penalties=None):
    kind, data, reference, usual = KINDS[name]
    monkeypatch.setattr(kind, "penalties", penalties or usual)
    return kind(D if name == "dense" else 0, K).double(), data, reference


@pytest.mark.parametrize("name", KINDS)
def test_the_penalty_with_the_least_held_out_loss_is_chosen(name, monkeypatch, tight):
    chosen = set()
    for strength in (0.15, 0.4, 1.0):
        made, data, reference = expert(name, monkeypatch)
        x, labels = data(45, seed=3, **{"slope" if name == "dense" else "clear": strength})
        fold = torch.arange(45) % 4
        said = made.fit(x, labels, fold).double().numpy()
        held_out, losses = {}, {}
        for penalty in made.penalties:
            rows = np.zeros((45, K))
            for f in range(4):
                without = reference(x[fold != f], labels[fold != f], penalty)
                rows[fold.numpy() == f] = without(x[fold == f])
            held_out[penalty] = rows
            losses[penalty] = -sum(rows[i, labels[i]] for i in range(45)) / 45
        best = min(losses, key=losses.get)
        np.testing.assert_allclose(np.exp(said), np.exp(held_out[best]), atol=1e-3)
        new, _ = data(20, seed=8)
        answers = np.exp(reference(x, labels, best)(new))
        np.testing.assert_allclose(made(new).exp().detach().numpy(), answers, atol=1e-3)
        chosen.add(best)
    assert len(chosen) > 1  # or any choice would have done


@pytest.mark.parametrize("name", KINDS)
def test_a_held_out_answer_knows_nothing_of_its_own_fold(name, monkeypatch, tight):
    made, data, _ = expert(name, monkeypatch, (0.05,))
    (x, labels), fold = data(), torch.arange(60) % 5
    said = made.fit(x, labels, fold)
    inside = fold == 2
    others = labels.clone()
    others[inside] = (labels[inside] + 1) % K  # its own label, and its neighbours'
    changed = x.clone()
    changed[inside] = x[inside].flip(0)  # twelve posts, so none stays where it was
    told = made.fit(changed, others, fold)
    torch.testing.assert_close(told[inside].flip(0), said[inside], atol=1e-4, rtol=0)
    assert not torch.isclose(told[~inside], said[~inside]).all(1).any()


@pytest.mark.parametrize("name", KINDS)
def test_posts_of_one_fold_take_the_strongest_penalty(name, monkeypatch, tight):
    made, data, reference = expert(name, monkeypatch)
    x, labels = data()
    said = made.fit(x, labels, torch.full((60,), 3))
    expected = np.exp(reference(x, labels, made.penalties[0])(x))
    np.testing.assert_allclose(said.exp().numpy(), expected, atol=1e-4)
    torch.testing.assert_close(made(x).detach(), said)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_said_are_logarithms_of_probabilities(name, monkeypatch):
    made, data, _ = expert(name, monkeypatch)
    x, labels = data()
    said = made.fit(x, labels, draw_folds(labels, 5))
    for rows in (said, made(x)):
        assert rows.shape == (60, K)
        assert ((rows.exp().sum(-1) - 1).abs() < 1e-3).all()  # evidence is not below 1e-4


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_a_post_or_two_everything_stays_finite(name, count, monkeypatch):
    made, data, _ = expert(name, monkeypatch)
    (x, _), labels = data(), torch.arange(count)
    x = torch.cat([x[:count], x[:count]])  # n-grams of one post alone do not count
    labels = torch.cat([labels, labels])
    assert made.fit(x, labels, torch.arange(2 * count)).isfinite().all()
    assert made.fit(x[:1], labels[:1], torch.zeros(1)).isfinite().all()
    assert made(x).isfinite().all()


def test_the_order_of_the_posts_does_not_matter(tight):
    for made, (x, labels) in (
        (DenseExpert(D, K).double(), dense()),
        (NgramExpert(0, K), grams()),
    ):
        fold = draw_folds(labels, 5)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
        made.penalties = (0.1,)
        said = made.fit(x, labels, fold)
        again = made.fit(x[order], labels[order], fold[order])
        torch.testing.assert_close(again, said[order], atol=1e-3, rtol=0)
