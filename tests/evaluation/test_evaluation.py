import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from sgmft.errors import SgmftError
from sgmft.evaluation.metrics import evaluate

PLACES = ["Home", "School", "电影院"]


def random_case(seed, posts, classes):
    rng = np.random.default_rng(seed)
    labels = [f"label {k}" for k in rng.permutation(classes)]
    probabilities = rng.dirichlet(np.full(classes, 0.5), size=posts)
    truth = [
        labels[rng.choice(classes, p=0.5 * row + 0.5 * np.eye(classes)[0])] for row in probabilities
    ]
    return probabilities, truth, labels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 9))
def test_agrees_with_scikit_learn(seed, posts, classes):
    probabilities, truth, labels = random_case(seed, posts, classes)
    result = evaluate(probabilities, truth, labels)
    predicted = [labels[k] for k in probabilities.argmax(axis=1)]
    assert result.posts == posts
    assert result.accuracy.value == pytest.approx(accuracy_score(truth, predicted))
    macro = f1_score(truth, predicted, average="macro", zero_division=0)
    assert result.macro_f1.value == pytest.approx(macro)
    order = np.argsort(labels)  # log_loss wants the columns in the labels' sorted order
    loss = log_loss(truth, probabilities[:, order], labels=sorted(labels))
    assert result.log_loss == pytest.approx(loss)
    assert result.confusion == confusion_matrix(truth, predicted, labels=labels).tolist()
    expected = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    for k, score in enumerate(result.per_class):
        found = (score.precision, score.recall, score.f1, score.support)
        assert found == pytest.approx(tuple(column[k] for column in expected))


def test_intervals_agree_with_resampling_posts_one_by_one():
    probabilities, truth, labels = random_case(5, posts=150, classes=5)
    result = evaluate(probabilities, truth, labels)
    true = np.array([labels.index(label) for label in truth])
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(600):
        some = rng.integers(0, len(true), len(true))
        macro = f1_score(true[some], predicted[some], average="macro", zero_division=0)
        draws.append((np.mean(true[some] == predicted[some]), macro))
    for interval, naive in zip(
        (result.accuracy, result.macro_f1), np.transpose(draws), strict=True
    ):
        low, high = np.percentile(naive, [2.5, 97.5])
        assert interval.low == pytest.approx(low, abs=0.02)
        assert interval.high == pytest.approx(high, abs=0.02)
        assert interval.low < interval.value < interval.high


def test_intervals_cover_the_true_accuracy_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        right = rng.random(300) < 0.8
        result = evaluate(np.eye(2)[np.where(right, 0, 1)], ["a"] * 300, ["a", "b"])
        covered += result.accuracy.low <= 0.8 <= result.accuracy.high
    assert 180 <= covered <= 199


def test_groups():
    probabilities = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    truth = ["Home", "Home", "School", "Home", "Home", "电影院"]
    pictures = ["one", "one", "none", "one", "none", "one"]
    result = evaluate(
        probabilities, truth, PLACES, groups={"pictures": pictures, "again": pictures}
    )
    one, none = result.groups["pictures"].values()
    assert list(result.groups["pictures"]) == ["one", "none"]
    assert (one.posts, one.accuracy.value) == (4, 0.75)
    assert (none.posts, none.accuracy.value) == (2, 0.5)
    assert one.accuracy.low < 0.75 < one.accuracy.high == 1
    assert result.groups["again"] == result.groups["pictures"]
    assert evaluate(probabilities, truth, PLACES).accuracy == result.accuracy


def test_round_trip_through_json():
    probabilities, truth, labels = random_case(3, posts=40, classes=4)
    result = evaluate(probabilities, truth, labels, groups={"user": [t[-1] for t in truth]})
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text) == result.to_dict()


def test_seed_decides():
    case = random_case(3, posts=40, classes=4)
    assert evaluate(*case) == evaluate(*case)
    assert evaluate(*case, seed=1).accuracy != evaluate(*case).accuracy


def test_certain_and_wrong_stays_finite():
    result = evaluate(np.array([[1.0, 0.0]], dtype=np.float32), ["b"], ["a", "b"])
    assert result.accuracy.value == result.macro_f1.value == 0
    assert np.isfinite(result.log_loss)


@pytest.mark.parametrize(
    ("probabilities", "truth", "labels", "message"),
    [
        (np.zeros((0, 3)), [], PLACES, "no posts"),
        (np.eye(3), ["Home", "Gym", "Bar"], PLACES, "Bar, Gym"),
        (np.eye(3), ["Home"], PLACES, "shape"),
        (np.eye(2), ["Home", "Home"], ["Home", "Home"], "twice: Home"),
        (np.full((1, 3), np.nan), ["Home"], PLACES, "not probabilities"),
        (np.array([[2.0, -0.5, -0.5]]), ["Home"], PLACES, "not probabilities"),
    ],
)
def test_mistakes(probabilities, truth, labels, message):
    with pytest.raises(SgmftError, match=message):
        evaluate(probabilities, truth, labels)


def test_groups_of_another_length():
    with pytest.raises(SgmftError, match="'user' has 1 values for 3 posts"):
        evaluate(np.eye(3), PLACES, PLACES, groups={"user": ["u"]})
