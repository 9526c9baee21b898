"""The default network: what it computes and learns, what it does not read, and how it is kept."""

import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
from numpy.random import RandomState
from reference_pools import gated, numbers, product

from sgmft.errors import SgmftError
from sgmft.features.features import Batch, LabelledFeatures, parts_of
from sgmft.models.arrays import cross_entropy, softmax
from sgmft.models.experts import DenseExpert, NgramExpert
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, fit_network
from synthetic_features import INFO, make_features

METHOD = get_method("gated-experts")

K, DT, DV = 3, 6, 5
FLOOR = np.log(1e-4)
assert_close = partial(np.testing.assert_allclose, rtol=1.3e-6, atol=1e-5)  # but for float32
SETTINGS = [{}, {"gate": "constant"}, {"power": 0.0}, {"joint": False}, {"lexical": False}]
variants = pytest.mark.parametrize("settings", SETTINGS, ids=str)


@pytest.fixture(scope="module", autouse=True)
def _fewer_penalties():
    """Less to search through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenseExpert, "penalties", (3.0, 0.3, 0.1))
        patch.setattr(NgramExpert, "penalties", (1e-3, 1e-4))
        yield


def made(n=120, seed=0, missing=True, text=True, image=True):
    """Posts whose label shows either in the text or in the image, and a few n-grams.

    With `missing`, every tenth has no text, every tenth no image, every twentieth none of both;
    `text` and `image` False leave that modality out everywhere.
    """
    rng, centres = np.random.default_rng(seed), np.random.default_rng(99)
    labels = rng.integers(0, K, n)
    by_text = rng.random(n) < 0.5
    pooled = []
    for width, good in ((DT, by_text), (DV, ~by_text)):
        centre = 3 * centres.standard_normal((K, width))[labels]
        x = centre * good[:, None] + rng.standard_normal((n, width)) + 1
        pooled.append(x.astype(np.float32))
    has_text, has_image = np.ones((2, n), bool)
    if missing:
        has_text[3::10], has_image[6::10] = False, False
        has_text[9::20], has_image[9::20] = False, False
    has_text &= text
    has_image &= image
    grams = rng.integers(0, 30, (n, 4))
    grams[:, 0] = 100 + labels * by_text + K * ~by_text
    grams[rng.random((n, 4)) < 0.2] = -1
    grams = np.where(has_text[:, None], grams, -1).astype(np.int32)
    masked = pooled[0] * has_text[:, None], pooled[1] * has_image[:, None]
    return Batch(*masked, has_text, has_image, ngrams=grams), labels


def solve(batch, labels, classes=K, **settings):
    """The network and its log-probabilities of held-out posts."""
    network = GatedExperts(GatedExpertsConfig(classes, DT, DV, **settings))
    by_parts = network.fit(batch, labels, RandomState(0))
    return network, by_parts[parts_of(batch.has_text, batch.has_image), np.arange(len(labels))]


def solved(*given, **settings):
    return solve(*given, **settings)[0]


def logits(network, batch):
    return network.predict(batch).logits


def probabilities(network, batch):
    return softmax(logits(network, batch))


def accuracy(network, batch, labels):
    return (logits(network, batch).argmax(-1) == labels).mean()


def rows(batch, chosen):
    return Batch._make(None if x is None else x[chosen] for x in batch)


def only(batch, text, image):
    """The same posts with one modality, or none."""
    has = batch.has_text & text, batch.has_image & image
    return batch._replace(has_text=has[0], has_image=has[1])


@pytest.fixture(scope="module")
def network():
    return solved(*made())


# --- what is computed


@variants
def test_experts_are_pooled_by_the_formulae(settings):
    network, (new, _) = solved(*made(), **settings), made(30, seed=1)
    prior = network.prior.astype(float)
    inputs = {
        "text": new.text,
        "image": new.image,
        "lexical": new.ngrams,
        "joint": np.concatenate([new.text, new.image], -1),
    }
    e = {
        name: np.maximum(getattr(network, name).forward(x), FLOOR) - prior
        for name, x in inputs.items()
        if getattr(network, name) is not None
    }
    output = network.forward(new)
    for i in range(30):
        experts = [e[name][i] for name in ("text", "lexical") if name in e]
        text = product(np.exp(network.text_pool.log_weight), experts, prior)
        image = product(np.exp(network.image_pool.log_weight), [e["image"][i]], prior)
        joint = e["joint"][i] if "joint" in e else np.zeros(K)
        evidence = [*(np.maximum(x, FLOOR) - prior for x in (text, image)), joint]
        pooled, gate = gated(numbers(network.pool), *evidence, prior, settings.get("power"))
        has = bool(new.has_text[i]), bool(new.has_image[i])
        expected, gate = {
            (True, True): (pooled, gate),
            (True, False): (text, 1.0),
            (False, True): (image, 0.0),
            (False, False): (prior, 0.0),
        }[has]
        np.testing.assert_allclose(output.logits[i], expected, atol=1e-4)
        np.testing.assert_allclose(output.parts["gate"][i], gate, atol=1e-5)
        doubt = 0 if gate in (0, 1) else -gate * np.log2(gate) - (1 - gate) * np.log2(1 - gate)
        np.testing.assert_allclose(output.guidance.gate[i], doubt, atol=1e-5)
        seen = zip((*has, all(has)), evidence, strict=True)
        fused = np.concatenate([x if there else np.zeros(K) for there, x in seen])
        np.testing.assert_allclose(output.fused[i], fused, atol=1e-4)
    assert np.isnan(output.guidance.elements).all()


def test_a_post_without_modalities_gets_the_class_frequencies(network):
    batch, labels = made()
    frequencies = np.bincount(labels) / len(labels)
    assert_close(np.exp(network.prior), frequencies)
    found = probabilities(network, only(batch, False, False))
    assert_close(found, np.tile(frequencies, (120, 1)))
    assert logits(network, rows(batch, slice(0, 0))).shape == (0, K)


# --- what is learned


def test_two_modalities_are_better_than_one():
    network, (new, labels) = solved(*made(240, missing=False)), made(300, seed=1, missing=False)
    both, text, image = (
        accuracy(network, only(new, *has), labels)
        for has in ((True, True), (True, False), (False, True))
    )
    assert both > 0.85 and 0.5 < max(text, image) < both - 0.15 and min(text, image) > 0.5


def test_a_gate_that_follows_similarity_beats_one_that_does_not():
    data, (new, labels) = made(300, missing=False), made(600, seed=1, missing=False)
    losses, gates = [], []
    for gate in ("similarity", "constant"):
        output = solved(*data, gate=gate, joint=False).forward(new)
        losses.append(cross_entropy(output.logits, labels))
        gates.append(output.parts["gate"])
    assert losses[0] < 0.9 * losses[1]
    assert gates[0].std() > 0.05 and gates[1].std() < 1e-6


def test_n_grams_count_where_they_tell_something():
    (batch, labels), (new, truth) = made(missing=False), made(90, seed=1, missing=False)
    own = 100 + labels[:, None]  # each label has its word
    batch = batch._replace(ngrams=np.where(batch.ngrams < 100, batch.ngrams, own))
    new = new._replace(ngrams=np.concatenate([new.ngrams % 100, 100 + truth[:, None]], 1))
    networks = [solved(batch, labels, lexical=lexical) for lexical in (True, False)]
    assert [network.uses_ngrams for network in networks] == [True, False]
    right = [accuracy(network, only(new, True, False), truth) for network in networks]
    assert right[0] > right[1] + 0.1


def test_predictions_for_training_posts_come_from_experts_that_had_not_seen_them():
    batch, labels = made(300, missing=False)
    noise = np.random.default_rng(5).integers(0, K, 300)
    frequencies = np.bincount(noise) / 300
    chance = -(frequencies * np.log(frequencies)).sum()
    assert cross_entropy(solve(batch, noise)[1], noise) > chance - 0.03
    network, held_out = solve(batch, labels)
    assert held_out.shape == (300, K)
    loss = cross_entropy(held_out, labels)
    assert cross_entropy(logits(network, batch), labels) < loss < chance - 0.3


def test_the_order_of_the_posts_does_not_matter(monkeypatch):
    batch, labels = made(60)
    order = np.random.default_rng(2).permutation(60)
    new, found = made(40, seed=1)[0], []
    monkeypatch.setattr("sgmft.models.logistic.GAP", 1e-14)
    for chosen in (np.arange(60), order):
        fold = chosen % 5
        monkeypatch.setattr("sgmft.models.gated_experts.draw_folds", lambda *_, fold=fold: fold)
        found.append(probabilities(solved(rows(batch, chosen), labels[chosen]), new))
    np.testing.assert_allclose(*found, atol=0.01, rtol=0)


# --- what is not read


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("settings", "value"), [({}, 1e6), ({}, np.nan), ({"joint": False}, np.nan)], ids=str
)
def test_what_stands_in_for_a_missing_modality_is_never_read(settings, value):
    batch, labels = made()
    dirty = batch._replace(
        text=np.where(batch.has_text[:, None], batch.text, np.float32(value)),
        image=np.where(batch.has_image[:, None], batch.image, np.float32(value)),
        ngrams=np.where(batch.has_text[:, None], batch.ngrams, 100 + labels[:, None]),
    )
    expected, network = (solved(b, labels, **settings) for b in (batch, dirty))
    for name, x in expected.state_dict().items():
        assert np.array_equal(network.state_dict()[name], x), name
    clean, other = expected.forward(batch), network.forward(dirty)
    assert np.array_equal(other.logits, clean.logits)
    assert np.array_equal(other.fused, clean.fused)
    assert np.array_equal(other.parts["gate"], clean.parts["gate"])
    assert np.isfinite(other.logits).all() and np.isfinite(other.guidance.gate).all()


def test_a_post_with_one_modality_is_told_apart_by_that_one_alone(network):
    new, _ = made(60, seed=1, missing=False)
    strange = new._replace(text=new.text[::-1], ngrams=new.ngrams[::-1])
    same = (logits(network, only(b, False, True)) for b in (new, strange))
    assert_close(*same)
    strange = new._replace(image=new.image[::-1])
    same = (logits(network, only(b, True, False)) for b in (new, strange))
    assert_close(*same)
    assert not np.allclose(logits(network, new), logits(network, strange), atol=0.1)


# --- training posts that lack something


@pytest.mark.parametrize("lacking", ["image", "text"])
@pytest.mark.parametrize("settings", [{}, {"joint": False}], ids=str)
def test_training_posts_without_one_modality(settings, lacking):
    batch, labels = made(**{lacking: False})
    network = solved(batch, labels, **settings)
    assert lacking == "image" or network.config.vocabulary_size == 0
    there = batch.has_text if lacking == "image" else batch.has_image
    assert accuracy(network, rows(batch, there), labels[there]) > 0.6
    new, _ = made(60, seed=1, missing=False)  # with both, of one of which nothing is known
    known, unknown = (
        probabilities(network, only(new, has, not has))
        for has in (lacking == "image", lacking == "text")
    )
    assert_close(probabilities(network, new), known)
    assert_close(unknown, np.tile(unknown[:1], (60, 1)))
    values = json.loads(json.dumps(asdict(network.config)))
    again = GatedExperts(METHOD.load_config(values))
    again.load_state_dict(network.state_dict())
    assert np.array_equal(logits(again, new), logits(network, new))


def test_training_posts_with_either_a_text_or_an_image():
    batch, labels = made(missing=False)
    batch.has_text[::2] = False
    batch.has_image[1::2] = False
    network, (new, truth) = solved(batch, labels), made(100, seed=1, missing=False)
    both, text, image = (
        cross_entropy(logits(network, only(new, *has)), truth)
        for has in ((True, True), (True, False), (False, True))
    )
    assert both < min(text, image)


@pytest.mark.parametrize("lexical", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_with_a_post_or_two_everything_stays_finite(count, lexical):
    batch, _ = made(count, missing=False)
    batch = batch._replace(ngrams=np.tile([[1, 2]], (count, 1)))
    network = solved(batch, np.arange(count) % K, lexical=lexical)
    assert np.isfinite(logits(network, made(30, seed=1)[0])).all()


@pytest.mark.parametrize("each", [1, 2, 5])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_few_posts_of_each_class_teach_what_is_plain(each, classes):
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((classes, DT + DV))

    def plain(count):
        labels = np.tile(np.arange(classes), count)
        x = centres[labels] + 0.5 * rng.standard_normal((len(labels), DT + DV))
        there = np.ones(len(labels), bool)
        words = np.stack([100 + labels, 100 + labels, 0 * labels], 1)
        return Batch(x[:, :DT], x[:, DT:], there, there, ngrams=words), labels

    network, (new, truth) = solved(*plain(each)), plain(20)
    for has in ((True, True), (True, False), (False, True)):
        assert accuracy(network, only(new, *has), truth) > 0.9


def test_a_class_without_training_posts_is_not_predicted():
    batch, labels = made()
    seen = labels != 1
    network = solved(rows(batch, seen), labels[seen])
    assert probabilities(network, batch)[:, 1].max() < 0.05
    network = solved(batch, np.full_like(labels, 1))
    assert (probabilities(network, batch)[:, 1] > 0.99).all()


def test_a_class_that_only_one_fold_has():
    batch, labels = made(60)
    labels[labels == 2] = 0
    labels[5] = 2
    network, held_out = solve(batch, labels)
    assert np.isfinite(held_out).all() and np.isfinite(logits(network, batch)).all()
    right = held_out.argmax(-1) == labels
    assert right[np.arange(60) != 5].mean() > 0.6


def test_texts_that_share_no_n_gram():
    batch, labels = made(30, missing=False)
    batch = batch._replace(ngrams=np.arange(30)[:, None])
    network = solved(batch, labels)
    assert network.config.vocabulary_size == 0
    assert accuracy(network, batch, labels) > 0.6


# --- settings


def test_features_without_n_grams_are_refused(network):
    batch, labels = made()
    bare = batch._replace(ngrams=None)
    data = make_features(12)
    old = LabelledFeatures(replace(data.features, ngrams=None), data.labels)
    for call in (
        lambda: network.forward(bare),
        lambda: solved(bare, labels),
        lambda: fit_network(TrainingTask(old, 3, INFO, METHOD, METHOD.preset()), []),
    ):
        with pytest.raises(SgmftError, match=r"n-grams.*encode the posts again"):
            call()
    assert np.isfinite(logits(solved(bare, labels, lexical=False), bare)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"folds": 1}, "folds must be at least 2, not 1"),
        ({"gate": "softmax"}, "gate='softmax' is not known: use similarity or constant"),
        ({"power": -0.5}, "power must be 'learned' or at least 0, not -0.5"),
        ({"power": float("nan")}, "power must be 'learned' or at least 0, not nan"),
        ({"text_width": 0}, "text_width must be at least 1"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(SgmftError, match=message):
        GatedExpertsConfig(**{"classes": K, "text_width": DT, "image_width": DV, **wrong})


def test_settings_by_name():
    typed = {"gate": "constant", "joint": "false", "lexical": "True", "folds": "3", "power": "0.5"}
    preset = METHOD.preset("default", {**typed, "seed": "4"})
    given = {"gate": "constant", "joint": False, "lexical": True, "folds": 3, "power": 0.5}
    assert preset.model == given and preset.train.seed == 4
    assert {*METHOD.setting_kinds()} == {*given}
    for key in ("epochs", "vocabulary_size", "heads", "strength"):
        with pytest.raises(SgmftError, match=rf"no setting '{key}': use gate, power, joint"):
            METHOD.preset("default", {key: "3"})
    for key, value in (("gate", "softmax"), ("joint", "maybe"), ("folds", "many"), ("folds", "1")):
        with pytest.raises(SgmftError, match=key):
            METHOD.preset("default", {key: value})


# --- in the package


def test_fitting_needs_no_held_out_posts_to_tell_how_good_it_is():
    data, preset, epochs = make_features(60, noise=1.5), METHOD.preset(), []
    assert preset.val_size == 0
    choice = fit_network(TrainingTask(data, 3, INFO, METHOD, preset), [], on_epoch=epochs.append)
    (line,) = choice.history
    assert isinstance(choice.model, GatedExperts) and len(epochs) == 1
    assert 0 < line.loss < line.val_loss < np.log(3) and 0.6 < line.val_accuracy <= 1


@variants
def test_a_locator_is_fitted_saved_and_loaded(tiny, small_posts, tmp_path, settings):
    fitted = tiny(settings, preset="default").fit(small_posts)
    assert isinstance(fitted.network, GatedExperts)
    assert fitted.predict(small_posts) == [post.label for post in small_posts]
    assert 0.6 < fitted.training.to_config()["metrics"]["validation accuracy"] <= 1
    fitted.save_pretrained(tmp_path / "model")
    loaded = type(fitted).from_pretrained(tmp_path / "model")
    assert loaded.network.config == fitted.network.config
    known = loaded.network.lexical
    assert loaded.network.config.vocabulary_size == (len(known.vocabulary) if known else 0)
    assert dict(loaded.preset.model) == settings
    assert np.array_equal(loaded.predict_proba(small_posts), fitted.predict_proba(small_posts))
    gates = [prediction.guidance[0] for prediction in loaded.predictions(small_posts)]
    single = [not post.text or not post.images for post in small_posts]
    assert all(gate == 0 for gate, one in zip(gates, single, strict=True) if one)
