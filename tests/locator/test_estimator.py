"""`SemanticLocator` as an estimator of scikit-learn, and in pickles."""

import operator
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

from sgmft import Abstention, Post, SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.encoders.registry import ENCODERS
from small_posts import LABELS
from tiny_encoder import TinyEncoder


@pytest.fixture
def frame(small_posts):
    """The small posts as people have them: with an index, and a row without anything."""
    cells = [(x.text, str(x.images[0]) if x.images else None, x.label) for x in small_posts]
    frame = pd.DataFrame([*cells, (None, None, "Home")], columns=["text", "image", "label"])
    return frame.set_index(pd.RangeIndex(100, 137))


@pytest.fixture
def plain(tiny):
    """An untrained locator that is fitted in a moment."""
    return SemanticLocator("tiny", method="linear-probe", features=None)


class OfNumbers(SemanticLocator):
    """Reads scikit-learn's tables of numbers as posts: a word for each number."""

    def __repr__(self):  # without an address, for the names of tests
        return "OfNumbers()"

    def _read(self, posts, labelled=False):
        if isinstance(posts, list) and all(isinstance(post, Post) for post in posts):
            return iter(posts)
        rows = check_array(posts, ensure_all_finite="allow-nan")
        words = ([f"{chr(97 + j)}{2 * x:.0f}" for j, x in enumerate(row)] for row in rows)
        return iter([Post(" ".join(x)) for x in words])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


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
@parametrize_with_checks([OfNumbers("tiny", method="linear-probe", features=None)])
def test_checks_of_scikit_learn(estimator, check):
    if check.func.__name__ in NOT_OURS:  # which pytest's xfail would spend seconds on to show
        with pytest.raises(Exception):  # noqa: B017
            check(estimator)
    else:
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


def test_a_frame_in_and_what_fits_it_out(plain, frame):
    assert is_classifier(plain) and not hasattr(plain, "classes_")
    locator = plain.fit(frame)
    check_is_fitted(locator)
    assert locator.classes_.tolist() == LABELS
    assert locator.training.data.skipped == {"nothing to go on: no text and no picture": 1}
    found = locator.predict_frame(frame)
    assert found.index.equals(frame.index)
    assert [*found.columns] == ["label", "probability", "error", "warning"] + [
        f"p_{label}" for label in LABELS
    ]
    assert "nothing to go on" in found["error"].iloc[-1] and found["label"].isna().sum() == 1
    labels, posts = locator.predict(frame), [Post(text) for text in frame["text"][1:3]]
    assert isinstance(labels, np.ndarray) and labels[-1] is None
    assert (labels[:-1] == frame["label"][:-1]).mean() > 0.9
    assert locator.predict(posts) == [locator.predict(post)[0] for post in posts]
    assert [*locator.predict("sofa bed")] == ["Home"]
    assert locator.predict(frame["text"].iloc[:0]).shape == (0,)
    rules = Abstention(min_probability=0.999999)
    assert locator.predict_frame(frame, rules)["label"].isna().sum() > 1
    assert locator.score(frame) == locator.score(frame, frame["label"]) < 1
    weights = np.r_[np.ones(36), 0]
    assert locator.score(frame, sample_weight=weights) == pytest.approx(locator.score(frame[:-1]))
    with pytest.raises(SgmftError, match="1 of 37 posts have no label to score"):
        locator.score(
            frame.assign(label=frame["label"].where(frame["text"].notna() | (frame.index < 136)))
        )
    assert locator.explain({"text": "sofa bed"}).label == "Home"
    assert len(locator.encode(frame).posts) == 36


@pytest.mark.parametrize("name", ["pyarrow", "polars", "datasets", "dict", "list"])
def test_predictions_come_back_as_tables_have_them(plain, frame, name):
    rows = {"text": ["sofa bed", None, "boss meeting"]}
    if name == "list":
        given, kind = [{"text": x} for x in rows["text"]], dict
    elif name == "dict":
        given, kind = rows, dict
    else:
        there = pytest.importorskip(name)
        make = {"pyarrow": "table", "polars": "DataFrame", "datasets": "Dataset.from_dict"}[name]
        given = operator.attrgetter(make)(there)(rows)
        kind = type(given)
    found = plain.fit(frame).predict_frame(given)
    label = found["label"].to_pylist() if name == "pyarrow" else [*found["label"]]
    assert type(found) is kind and label == ["Home", None, "Work"]


def test_columns_of_other_names(frame, tiny):
    renamed = frame.rename(columns={"text": "a", "label": "b"})
    locator = SemanticLocator("tiny", method="linear-probe", columns={"text": "a", "label": "b"})
    assert locator.fit(renamed).score(renamed) > 0.9
    assert locator.predict(renamed[["a"]])[1] == frame["label"].iloc[1]
    assert [*locator.predict("sofa bed")] == ["Home"]
    unlabelled = renamed.drop(columns="b")
    assert clone(locator).fit(unlabelled, frame["label"]).labels == LABELS
    with pytest.raises(SgmftError, match="no column 'b'"):
        clone(locator).fit(unlabelled)
    with pytest.raises(SgmftError, match="has a label: give labels as y, or name their column"):
        SemanticLocator("tiny").fit(frame.drop(columns="label"))


def test_y_comes_back_as_it_was_given(plain, frame):
    numbers = frame["label"].map({"Home": 10, "School": 9, "Work": -1})
    locator = plain.fit(frame, numbers)
    assert locator.classes_.tolist() == [-1, 9, 10] and locator.labels == ["-1", "9", "10"]
    assert (locator.predict(frame[:-1]) == numbers[:-1]).mean() > 0.9
    assert (locator.classes_[locator.predict_proba(frame[:-1]).argmax(1)] == numbers[:-1]).all()
    assert locator.predict_frame(frame[:3])["label"].tolist() == numbers[:3].tolist()
    assert locator.score(frame[:-1], numbers[:-1]) > 0.9
    some = numbers.astype("Int64").where(frame.index % 5 > 0)
    assert clone(plain).fit(frame, some).training.data.skipped["no label"] == some.isna().sum()
    with pytest.raises(SgmftError, match="37 posts with 2 labels y: give one each"):
        plain.fit(frame, [1, 2])


def test_weights(plain, frame):
    wrong = frame["label"].where(frame.index % 5 > 1, "Home")
    weights = (wrong == frame["label"]).astype(float)
    assert plain.fit(frame, wrong).score(frame[:-1]) < 0.9
    assert plain.fit(frame, wrong, weights).score(frame[:-1]) > 0.9
    scores = cross_val_score(
        plain, frame[:-1], wrong[:-1], cv=2, params={"sample_weight": weights[:-1]}
    )
    assert np.isfinite(scores).all()
    for bad, message in (([1.0], "37 posts with 1 weights"), (-weights, "numbers below 0")):
        with pytest.raises(SgmftError, match=message):
            plain.fit(frame, wrong, bad)


def test_what_scikit_learn_does_with_a_classifier(plain, frame, small_posts):
    y = frame["label"]
    assert cross_val_score(plain, frame, y, cv=3).mean() > 0.8  # the row without anything is wrong
    good, labels = frame[:-1], y[:-1]
    assert cross_val_score(plain, small_posts, labels, cv=3, scoring="f1_macro").mean() > 0.9
    probs = cross_val_predict(plain, good, labels, cv=3, method="predict_proba")
    assert (np.array(LABELS)[probs.argmax(1)] == labels).mean() > 0.9
    grid = {"method": ["linear-probe", "gated-experts"], "cleaning": ["light", "none"]}
    search = GridSearchCV(plain, grid, cv=2, error_score="raise").fit(good, labels)
    assert search.best_score_ > 0.9 and search.predict(good).shape == (36,)
    grid = {"settings": [{"lexical": False}, {"lexical": True}]}
    search = GridSearchCV(plain, grid, cv=2).fit(good, labels)
    assert search.best_params_["settings"] in grid["settings"]
    calibrated = CalibratedClassifierCV(plain, cv=2).fit(good, labels)
    assert calibrated.score(good, labels) > 0.9
    pipeline = make_pipeline(FunctionTransformer(lambda x: x[["text"]]), plain)
    assert pipeline.fit(good, labels).score(good, labels) > 0.8 and "SemanticLocator" in repr(
        pipeline
    )
    words = make_pipeline(CountVectorizer(), LogisticRegression())
    both = VotingClassifier([("ours", plain), ("words", words)], voting="soft")
    assert both.fit(good["text"], labels).score(good["text"], labels) > 0.8


def test_a_grid_search_encodes_each_post_once(frame, monkeypatch, tmp_path):
    encoded = []

    class Counting(TinyEncoder):
        def encode_texts(self, texts, tokens):
            encoded.extend(texts)
            return super().encode_texts(texts, tokens)

    monkeypatch.setitem(ENCODERS, "tiny", Counting)
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path))
    locator = SemanticLocator("tiny", method="linear-probe")
    search = GridSearchCV(locator, {"settings": [{"lexical": False}, {"lexical": True}]}, cv=3)
    search.fit(frame, frame["label"])
    assert len(encoded) == len({*encoded}) == (frame["text"].fillna("") != "").sum()


@pytest.mark.parametrize("dump", [pickle, cloudpickle])
def test_pickles(plain, frame, dump):
    untrained = dump.loads(dump.dumps(plain))
    assert untrained.get_params() == plain.get_params() and not untrained.labels
    numbers = frame["label"].map(LABELS.index)
    locator = plain.fit(frame, numbers)
    again = dump.loads(dump.dumps(locator))
    assert np.array_equal(again.predict_proba(frame), locator.predict_proba(frame), equal_nan=True)
    assert again.classes_.tolist() == [0, 1, 2] and again.get_params() == locator.get_params()
    assert again.training == locator.training or again.training.data == locator.training.data


def test_a_pickle_reads_tables_as_before(frame, tiny):
    other = frame[["text", "label"]].rename(columns={"text": "zz"}).assign(text="x")
    tiny()  # registers the encoder
    locator = SemanticLocator("tiny", method="linear-probe", columns={"text": "zz"}, root="here")
    again = pickle.loads(pickle.dumps(locator.fit(other)))
    assert (again.columns, again.root) == ({"text": "zz"}, "here")
    probabilities = again.predict_proba(other), locator.predict_proba(other)
    assert np.array_equal(*probabilities, equal_nan=True)


@pytest.mark.parametrize("ask", ["fit", "score"])
@pytest.mark.parametrize("weights", ["balanced", 2.0, [["a"]], [-1.0], [np.nan], [0.0]])
def test_weights_that_are_none(plain, frame, ask, weights):
    whole = weights * len(frame) if isinstance(weights, list) else weights
    locator = plain.fit(frame)
    with pytest.raises(SgmftError, match="sample_weight"):
        getattr(locator, ask)(frame, sample_weight=whole)


def test_a_pickle_in_another_process(trained, tmp_path):
    joblib.dump(SemanticLocator.from_pretrained(trained), tmp_path / "model.joblib")
    code = "import joblib, sys; print(*joblib.load(sys.argv[1]).predict(['在家睡觉', '去上课']))"
    command = [sys.executable, "-c", code, tmp_path / "model.joblib"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = SemanticLocator.from_pretrained(trained)
    assert done.stdout.split() == [*loaded.predict(["在家睡觉", "去上课"])]


def test_a_clone_of_a_saved_model_learns_as_it_did(tiny, small_posts, tmp_path):
    locator = tiny({"epochs": 2}, val_size=0.2, seed=5).fit(small_posts)
    locator.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    again = clone(loaded)
    assert not again.labels and again.preset == locator.preset
    found = again.fit(small_posts).predict_proba(small_posts)
    assert np.array_equal(found, locator.predict_proba(small_posts))
