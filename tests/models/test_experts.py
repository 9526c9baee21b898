"""Logistic regressions and the experts they make, against scikit-learn and plain loops."""

import math
import threading
import warnings
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import threadpoolctl
import torch
from numpy.random import RandomState
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sgmft.data.preprocessing.text import BUCKETS
from sgmft.models.experts import DenseExpert, NgramExpert, draw_folds, permutation
from sgmft.models.logistic import ABSENT, Block, Regressions, _Problem, log_frequencies

K, D = 3, 6
PENALTIES = (3.0, 0.3, 0.03)
assert_close = partial(np.testing.assert_allclose, rtol=1.3e-6, atol=1e-5)  # but for float32


@pytest.fixture
def tight(monkeypatch):
    """The search goes on to the very end, so that numbers can be compared closely."""
    monkeypatch.setattr("sgmft.models.logistic.GAP", 1e-14)


def dense(n=60, classes=K, seed=0, slope=1.0):
    """Features (n, D) that tell a little of the labels (n,), float64."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    centres, noise = rng.standard_normal((classes, D)), rng.standard_normal((n, D))
    return 3 * (slope * centres[labels] + noise) + 2, labels


def grams(n=60, seed=0, slope=0.5, longest=9):
    """Posts of n-grams (n, g), padded with -1, and labels: some n-grams belong to a label."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(K), rng.integers(0, K, n - K)])
    x = np.full((n, longest + 1), -1, np.int32)
    for i, k in enumerate(labels):
        length = rng.integers(1, longest + 1)
        own = rng.random(length) < slope
        x[i, :length] = np.where(
            own, 10 * k + rng.integers(0, 4, length), rng.integers(0, 60, length)
        )
    x[x == 12] = BUCKETS - 1
    return x, labels


def scikit(x, labels, penalty, weights=None):
    """Its own solution of: mean cross-entropy + penalty |w|^2 / 2, from a start at zero."""
    total = len(labels) if weights is None else weights.sum()
    model = LogisticRegression(C=1 / (total * penalty), tol=1e-8, max_iter=20_000)
    return model.fit(x, labels, weights)


def vectorizer():
    def tokens(row):
        return [int(a) for a in row if a >= 0]

    return TfidfVectorizer(analyzer=tokens, sublinear_tf=True, min_df=2)


# --- regressions


def path_of(x, labels, classes=K, penalties=PENALTIES, weights=None):
    """Solutions for all rows."""
    whole = Block(np.ones(len(labels), bool) if weights is None else weights)
    every = Regressions(x, labels, classes, [whole])
    return [every.solve(penalty)[0] for penalty in penalties]


def probabilities(solution, x):
    return softmax(x @ solution.weight.T + solution.bias, -1)


def in_two(x):
    """An array and a sparse matrix side by side."""
    return x[:, :2], csr_matrix(x[:, 2:])


@pytest.mark.parametrize("kind", [np.copy, csr_matrix, in_two], ids=["array", "sparse", "both"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_each_solution_is_scikit_learns_wherever_its_search_starts(classes, kind, tight):
    x, labels = dense(classes=classes)
    x[x < 1] = 0
    path = path_of(kind(x), labels, classes)
    for solution, penalty in zip(path, PENALTIES, strict=True):
        expected = scikit(x, labels, penalty).predict_proba(x)
        np.testing.assert_allclose(probabilities(solution, x), expected, atol=1e-4)
        (alone,) = path_of(x, labels, classes, [penalty])
        np.testing.assert_allclose(probabilities(alone, x), expected, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probabilities_in_float32_are_within_a_thousandth(classes):
    x, labels = dense(classes=classes)
    path = path_of(x.astype(np.float32), labels, classes)
    found = [probabilities(solution, x) for solution in path]
    for p, penalty in zip(found, PENALTIES, strict=True):
        expected = scikit(x, labels, penalty).predict_proba(x)
        np.testing.assert_allclose(p, expected, atol=1e-3)
    assert all(np.abs(a - b).max() > 0.05 for a, b in pairwise(found))
    sizes = [np.linalg.norm(solution.weight) for solution in path]
    assert sizes == sorted(sizes)


def test_more_columns_than_axes_of_the_preconditioner(monkeypatch):
    monkeypatch.setattr("sgmft.models.logistic.RANK", 4)
    x, labels = dense()
    wide = np.tanh(x @ np.random.default_rng(0).standard_normal((D, 150)))
    for solution, penalty in zip(path_of(wide, labels), PENALTIES, strict=True):
        expected = scikit(wide, labels, penalty).predict_proba(wide)
        np.testing.assert_allclose(probabilities(solution, wide), expected, atol=1e-3)


@pytest.mark.parametrize("present", [[0, 2, 3], [1, 3], [1]])
def test_a_class_without_posts_gets_no_weight_and_disturbs_no_other(present, tight):
    x, labels = dense(classes=len(present))
    absent = sorted({*range(5)} - {*present})
    wides = path_of(x, np.array(present)[labels], 5)
    for wide, narrow in zip(wides, path_of(x, labels, len(present)), strict=True):
        assert wide.weight.shape == (5, D) and wide.bias.shape == (5,)
        assert (wide.weight[absent] == 0).all() and (wide.bias[absent] == ABSENT).all()
        p = probabilities(wide, x)
        assert p[:, absent].max() < 1e-12
        np.testing.assert_allclose(p[:, present], probabilities(narrow, x), atol=1e-6)


@pytest.mark.parametrize("kind", ["all the same", "far apart", "tiny", "huge"])
def test_rows_of_any_kind_end_without_a_warning(kind):
    x, labels = dense()
    x = {"all the same": 0 * x, "far apart": x**5, "tiny": 1e-6 * x, "huge": 1e4 * x}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = path_of(x.astype(np.float32), labels)
    assert all(np.isfinite(part).all() for solution in path for part in solution)


def test_log_frequencies():
    found = log_frequencies(np.array([2, 0, 2, 2]), 4)
    np.testing.assert_allclose(found, [math.log(0.25), ABSENT, math.log(0.75), ABSENT])
    none = log_frequencies(np.zeros(0, int), 4)
    assert np.isfinite(none).all() and (none == none[0]).all()


def test_threads_are_our_own_and_change_nothing(kind, monkeypatch):
    make, data, _ = kind
    x, labels = data()
    solve, found = _Problem.solve, []
    busy, most, blas = set(), set(), set()

    def watched(self, penalty, gap):
        pools = threadpoolctl.threadpool_info()
        blas.update(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")
        busy.add(threading.get_ident())
        most.add(len(busy))
        solved = solve(self, penalty, gap)
        busy.discard(threading.get_ident())
        return solved

    monkeypatch.setattr(_Problem, "solve", watched)
    for threads in (1, 3):
        most.clear()
        monkeypatch.setattr("sgmft.models.experts.thread_count", lambda threads=threads: threads)
        found.append(make().fit(x, labels, np.arange(len(x)) % 3)(x))
        assert max(most) <= threads and blas == {1}
    np.testing.assert_allclose(*found, atol=1e-3, rtol=0)


def folds(x, count=4):
    """Parts that each leave a fold out, with means and deviations of their own."""
    fold = np.arange(len(x)) % count
    kept = [fold != f for f in range(count)]
    return [Block(own, x[own].mean(0), x[own].std(0)) for own in kept]


@pytest.mark.parametrize("most", [2**22, 60, 1], ids=["together", "in groups", "one by one"])
def test_parts_are_solved_as_if_each_were_alone(most, tight, monkeypatch):
    monkeypatch.setattr("sgmft.models.logistic.MAX_NUMBERS", most * K)
    x, labels = dense()
    parts = folds(x)
    parts[1] = Block(parts[1].weights & (labels != 0), *parts[1][1:])  # one that lacks a class
    every = Regressions(x, labels, K, parts)
    for penalty in PENALTIES:
        found = zip(every.solve(penalty), parts, strict=True)
        for i, (solution, (own, mean, deviation)) in enumerate(found):
            z = (x - mean) / deviation
            expected = scikit(z[own], labels[own], penalty).predict_proba(z)
            p = probabilities(solution, x)
            if i == 1:
                assert p[:, 0].max() < 1e-12 and (solution.weight[0] == 0).all()
                p = p[:, 1:]
            np.testing.assert_allclose(p, expected, atol=1e-4)


@pytest.mark.parametrize("width", [None, 200], ids=["long", "wide"])
@pytest.mark.parametrize("kind", [np.copy, csr_matrix], ids=["array", "sparse"])
def test_weights_count_as_scikit_learns_and_as_repeated_rows_do(kind, width, tight):
    x, labels = dense()
    x = x if width is None else np.random.default_rng(0).normal(size=(len(x), width))
    times = np.arange(len(labels)) % 4  # some rows count nothing
    path = path_of(kind(x), labels, weights=times * 0.7)
    repeated = path_of(kind(x.repeat(times, 0)), labels.repeat(times))
    for solution, again, penalty in zip(path, repeated, PENALTIES, strict=True):
        expected = scikit(x, labels, penalty, times * 0.7).predict_proba(x)
        np.testing.assert_allclose(probabilities(solution, x), expected, atol=1e-4)
        np.testing.assert_allclose(probabilities(again, x), expected, atol=1e-4)


@pytest.mark.parametrize("kind", [np.copy, csr_matrix], ids=["array", "sparse"])
@pytest.mark.parametrize("penalty", [0.3, 0.1])
def test_what_was_solved_roughly_is_solved_to_the_end(penalty, kind, tight):
    x, labels = dense()
    every = Regressions(kind(x), labels, K, [Block(np.ones(len(x)))])
    for each in (1.0, 0.3, 0.1):
        rough = every.solve(each, rough=True)
    (found,) = every.solve(penalty)
    expected = scikit(x, labels, penalty).predict_proba(x)
    np.testing.assert_allclose(probabilities(found, x), expected, atol=1e-5)
    assert np.abs(probabilities(rough[0], x) - scikit(x, labels, 0.1).predict_proba(x)).max() > 1e-6


def test_a_part_never_sees_the_other_rows(tight):
    x, labels = dense()
    parts, changed = folds(x), x.copy()
    changed[::4] *= 100  # the first part's own fold
    before, after = (Regressions(m, labels, K, parts).solve(0.1) for m in (x, changed))
    np.testing.assert_allclose(after[0].weight, before[0].weight, atol=1e-5)
    assert not np.isclose(after[1].weight, before[1].weight, atol=1e-2).all()


def test_a_matrix_without_columns_leaves_the_frequencies():
    labels = np.array([0, 1, 1, 1])
    for x in (np.zeros((4, 0), np.float32), csr_matrix((4, 0), dtype=np.float32)):
        (solution,) = path_of(x, labels, 2, [1.0])
        assert solution.weight.shape == (2, 0)
        np.testing.assert_allclose(softmax(solution.bias), [0.25, 0.75])


# --- folds


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("counts", [[7, 1, 13, 4], [1, 1], [3], [50, 49]])
def test_folds_have_equal_shares_of_each_class_and_are_drawn_by_the_seed(counts, count):
    labels = permutation(sum(counts), RandomState(0))  # as torch draws it
    assert labels.tolist() == torch.randperm(len(labels), generator=torch.manual_seed(0)).tolist()
    labels = np.arange(len(counts)).repeat(counts)[labels]
    drawn = [draw_folds(labels, count, RandomState(seed)) for seed in (1, 1, 2)]
    for members in (drawn[0], *(drawn[0][labels == k] for k in range(len(counts)))):
        sizes = np.bincount(members, minlength=count)
        assert len(sizes) == count and sizes.max() - sizes.min() <= 1
    assert np.array_equal(drawn[0], drawn[1])
    assert len(labels) < 25 or not np.array_equal(drawn[0], drawn[2])


# --- experts of both kinds


def dense_reference(x, labels, penalty):
    """A function to log p of posts, from scikit-learn fitted to these."""
    mean, deviation = x.mean(0), x.std(0, ddof=1)
    model = scikit((x - mean) / deviation, labels, penalty)
    return lambda new: model.predict_log_proba((new - mean) / deviation)


def lexical_reference(x, labels, penalty):
    cut = vectorizer()
    model = scikit(cut.fit_transform(x), labels, penalty)
    return lambda new: model.predict_log_proba(cut.transform(new))


KINDS = {
    "dense": (DenseExpert, dense, dense_reference, (10.0, 1.0, 0.1, 0.01)),
    "lexical": (NgramExpert, grams, lexical_reference, (0.1, 0.03, 0.01, 1e-3)),
}


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """Make an expert, its posts, and its reference by scikit-learn."""
    expert, data, reference, penalties = KINDS[request.param]
    monkeypatch.setattr(expert, "penalties", penalties)
    width = D if expert is DenseExpert else 0
    return lambda: expert(width, K), data, reference


def test_the_penalty_with_the_least_held_out_loss_is_chosen(kind, tight):
    make, data, reference = kind
    chosen = set()
    for slope in (0.15, 0.4, 1.0):
        made, (x, labels) = make(), data(45, seed=3, slope=slope)
        fold = np.arange(45) % 4
        found = made.fit(x, labels, fold)(x)
        held_out, losses = {}, {}
        for penalty in made.penalties:
            rows = np.zeros((45, K))
            for f in range(4):
                without = reference(x[fold != f], labels[fold != f], penalty)
                rows[fold == f] = without(x[fold == f])
            held_out[penalty] = rows
            losses[penalty] = -sum(rows[i, labels[i]] for i in range(45)) / 45
        best = min(losses, key=losses.get)
        np.testing.assert_allclose(np.exp(found), np.exp(held_out[best]), atol=1e-3)
        new, _ = data(20, seed=8)
        expected = np.exp(reference(x, labels, best)(new))
        np.testing.assert_allclose(np.exp(made.forward(new)), expected, atol=1e-3)
        chosen.add(best)
    assert len(chosen) > 1  # or any choice would have done


def test_a_held_out_prediction_knows_nothing_of_its_own_fold(kind, tight):
    make, data, _ = kind
    made, (x, labels), fold = make(), data(), np.arange(60) % 5
    made.penalties = (0.05,)
    before = made.fit(x, labels, fold)(x)
    inside, others, changed = fold == 2, labels.copy(), x.copy()
    others[inside] = (labels[inside] + 1) % K  # its own label, and its neighbours'
    changed[inside] = x[inside][::-1]  # twelve posts, so none stays where it was
    after = made.fit(changed, others, fold)(changed)
    np.testing.assert_allclose(after[inside][::-1], before[inside], atol=1e-4, rtol=0)
    assert not np.isclose(after[~inside], before[~inside]).all(1).any()


def test_posts_of_one_fold_take_the_strongest_penalty(kind, tight):
    make, data, reference = kind
    made, (x, labels) = make(), data()
    found = made.fit(x, labels, np.full(60, 3))(x)
    expected = np.exp(reference(x, labels, made.penalties[0])(x))
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-4)
    assert_close(made.forward(x), found)


def test_log_probabilities_whatever_the_order_of_the_posts(kind, tight):
    make, data, _ = kind
    made, (x, labels) = make(), data()
    fold = draw_folds(labels, 5, RandomState(0))
    made.penalties = (0.1,)
    found = made.fit(x, labels, fold)(x)
    for rows in (found, made.forward(x)):
        assert rows.shape == (60, K)
        assert (np.abs(np.exp(rows).sum(-1) - 1) < 1e-3).all()  # none is below log 1e-4
    order = permutation(60, RandomState(5))
    again = made.fit(x[order], labels[order], fold[order])(x[order])
    np.testing.assert_allclose(again, found[order], atol=1e-3, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_with_a_post_or_two_everything_stays_finite(kind, count):
    make, data, _ = kind
    made, (x, _), labels = make(), data(), np.arange(count)
    x = np.concatenate([x[:count], x[:count]])  # n-grams of one post alone do not count
    labels = np.concatenate([labels, labels])
    assert np.isfinite(made.fit(x, labels, np.arange(2 * count))(x)).all()
    assert np.isfinite(made.fit(x[:1], labels[:1], np.zeros(1))(x[:1])).all()
    assert np.isfinite(made.forward(x)).all()


def test_what_is_constant_in_a_folds_posts_tells_nothing_of_those_left_out(tight):
    """As empty regions of few pictures are; in float32, whose rounding differs between posts."""
    x, labels = dense(45, seed=5)
    fold = np.arange(45) % 4
    odd = np.full((45, 60), 0.1)
    odd[0] = np.linspace(1, 9, 60)  # other folds may learn from it, its own cannot
    found = []
    for rows in (x, np.concatenate([x, odd], 1)):
        made = DenseExpert(rows.shape[1], K)
        made.penalties = (0.1,)
        rows = rows.astype(np.float32)
        found.append(made.fit(rows, labels, fold)(rows)[fold == 0])
    np.testing.assert_allclose(*found, atol=1e-3, rtol=0)


# --- the expert on n-grams


def fitted(x, labels):
    made = NgramExpert(0, K)
    made.fit(x, labels, np.arange(len(x)) % 5)
    return made


def test_every_penalty_is_scikit_learns_on_tf_idf(tight):
    x, labels = grams()
    new, _ = grams(seed=1, longest=30)
    made, cut = NgramExpert(0, K), vectorizer()
    matrix = cut.fit_transform(x)
    every, found = made.regressions(x, labels, np.ones(len(x))), []
    for penalty in (1e-3, 3e-4, 1e-4, 3e-5, 1e-5):
        made._load_solution(every.solve(penalty)[0])
        expected = scikit(matrix, labels, penalty).predict_proba(cut.transform(new))
        np.testing.assert_allclose(np.exp(made.forward(new)), expected, atol=0.01)
        found.append(expected)
    assert all(np.abs(a - b).max() > 0.03 for a, b in pairwise(found))  # or any would do
    assert made.vocabulary.tolist() == sorted(cut.vocabulary_)
    assert made.vocabulary.dtype == np.int32
    assert BUCKETS - 1 in made.vocabulary and 0 in made.vocabulary  # both ends


def test_a_text_without_known_n_grams_gets_the_intercepts():
    made = fitted(*grams())
    none, strange = np.full((2, 4), -1, np.int32), np.full((2, 4), 999, np.int32)
    expected = np.tile(log_softmax(made.bias), (2, 1))
    assert_close(made.forward(none), expected)
    assert_close(made.forward(strange), expected)
    assert made.forward(none[:0]).shape == (0, K)


def test_neither_padding_nor_strange_n_grams_nor_order_nor_other_posts_matter():
    x, labels = grams()
    made = fitted(x, labels)
    expected = made.forward(x)
    pad = np.full((60, 3), -1, np.int32)
    wider = np.concatenate([pad, x[:, ::-1], pad], 1)
    strange = np.tile(np.array([61, 5000, BUCKETS - 2], np.int32), (60, 1))
    for same in (wider, np.concatenate([x, strange], 1)):
        assert_close(made.forward(same), expected)
    alone = np.concatenate([made.forward(row[None, row >= 0]) for row in x])
    assert_close(alone, expected)
    again = fitted(wider, labels)
    assert np.array_equal(again.vocabulary, made.vocabulary)
    assert np.array_equal(again.idf, made.idf)


def test_an_n_gram_of_one_post_does_not_count_however_often_it_stands_there():
    x = np.array([[1, 9, 9], [1, 2, -1], [2, 1, 3], [3, -1, -1]], np.int32)
    made = NgramExpert(0, K)
    made.fit(x, np.array([0, 1, 0, 1]), np.zeros(4))
    assert made.vocabulary.tolist() == [1, 2, 3]
    expected = [1 + math.log(5 / (1 + n)) for n in (3, 2, 2)]
    assert_close(made.idf, expected)


@pytest.mark.parametrize("size", [1, 5])
def test_of_too_many_n_grams_the_most_frequent_are_kept(size, monkeypatch):
    monkeypatch.setattr("sgmft.models.experts.MAX_VOCABULARY", size)
    x, labels = grams()
    made = fitted(x, labels)
    posts = {g: sum(g in row for row in x.tolist()) for g in {*x.flatten().tolist()} - {-1}}
    kept = sorted(sorted(posts, key=lambda g: (-posts[g], g))[:size])  # on a tie the smaller
    assert made.vocabulary.tolist() == kept
    assert made.weight.shape == (K, size) and made.idf.shape == (size,)
    assert np.isfinite(made.forward(x)).all()


def test_without_any_shared_n_gram_the_class_frequencies_are_left():
    x, labels = np.arange(20, dtype=np.int32)[:, None], np.array([0, 1, 2, 2] * 5)
    made = NgramExpert(0, K)
    held_out = made.fit(x, labels, np.arange(20) // 4)(x)
    assert not len(made.vocabulary)
    expected = np.tile([0.25, 0.25, 0.5], (20, 1))
    for found in (held_out, made.forward(x)):
        np.testing.assert_allclose(np.exp(found), expected, atol=1e-3, rtol=0)
