"""Logistic regressions and the choice of their penalty, against scikit-learn and plain loops."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sgmft.lexical import BUCKETS
from sgmft.nn.experts import DenseExpert, LexicalExpert, draw_folds
from sgmft.nn.logistic import ABSENT, log_frequencies, logistic_path

K, D = 3, 6
PENALTIES = (3.0, 0.3, 0.03)


@pytest.fixture
def tight(monkeypatch):
    """The search goes on to the very end, so that numbers can be compared closely."""
    monkeypatch.setattr("sgmft.nn.logistic.TOLERANCE", 1e-8)
    monkeypatch.setattr("sgmft.nn.logistic.MAX_ITERATIONS", 20_000)


def dense(n=60, classes=K, seed=0, slope=1.0, width=D):
    """Features (n, width) that say a little of the labels (n,), float64."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=dice)
    labels[:classes] = torch.arange(classes)
    centres = torch.randn(classes, width, generator=dice, dtype=torch.float64)
    noise = torch.randn(n, width, generator=dice, dtype=torch.float64)
    return 3 * (slope * centres[labels] + noise) + 2, labels


def scikit(x, labels, penalty):
    """Its own solution of: mean cross-entropy + penalty |w|^2 / 2, from a start at zero."""
    model = LogisticRegression(C=1 / (len(labels) * penalty), tol=1e-8, max_iter=20_000)
    return model.fit(x, labels.numpy())


def probabilities(solution, x):
    weight, bias = solution
    return (x.float() @ weight.T + bias).softmax(-1).numpy()


# --- solutions for several penalties


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_each_solution_is_scikit_learns(classes):
    x, labels = dense(classes=classes)
    solutions = list(logistic_path(x.numpy(), labels, classes, PENALTIES))
    found = [probabilities(s, x) for s in solutions]
    for p, penalty in zip(found, PENALTIES, strict=True):
        expected = scikit(x.numpy(), labels, penalty).predict_proba(x.numpy())
        np.testing.assert_allclose(p, expected, atol=0.03)
    assert np.abs(found[0] - found[1]).max() > 0.05 < np.abs(found[1] - found[2]).max()
    sizes = [float(s.weight.norm()) for s in solutions]
    assert sizes == sorted(sizes)


def test_each_solution_is_where_the_gradient_vanishes(tight):
    x, labels = dense()
    for solution, penalty in zip(
        logistic_path(x.numpy(), labels, K, PENALTIES), PENALTIES, strict=True
    ):
        weight, bias = (part.double().requires_grad_() for part in solution)
        logits = x @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(logits, labels)
        (loss + penalty * weight.square().sum() / 2).backward()
        assert weight.grad.abs().max() < 1e-5 and bias.grad.abs().max() < 1e-5


def test_starting_from_the_solution_before_changes_nothing(tight):
    x, labels = dense()
    path = list(logistic_path(x.numpy(), labels, K, PENALTIES))
    for solution, penalty in zip(path, PENALTIES, strict=True):
        (alone,) = logistic_path(x.numpy(), labels, K, [penalty])
        np.testing.assert_allclose(probabilities(solution, x), probabilities(alone, x), atol=1e-5)


def test_a_sparse_matrix_is_as_good_as_an_array(tight):
    x, labels = dense()
    x[x < 1] = 0
    both = (logistic_path(m, labels, K, PENALTIES) for m in (x.numpy(), csr_matrix(x.numpy())))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one.weight, other.weight, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.bias, other.bias, atol=1e-4, rtol=0)


@pytest.mark.parametrize("present", [[0, 2, 3], [1, 3]])
def test_a_class_without_posts_is_told_of_none_and_disturbs_no_other(present):
    x, labels = dense(classes=len(present))
    named = torch.tensor(present)[labels]
    absent = sorted({*range(5)} - {*present})
    tasks = ((named, 5), (labels, len(present)))
    paths = (logistic_path(x.numpy(), y, k, PENALTIES) for y, k in tasks)
    for wide, narrow in zip(*paths, strict=True):
        assert wide.weight.shape == (5, D) and wide.bias.shape == (5,)
        assert (wide.weight[absent] == 0).all() and (wide.bias[absent] == ABSENT).all()
        p = probabilities(wide, x)
        assert p[:, absent].max() < 1e-12
        np.testing.assert_allclose(p[:, present], probabilities(narrow, x), atol=1e-6)


def test_of_one_class_only_its_name_is_learned():
    x, labels = dense()
    solutions = list(logistic_path(x.numpy(), torch.full_like(labels, 1), K, PENALTIES))
    assert len(solutions) == len(PENALTIES)
    for solution in solutions:
        assert (solution.weight == 0).all() and solution.bias.tolist() == [ABSENT, 0.0, ABSENT]


def test_the_solver_stopping_early_warns_nobody(monkeypatch):
    monkeypatch.setattr("sgmft.nn.logistic.MAX_ITERATIONS", 1)
    x, labels = dense()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(logistic_path(x.numpy(), labels, K, PENALTIES))


def test_log_frequencies():
    found = log_frequencies(torch.tensor([2, 0, 2, 2]), 4)
    expected = [math.log(0.25), ABSENT, math.log(0.75), ABSENT]
    torch.testing.assert_close(found, torch.tensor(expected))
    none = log_frequencies(torch.zeros(0, dtype=torch.long), 4)
    assert none.isfinite().all() and (none == none[0]).all()


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


# --- the choice of a penalty


def grams(n=60, seed=0, clear=0.5, longest=9):
    """Posts of n-grams (n, g), padded with -1, and labels: some n-grams belong to a label."""
    dice = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(K), dice.integers(0, K, n - K)])
    x = np.full((n, longest + 1), -1, np.int32)
    for i, k in enumerate(labels):
        length = dice.integers(1, longest + 1)
        own = dice.random(length) < clear
        x[i, :length] = np.where(
            own, 10 * k + dice.integers(0, 4, length), dice.integers(0, 60, length)
        )
    x[x == 12] = BUCKETS - 1
    return torch.from_numpy(x), torch.from_numpy(labels)


def vectorizer():
    def tokens(row):
        return [int(a) for a in row if a >= 0]

    return TfidfVectorizer(analyzer=tokens, sublinear_tf=True, min_df=2)


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
    "lexical": (LexicalExpert, grams, lexical_reference, (0.1, 0.03, 0.01, 1e-3)),
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
def test_a_held_out_answer_knows_nothing_of_its_own_fold(name, monkeypatch):
    made, data, _ = expert(name, monkeypatch, (0.05,))
    (x, labels), fold = data(), torch.arange(60) % 5
    said = made.fit(x, labels, fold)
    inside = fold == 2
    others = labels.clone()
    others[inside] = (labels[inside] + 1) % K  # its own label, and its neighbours'
    changed = x.clone()
    changed[inside] = x[inside].flip(0)  # twelve posts, so none stays where it was
    told = made.fit(changed, others, fold)
    assert torch.equal(told[inside].flip(0), said[inside])
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
        (LexicalExpert(0, K), grams()),
    ):
        fold = draw_folds(labels, 5)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
        made.penalties = (0.1,)
        said = made.fit(x, labels, fold)
        again = made.fit(x[order], labels[order], fold[order])
        torch.testing.assert_close(again, said[order], atol=1e-3, rtol=0)


# --- n-grams


def fitted(x, labels):
    made = LexicalExpert(0, K)
    made.fit(x, labels, torch.arange(len(x)) % 5)
    return made


def test_every_penalty_is_scikit_learns_on_tf_idf(tight):
    x, labels = grams()
    new, _ = grams(seed=1, longest=30)
    made, cut = LexicalExpert(0, K), vectorizer()
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
    made = LexicalExpert(0, K)
    made.fit(x, torch.tensor([0, 1, 0, 1]), torch.zeros(4))
    assert made.vocabulary.tolist() == [1, 2, 3]
    expected = [1 + math.log(5 / (1 + n)) for n in (3, 2, 2)]
    torch.testing.assert_close(made.idf, torch.tensor(expected))


@pytest.mark.parametrize("size", [1, 5])
def test_of_too_many_n_grams_the_most_frequent_are_kept(size, monkeypatch):
    monkeypatch.setattr("sgmft.nn.experts.MAX_VOCABULARY", size)
    x, labels = grams()
    made = fitted(x, labels)
    posts = {g: sum(g in row for row in x.tolist()) for g in {*x.flatten().tolist()} - {-1}}
    kept = sorted(sorted(posts, key=lambda g: (-posts[g], g))[:size])  # on a tie the smaller
    assert made.vocabulary.tolist() == kept
    assert made.weight.shape == (K, size) and made.idf.shape == (size,)
    assert made(x).isfinite().all()


def test_without_any_shared_n_gram_the_class_frequencies_are_left():
    x, labels = torch.arange(20).int()[:, None], torch.tensor([0, 1, 2, 2] * 5)
    made = LexicalExpert(0, K)
    said = made.fit(x, labels, torch.arange(20) // 4)
    assert not len(made.vocabulary)
    expected = torch.tensor([0.25, 0.25, 0.5]).expand(20, -1)
    torch.testing.assert_close(said.exp(), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(made(x).exp().detach(), expected, atol=1e-3, rtol=0)
