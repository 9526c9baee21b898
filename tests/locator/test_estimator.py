"""`SemanticLocator` as an estimator of scikit-learn, and in pickles."""

import pickle
import subprocess
import sys

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_array
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from sgmft import Post, SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.encoders.registry import ENCODERS
from small_posts import LABELS
from tiny_encoder import TinyEncoder


@pytest.fixture
def posts(small_posts):
    """The small posts, and one without anything."""
    return [*small_posts, Post(label="Home", error="nothing at all")]


@pytest.fixture
def y(posts):
    return np.array([post.label for post in posts])


@pytest.fixture
def plain(tiny):
    """An untrained locator that is fitted in a moment."""
    return SemanticLocator("tiny", method="linear-probe")


class OfNumbers(SemanticLocator):
    """Reads scikit-learn's tables of numbers as posts: a word for each number."""

    def fit(self, posts, y=None, sample_weight=None):
        return super().fit(of_numbers(posts), y, sample_weight)

    def predictions(self, posts, abstain=None):
        return super().predictions(of_numbers(posts), abstain)

    def predict(self, posts):
        return np.array(super().predict(of_numbers(posts)))

    def predict_proba(self, posts):
        return super().predict_proba(of_numbers(posts))

    def score(self, posts, y, sample_weight=None):
        return super().score(of_numbers(posts), y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def of_numbers(rows):
    if isinstance(rows, list) and all(isinstance(row, Post) for row in rows):
        return rows
    rows = check_array(rows, ensure_all_finite="allow-nan")
    return [Post(" ".join(f"{chr(97 + j)}{2 * x:.0f}" for j, x in enumerate(row))) for row in rows]


POSTS = "posts are no table of numbers: they have no features to count"
ERROR = "mistakes are an SgmftError, in one sentence"
NOT_OURS = {
    "check_no_attributes_set_in_init": "what parameters mean is looked up at once: see the next",
    "check_do_not_raise_errors_in_init_or_set_params": "a wrong name is told before posts are read",
    "check_set_params": "a wrong name is told before posts are read",
    "check_dont_overwrite_parameters": "what is learned has names without _, as saved models do",
    "check_dict_unchanged": "the encoder is loaded when it is first used",
    "check_n_features_in": POSTS,
    "check_n_features_in_after_fitting": POSTS,
    "check_estimators_unfitted": ERROR,
    "check_classifiers_train": ERROR,
    "check_fit2d_1sample": ERROR,
    "check_all_zero_sample_weights_error": ERROR,
    "check_sample_weights_shape": ERROR,
    "check_sample_weight_equivalence_on_dense_data": "folds of posts choose the penalties",
    "check_classifiers_one_label": "one label is nothing to learn",
    "check_classifiers_regression_target": "numbers are labels",
    "check_supervised_y_no_nan": "posts without a label are left out and counted",
    "check_supervised_y_2d": "a column of labels is taken without a warning",
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(ENCODERS, "tiny", TinyEncoder)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [OfNumbers("tiny", method="linear-probe")],
    expected_failed_checks=lambda _: NOT_OURS,
    xfail_strict=True,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_parameters_are_kept_as_they_were_given():
    settings = {"epochs": 5}
    locator = SemanticLocator("tiny", preset="elements", settings=settings, seed=3)
    assert locator.get_params(deep=False)["settings"] is settings
    assert clone(locator).preset == locator.preset
    locator.set_params(settings={"width": 16, "heads": 2}, seed=4)
    assert locator.preset.model["width"] == 16 and locator.preset.train.seed == 4
    with pytest.raises(SgmftError, match=r"no parameter 'metod'.*Did you mean 'method'\?"):
        locator.set_params(metod="sgmft")


def test_it_is_a_classifier(plain, posts, y):
    assert is_classifier(plain) and not hasattr(plain, "classes_")
    locator = plain.fit(posts)
    check_is_fitted(locator)
    assert locator.classes_.tolist() == LABELS
    assert locator.training.data.skipped == {"nothing at all": 1}
    assert 0.9 < locator.score(posts) == locator.score(posts, y) < 1
    weights = np.r_[np.ones(36), 0]
    assert locator.score(posts, sample_weight=weights) == pytest.approx(locator.score(posts[:-1]))
    with pytest.raises(SgmftError, match="1 of 37 posts have no label to score"):
        locator.score([*posts[:-1], Post("sofa")])


def test_y_comes_back_as_it_was_given(plain, posts, y):
    numbers = pd.Series(y).map({"Home": 10, "School": 9, "Work": -1})
    locator = plain.fit(posts, numbers)
    assert locator.classes_.tolist() == [-1, 9, 10] and locator.labels == ["-1", "9", "10"]
    assert (locator.predict(posts)[:-1] == numbers[:-1]).mean() > 0.9
    assert (locator.classes_[locator.predict_proba(posts[:-1]).argmax(1)] == numbers[:-1]).all()
    assert locator.score(posts[:-1], numbers[:-1]) > 0.9
    some = numbers.astype("Int64").where(numbers.index % 5 > 0)
    assert clone(plain).fit(posts, some).training.data.skipped["no label"] == 8
    with pytest.raises(SgmftError, match="37 posts with 2 labels y: give one each"):
        plain.fit(posts, [1, 2])


def test_weights(plain, posts, y):
    wrong = np.where(np.arange(37) % 5 > 1, y, "Home")
    weights = (wrong == y).astype(float)
    assert plain.fit(posts, wrong).score(posts[:-1]) < 0.9
    assert plain.fit(posts, wrong, weights).score(posts[:-1]) > 0.9
    params = {"sample_weight": weights[:-1]}
    assert np.isfinite(cross_val_score(plain, posts[:-1], wrong[:-1], cv=2, params=params)).all()
    for bad, message in (([1.0], "37 posts with 1 weights"), (-weights, "numbers below 0")):
        with pytest.raises(SgmftError, match=message):
            plain.fit(posts, wrong, bad)


def test_what_scikit_learn_does_with_a_classifier(plain, posts, y):
    assert cross_val_score(plain, posts, y, cv=3).mean() > 0.8  # the last is wrong
    posts, y = posts[:-1], y[:-1]
    assert cross_val_score(plain, posts, y, cv=3, scoring="f1_macro").mean() > 0.9
    probs = cross_val_predict(plain, posts, y, cv=3, method="predict_proba")
    assert (np.array(LABELS)[probs.argmax(1)] == y).mean() > 0.9
    grid = {"method": ["linear-probe", "gated-experts"], "cleaning": ["light", "none"]}
    search = GridSearchCV(plain, grid, cv=2, error_score="raise").fit(posts, y)
    assert search.best_score_ > 0.9 and len(search.predict(posts)) == 36
    assert CalibratedClassifierCV(plain, cv=2).fit(posts, y).score(posts, y) > 0.9
    pipeline = make_pipeline(FunctionTransformer(lambda posts: [*posts]), plain)
    assert pipeline.fit(posts, y).score(posts, y) > 0.9
    words = make_pipeline(FunctionTransformer(texts), CountVectorizer(), LogisticRegression())
    both = VotingClassifier([("ours", plain), ("words", words)], voting="soft").fit(posts, y)
    assert both.score(posts, y) > 0.8


def texts(posts):
    return [post.text for post in posts]


def test_a_grid_search_encodes_each_post_once(posts, y, monkeypatch, tmp_path):
    encoded = []

    class Counting(TinyEncoder):
        def encode_texts(self, texts, tokens):
            encoded.extend(texts)
            return super().encode_texts(texts, tokens)

    monkeypatch.setitem(ENCODERS, "tiny", Counting)
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path))
    locator = SemanticLocator("tiny", method="linear-probe")
    search = GridSearchCV(locator, {"settings": [{"lexical": False}, {"lexical": True}]}, cv=3)
    search.fit(posts, y)
    assert len(encoded) == len({*encoded}) == sum(post.text != "" for post in posts)


@pytest.mark.parametrize("dump", [pickle, cloudpickle])
def test_pickles(plain, posts, y, dump):
    untrained = dump.loads(dump.dumps(plain))
    assert untrained.get_params() == plain.get_params() and not untrained.labels
    numbers = [LABELS.index(label) for label in y]
    locator = plain.fit(posts, numbers)
    again = dump.loads(dump.dumps(locator))
    assert np.array_equal(again.predict_proba(posts), locator.predict_proba(posts), equal_nan=True)
    assert again.classes_.tolist() == [0, 1, 2] and again.get_params() == locator.get_params()
    assert again.training.data == locator.training.data


def test_a_pickle_in_another_process(trained, tmp_path):
    joblib.dump(SemanticLocator.from_pretrained(trained), tmp_path / "model.joblib")
    code = (
        "import joblib, sys; from sgmft import Post; "
        "print(*joblib.load(sys.argv[1]).predict([Post('在家睡觉')]))"
    )
    command = [sys.executable, "-c", code, tmp_path / "model.joblib"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = SemanticLocator.from_pretrained(trained)
    assert done.stdout.split() == loaded.predict([Post("在家睡觉")])


def test_a_clone_of_a_saved_model_learns_as_it_did(tiny, small_posts, tmp_path):
    locator = tiny({"epochs": 2}, val_size=0.2, seed=5).fit(small_posts)
    locator.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    again = clone(loaded)
    assert not again.labels and again.preset == locator.preset
    found = again.fit(small_posts).predict_proba(small_posts)
    assert np.array_equal(found, locator.predict_proba(small_posts))
