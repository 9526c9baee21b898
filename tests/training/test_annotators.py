"""Labels by several annotators: against a slow loop, and simulated ones of whom all is known."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from reference_loops import dawid_skene
from sgmft import Post
from sgmft.errors import SgmftError, SgmftNotice, SgmftWarning
from sgmft.training import annotators
from sgmft.training.annotators import estimate_labels, label_by_annotators

K = 4


def simulate(accuracies, posts=600, known=0, missing=0.0, seed=0):
    """True labels (N,), answers (N, A), known labels (N,), confusions (A, K, K)."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(K, posts, p=[0.4, 0.3, 0.2, 0.1])
    confusion = np.array([np.full((K, K), (1 - a) / (2 * (K - 1))) for a in accuracies])
    for matrix, accuracy in zip(confusion, accuracies, strict=True):
        matrix[np.arange(K), np.arange(K)] = accuracy
        matrix[np.arange(K), (np.arange(K) + 1) % K] += 1 - matrix.sum(1)
    answers = np.array([[rng.choice(K, p=m[k]) for m in confusion] for k in truth])
    answers[rng.random(answers.shape) < missing] = -1
    return truth, answers, np.where(np.arange(posts) < known, truth, -1), confusion


def accuracy(probs, truth, rows=slice(None)):
    return (probs.argmax(1) == truth)[rows].mean()


answers_of = st.integers(1, 4).flatmap(
    lambda people: st.lists(
        st.lists(st.integers(-1, 2), min_size=people + 1, max_size=people + 1),
        min_size=1,
        max_size=12,
    )
)


@pytest.mark.parametrize("known", [0, 5])
def test_estimates_are_those_of_a_slow_loop(known, monkeypatch):
    monkeypatch.setattr(annotators, "MAX_ROUNDS", 8)
    monkeypatch.setattr(annotators, "CLOSE", 0.0)
    _, answers, own, _ = simulate([0.8, 0.6, 0.5], 25, known, 0.2)
    found = estimate_labels(answers, own, K)
    probs, confusion, _ = dawid_skene(answers.tolist(), own.tolist(), K, 8)
    np.testing.assert_allclose(found.probabilities, probs, rtol=1e-9)
    np.testing.assert_allclose(found.confusion, confusion, rtol=1e-9)


@given(answers_of)
def test_the_likelihood_never_falls(rows):
    table = np.array(rows)
    _, _, objectives = dawid_skene(table[:, 1:].tolist(), table[:, 0].tolist(), 3, 12)
    assert (np.diff(objectives) > -1e-9).all()


@given(answers_of, st.randoms(use_true_random=False))
def test_what_holds_of_any_answers(rows, random):
    table = np.array(rows)
    own, answers = table[:, 0], table[:, 1:]
    found = estimate_labels(answers, own, 3)
    is_known, some = own >= 0, (answers >= 0).any(1)
    sums = found.probabilities.sum(1)
    np.testing.assert_allclose(sums[is_known | some], 1)
    assert np.array_equal(found.probabilities[is_known], np.eye(3)[own[is_known]])
    np.testing.assert_allclose(found.confusion.sum(-1), 1)
    assert (found.confusion > 0).all() and (found.accuracy >= 0).all()
    assert (found.accuracy <= 1 + 1e-12).all() and (found.right <= found.known).all()
    order = np.arange(answers.shape[1])
    random.shuffle(order)
    again = estimate_labels(answers[:, order], own, 3)
    np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-5)


def test_unequal_annotators_are_told_apart():
    accuracies = [0.95, 0.55, 0.5, 0.5, 0.45]
    truth, answers, own, confusion = simulate(accuracies, 2000)
    found = estimate_labels(answers, own, K)
    np.testing.assert_allclose(found.accuracy, accuracies, atol=0.04)
    np.testing.assert_allclose(found.confusion, confusion, atol=0.1)
    votes = np.eye(K + 1)[answers][..., :K].sum(1)
    assert accuracy(found.probabilities, truth) > accuracy(votes, truth) + 0.05


def test_soft_labels_are_as_sure_as_they_are_right():
    truth, answers, own, _ = simulate([0.8, 0.7, 0.6], 3000, missing=0.2)
    probs = estimate_labels(answers, own, K).probabilities
    assert probs.max(1).mean() == pytest.approx(accuracy(probs, truth), abs=0.03)


def test_known_labels_show_how_one_annotator_errs():
    """A teacher who calls most posts of label 0 1 is right about few 1s; known labels show it."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 1000)
    answers = np.where((truth == 0) & (rng.random(1000) < 0.7), 1, truth)[:, None]
    own = np.where(np.arange(1000) < 200, truth, -1)
    found = estimate_labels(answers, own, 2)
    assert found.known.tolist() == [200]
    assert found.right.tolist() == [int((answers[:200, 0] == truth[:200]).sum())]
    np.testing.assert_allclose(found.confusion[0], [[0.3, 0.7], [0, 1]], atol=0.08)
    said = (answers[:, 0] == 1) & (own < 0)
    assert found.probabilities[said, 1].mean() == pytest.approx(truth[said].mean(), abs=0.06)


def test_without_known_labels_two_annotators_are_counted():
    answers = np.array([[0, 0], [0, 1], [1, -1], [-1, -1]])
    found = estimate_labels(answers, np.full(4, -1), 2)
    assert found.probabilities.tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 0]]


# --- columns of a table


def posts_of(rows, **more):
    """Posts of rows (label, gpt, qwen, anna)."""
    names = ("label", "gpt", "qwen", "anna")
    tables = [dict(zip(names, row, strict=True)) for row in rows]
    return [Post("x", label=x["label"], place="row", row=x, **more) for x in tables]


ROWS = [("Home", "Home", "Home", "Work")] * 4 + [("Work", "Work", "Home", "Home")] * 4
ROWS += [(None, "Work", "Home", "Home")] * 3 + [(None, "Home", "", None), (None, "", "NA", None)]


def test_labels_come_from_columns_and_each_annotator_is_described():
    with pytest.warns(SgmftNotice) as told:
        found = label_by_annotators(posts_of(ROWS), ["gpt", "qwen", "anna"])
    assert [post.label for post in found] == ["Home"] * 4 + ["Work"] * 7 + ["Home", None]
    assert [post.soft is None for post in found] == [True] * 8 + [False] * 4 + [True]
    assert sum(found[8].soft.values()) == pytest.approx(1) and found[8].soft["Work"] > 0.8
    lines = [str(x.message) for x in told]
    assert lines[0].startswith("gpt: right on 100 % of 8 posts with a known label; estimated 9")
    assert lines[1].startswith("qwen: right on 50 % of 8 posts") and len(lines) == 3


def test_a_column_of_labels_may_be_an_annotator():
    for truth in (None, "label"):
        found = label_by_annotators(posts_of(ROWS), ["label", "gpt", "qwen"], truth)
        assert all(post.soft is not None for post in found[:12])


def test_two_annotators_without_known_labels_are_warned_of():
    rows = [(None, *row[1:]) for row in ROWS]
    with pytest.warns(SgmftWarning, match="2 annotators can only be counted: add a third"):
        label_by_annotators(posts_of(rows), ["gpt", "qwen"])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Without known labels")
        label_by_annotators(posts_of(rows), ["gpt", "qwen", "anna"])


def test_a_bad_answer_is_reported_and_a_bad_row_left_alone():
    posts = posts_of([*ROWS, (None, ["Home", "Work"], "Home", "Home")])
    posts[0] = replace(posts[0], error="gone")
    found = label_by_annotators(posts, ["gpt", "qwen", "anna"])
    assert found[0].error == "gone" and found[0].soft is None
    assert found[-1].error == "several labels (Home, Work) where one is needed"


def test_columns_without_any_label_are_refused():
    rows = [(None, "", "", ""), (None, ["Home", "Work"], "", "")]
    with pytest.raises(SgmftError, match="None of the posts has a label by --annotators gpt,qwen"):
        label_by_annotators(posts_of(rows), ["gpt", "qwen"])


def test_an_unknown_column_is_named():
    with pytest.raises(SgmftError, match=r"--annotators: the posts have no column 'gtp'.*'gpt'\?"):
        label_by_annotators(posts_of(ROWS), ["gtp"])
