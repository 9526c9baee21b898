"""Linear, text-only and image-only probes and late averaging, against scikit-learn itself."""

import math

import numpy as np
import pytest
from numpy.random import RandomState
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Batch, Features, LabelledFeatures, parts_of
from sgmft.models.arrays import cross_entropy, softmax
from sgmft.models.base import predict_logits
from sgmft.models.experts import draw_folds
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, fit_network, validation_metrics

N, K, DT, DV = 60, 4, 7, 5
METHODS = LINEAR, TEXT, IMAGE = [*map(get_method, ("linear-probe", "text-only", "image-only"))]
LATE_AVERAGE = get_method("late-average")
every_probe = pytest.mark.parametrize("method", [*METHODS, LATE_AVERAGE], ids=lambda m: m.name)
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Searches that end at the solution, not near it."""
    monkeypatch.setattr("sgmft.models.logistic.GAP", 1e-14)


def features(n=N, classes=K, seed=0, missing=True):
    """Posts whose sides both tell something of the label; every fifth lacks one of them."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % classes
    text, image = (
        3 * rng.standard_normal((n, len(slope))) + labels[:, None] * slope + 2
        for slope in (np.linspace(-1, 1, DT), np.linspace(2, -1, DV))
    )
    has_text, has_image = np.ones((2, n), bool)
    if missing:
        has_text[3::10] = False
        has_image[1::10] = False
    return Batch(text, image, has_text, has_image), labels


def ngrams(batch, labels, seed):
    """N-grams (N, 9), padded, of which every third is its label's; strange ones without a text."""
    rng = np.random.default_rng(seed)
    own = rng.random((len(labels), 9)) < 1 / 3
    found = np.where(own, 10 * labels[:, None] + rng.integers(0, 4, own.shape), 0)
    found = np.where(own, found, rng.integers(50, 90, own.shape))
    found[:, 5:][rng.random((len(labels), 4)) < 0.5] = -1
    found[~batch.has_text] = 7
    return found.astype(np.int32)


def solved(method, batch, labels, classes=K, **settings):
    network = method.network(method.config(classes, DT, DV, **settings))
    network.fit(batch, labels, RandomState(1))
    return network


def folds(labels, times=1):
    """The folds that `solved` draws, of its first probe or of a later one."""
    rng = RandomState(1)
    return [draw_folds(labels, 5, rng) for _ in range(times)][-1]


def sides(batch):
    """Both sides, zeros where missing, and where each is there."""
    text, image, *has = batch[:4]
    pairs = zip((text, image), has, strict=True)
    return *(np.where(there[:, None], x, 0.0) for x, there in pairs), *has


class Regression:
    """scikit-learn's on standardised features, its penalty chosen by loops over folds.

    What follows after `width` numbers are n-grams, and TF-IDF of them stands beside the features.
    """

    def __init__(self, x, y, fold, width=None):
        self.width = width or x.shape[1]
        losses, said = [], []
        for penalty in PENALTIES:
            held_out = np.zeros((len(y), len(set(y))))
            for f in set(fold.tolist()):
                predict = self._fit(x[fold != f], y[fold != f], penalty)
                held_out[fold == f] = predict(x[fold == f])
            losses.append(-np.mean(np.log(held_out[range(len(y)), y])))
            said.append(held_out)
        best = losses.index(min(losses))
        self.penalty, self.held_out = PENALTIES[best], said[best]
        self.predict = self._fit(x, y, self.penalty)

    def _fit(self, x, y, penalty):
        dense, ngrams = np.split(x, [self.width], 1)
        mean, deviation = dense.mean(0), dense.std(0, ddof=1)
        cut = TfidfVectorizer(analyzer=lambda row: row[row >= 0], sublinear_tf=True, min_df=2)
        if ngrams.size:
            cut.fit(ngrams)

        def rows(x):
            dense, ngrams = np.split(x, [self.width], 1)
            z = (dense - mean) / deviation
            if not ngrams.size:
                return z
            return np.hstack([z, self.width**0.5 * cut.transform(ngrams).toarray()])

        model = LogisticRegression(C=1 / (len(y) * penalty), tol=1e-10, max_iter=5000)
        model.fit(rows(x), y)
        return lambda x: model.predict_proba(rows(x))


def one_side(x, has, train_x, train_has, labels, fold, width=None):
    """Probabilities of scikit-learn where there is a side, class frequencies elsewhere."""
    model = Regression(train_x[train_has], labels[train_has], fold[train_has], width)
    frequencies = np.bincount(labels) / len(labels)
    return np.where(has[:, None], model.predict(x), frequencies)


def probabilities(network, batch):
    return softmax(network.predict(batch).logits)


def as_they_are(network, batch, labels):
    """Logits of posts left out, by what each has."""
    by_parts = network.fit(batch, labels, RandomState(1))
    return by_parts[parts_of(batch.has_text, batch.has_image), np.arange(len(labels))]


@pytest.mark.parametrize("missing", [False, True])
def test_the_linear_probe_is_scikit_learns(missing):
    training, labels = features(missing=missing)
    batch, _ = features(seed=1, missing=missing)
    (t, v, *_), (seen_t, seen_v, *_) = sides(batch), sides(training)
    expected = Regression(np.hstack([seen_t, seen_v]), labels, folds(labels))
    assert PENALTIES[0] > expected.penalty > PENALTIES[-1]  # or the choice would say little
    network = solved(LINEAR, training, labels)
    x = np.hstack([t, v])
    np.testing.assert_allclose(probabilities(network, batch), expected.predict(x), atol=1e-5)
    np.testing.assert_allclose(network.forward(batch).fused, x)
    said = softmax(as_they_are(network, training, labels))  # of posts left out
    np.testing.assert_allclose(said, expected.held_out, atol=1e-5)


@pytest.mark.parametrize("method", [LINEAR, TEXT, LATE_AVERAGE], ids=lambda m: m.name)
def test_n_grams_stand_beside_the_features_as_tf_idf(method):
    training, labels = features()
    training, batch = (
        x._replace(ngrams=ngrams(x, labels, seed))
        for seed, x in enumerate((training, features(seed=1)[0]))
    )
    (t, v, has_t, has_v), (seen_t, seen_v, seen_has_t, seen_has_v) = sides(batch), sides(training)
    grams, seen = (np.where(x.has_text[:, None], x.ngrams, -1) for x in (batch, training))
    network, fold = solved(method, training, labels, lexical=True), folds(labels)
    if method is LINEAR:
        model = Regression(np.hstack([seen_t, seen_v, seen]), labels, fold, DT + DV)
        expected = model.predict(np.hstack([t, v, grams]))
        said = softmax(as_they_are(network, training, labels))
        np.testing.assert_allclose(said, model.held_out, atol=1e-4)
    else:
        rows = np.hstack([t, grams]), has_t, np.hstack([seen_t, seen]), seen_has_t
        expected = one_side(*rows, labels, fold, DT)
    if method is LATE_AVERAGE:
        q = one_side(v, has_v, seen_v, seen_has_v, labels, folds(labels, times=2))
        one = np.where(has_t[:, None], expected, q)
        expected = np.where((has_t & has_v)[:, None], (expected + q) / 2, one)
    np.testing.assert_allclose(probabilities(network, batch), expected, atol=1e-4)
    without = probabilities(solved(method, training, labels), batch)
    assert np.abs(without - expected).max() > 0.2  # n-grams tell something


def test_a_unimodal_probe_is_scikit_learns_on_the_posts_with_its_side():
    training, labels = features()
    labels[3::10] = 0  # so that the class frequencies of posts without text differ
    batch, _ = features(seed=1)
    (t, v, has_t, has_v), (seen_t, seen_v, seen_has_t, seen_has_v) = sides(batch), sides(training)
    for method, x, has, seen, seen_has in (
        (TEXT, t, has_t, seen_t, seen_has_t),
        (IMAGE, v, has_v, seen_v, seen_has_v),
    ):
        network = solved(method, training, labels)
        expected = one_side(x, has, seen, seen_has, labels, folds(labels))
        np.testing.assert_allclose(probabilities(network, batch), expected, atol=1e-5)
        np.testing.assert_allclose(network.forward(batch).fused, x)


def test_the_penalty_follows_what_posts_left_out_say():
    """Labels that features do not tell are best left alone; those that they do are not."""
    training, labels = features(missing=False)
    clear = training._replace(text=training.text + 20 * labels[:, None] * np.linspace(-1, 1, DT))
    shuffled = np.random.default_rng(1).permutation(labels)
    for batch, y, penalty in ((training, shuffled, PENALTIES[0]), (clear, labels, PENALTIES[-1])):
        expected = Regression(batch.text, y, folds(y))
        assert expected.penalty == penalty
        found = probabilities(solved(TEXT, batch, y), batch)
        np.testing.assert_allclose(found, expected.predict(batch.text), atol=1e-5)


def test_late_averaging_is_the_mean_of_the_probabilities():
    training, labels = features()
    batch, _ = features(seed=1)
    (t, v, has_t, has_v), (seen_t, seen_v, seen_has_t, seen_has_v) = sides(batch), sides(training)
    p = one_side(t, has_t, seen_t, seen_has_t, labels, folds(labels))
    q = one_side(v, has_v, seen_v, seen_has_v, labels, folds(labels, times=2))
    expected = [
        (p[i] + q[i]) / 2 if has_t[i] and has_v[i] else (p[i] if has_t[i] else q[i])
        for i in range(N)
    ]
    network = solved(LATE_AVERAGE, training, labels)
    np.testing.assert_allclose(probabilities(network, batch), expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(network.forward(batch).logits).sum(-1), 1, atol=1e-10)
    np.testing.assert_allclose(network.forward(batch).fused, np.hstack([t, v]))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_two_classes(method):
    training, labels = features(classes=2, missing=False)
    network = solved(method, training, labels, classes=2)
    t, v, *_ = sides(training)
    x = {"linear-probe": np.hstack([t, v]), "text-only": t, "image-only": v}[method.name]
    expected = Regression(x, labels, folds(labels)).predict(x)
    np.testing.assert_allclose(probabilities(network, training), expected, atol=1e-5)


@every_probe
@pytest.mark.parametrize("present", [[0, 2, 3], [1, 3]])
def test_a_class_without_training_posts_is_never_predicted(method, present):
    training, labels = features(classes=len(present))
    named = np.array(present)[labels]
    network = solved(method, training, named, classes=K + 1)
    found = probabilities(network, training)
    absent = sorted({*range(K + 1)} - {*present})
    assert found[:, absent].max() < 1e-12
    same = solved(method, training, labels, classes=len(present))
    np.testing.assert_allclose(found[:, present], probabilities(same, training), atol=1e-8)
    logits = network.forward(training).logits
    assert math.isfinite(cross_entropy(logits, named + 1))  # an unseen class's loss


@every_probe
def test_a_class_of_one_post_counts_though_without_it_nobody_knows_the_class(method):
    training, labels = features(missing=False)
    labels = labels % 3
    labels[7] = 3
    network = solved(method, training, labels)
    found = probabilities(network, training)[:, 3]
    assert found[7] > 1 / N and found.max() < 0.5
    if method is not LATE_AVERAGE:
        said = as_they_are(network, training, labels)
        assert np.isfinite(said).all() and softmax(said[7])[3] < 2e-4  # no class is ruled out


@every_probe
def test_one_class_or_no_side_at_all_leaves_the_class_frequencies(method):
    training, labels = features()
    network = solved(method, training, np.full_like(labels, 2))
    np.testing.assert_allclose(probabilities(network, training)[:, 2], 1)
    nothing = np.zeros(N, bool)
    blind = training._replace(has_text=nothing, has_image=nothing)
    if method is TEXT or method is IMAGE:  # posts with the other side only
        blind = training._replace(**{f"has_{method.name.partition('-')[0]}": nothing})
    for batch in (blind, training._replace(has_text=nothing, has_image=nothing)):
        network = solved(method, blind, np.where(labels == 3, 0, labels))
        found = probabilities(network, batch)
        np.testing.assert_allclose(found, [[0.5, 0.25, 0.25, 0]] * N, atol=1e-7)


@every_probe
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_very_few_posts(method, count):
    training, labels = features(n=count, missing=False)
    network = solved(method, training, labels)
    found = probabilities(network, training)
    np.testing.assert_allclose(found[:, sorted(set(labels.tolist()))].sum(1), 1, atol=1e-6)
    assert np.isfinite(network.forward(training).logits).all()


@every_probe
def test_training_is_one_line_of_log_on_all_posts(method):
    batch, labels = features()
    rows = Features(*(x.astype(np.float32) for x in batch[:2]), *batch[2:4])
    data, told = LabelledFeatures(rows, labels), []
    info = EncoderInfo("made-up", "0" * 16, DT, DV, False, None, 8, "light")
    preset = method.preset()
    assert preset.val_size == 0  # what is chosen is chosen inside the training posts
    choice = fit_network(TrainingTask(data, K, info, method, preset), [], on_epoch=told.append)
    assert len(told) == 1 and repr(choice.history) == repr(told)
    (line,) = choice.history
    assert line.accuracy > 1.5 / K
    right = predict_logits(choice.model, rows).logits.argmax(-1) == labels
    assert line.accuracy == pytest.approx(right.mean())
    if method is not LATE_AVERAGE:
        assert line.loss < line.val_loss < math.log(K)  # of posts left out in turn
        logged = {"validation accuracy": line.val_accuracy, "validation loss": line.val_loss}
        assert validation_metrics(choice.selected) == logged
