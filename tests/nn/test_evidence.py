"""The default network: what it learns from two sides, and what it must not read."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from opinions import gated, numbers, product
from safetensors.torch import load_model, save_model
from torch.nn.functional import cross_entropy

from conftest import TinyEncoder
from made_up import INFO
from made_up import posts as easy_posts
from sgmft import SemanticLocator
from sgmft.encoders import ENCODERS
from sgmft.errors import SgmftError
from sgmft.features import Features
from sgmft.fitting import Task, fit_network
from sgmft.methods import get_method
from sgmft.nn import Batch
from sgmft.nn.evidence import EvidenceConfig, EvidenceNetwork
from sgmft.nn.experts import DenseExpert, LexicalExpert
from sgmft.presets import TrainConfig
from sgmft.training import LabelledFeatures, train

K, DT, DV = 3, 6, 5
SETTINGS = [{}, {"gate": "constant"}, {"power": 0.0}, {"joint": False}, {"lexical": False}]
FLOOR = np.log(1e-4)


@pytest.fixture(scope="module", autouse=True)
def _fewer_penalties():
    """Less to search through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenseExpert, "penalties", (3.0, 0.3, 0.1))
        patch.setattr(LexicalExpert, "penalties", (1e-3, 1e-4))
        yield


def made(n=120, seed=0, missing=True, **sides):
    """Posts whose label shows either in the text or in the picture, and a few n-grams.

    With `missing`, every tenth has no text, every tenth no picture, every twentieth none of both;
    `text` and `image` False leave that side out everywhere.
    """
    dice = torch.Generator().manual_seed(seed)
    centres = torch.Generator().manual_seed(99)
    labels = torch.randint(0, K, (n,), generator=dice)
    by_text = torch.rand(n, generator=dice) < 0.5
    pooled = []
    for width, good in ((DT, by_text), (DV, ~by_text)):
        centre = 3 * torch.randn(K, width, generator=centres)[labels]
        pooled.append(centre * good[:, None] + torch.randn(n, width, generator=dice) + 1)
    has_text, has_image = torch.ones(2, n, dtype=torch.bool)
    if missing:
        has_text[3::10], has_image[6::10] = False, False
        has_text[9::20], has_image[9::20] = False, False
    has_text &= sides.get("text", True)
    has_image &= sides.get("image", True)
    grams = torch.randint(0, 30, (n, 4), generator=dice)
    grams[:, 0] = 100 + labels * by_text + K * ~by_text
    grams[torch.rand(n, 4, generator=dice) < 0.2] = -1
    grams = torch.where(has_text[:, None], grams, -1).int()
    text, image = pooled[0] * has_text[:, None], pooled[1] * has_image[:, None]
    return Batch(text, image, has_text, has_image, ngrams=grams), labels


def solved(batch, labels, classes=K, **settings):
    torch.manual_seed(0)
    network = EvidenceNetwork(EvidenceConfig(classes, DT, DV, **settings))
    network.solve(batch, labels)
    return network.eval()


@torch.no_grad()
def logits(network, batch):
    return network(batch).logits


def probabilities(network, batch):
    return logits(network, batch).softmax(-1)


def rows(batch, chosen):
    return Batch._make(None if x is None else x[chosen] for x in batch)


def only(batch, text, image):
    """The same posts with one side, or none."""
    has = batch.has_text & text, batch.has_image & image
    return batch._replace(has_text=has[0], has_image=has[1])


@pytest.fixture(scope="module")
def network():
    return solved(*made())


# --- what is computed


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_experts_are_pooled_by_the_formulae(settings):
    batch, labels = made()
    network = solved(batch, labels, **settings)
    new, _ = made(30, seed=1)
    with torch.no_grad():
        both = torch.cat([new.text, new.image], -1)
        prior = network.prior.double().numpy()
        e = {
            name: kind(x).double().clamp(min=FLOOR).numpy() - prior
            for name, kind, x in (
                ("text", network.text, new.text),
                ("image", network.image, new.image),
                ("lexical", network.lexical, new.ngrams),
                ("joint", network.joint, both),
            )
            if kind is not None
        }
        output = network(new)
    for i in range(30):
        said = [e[name][i] for name in ("text", "lexical") if name in e]
        text = product(network.text_pool.log_weight.exp().tolist(), said, prior)
        image = product(network.image_pool.log_weight.exp().tolist(), [e["image"][i]], prior)
        joint = e["joint"][i] if "joint" in e else np.zeros(K)
        sides = [*(np.maximum(x, FLOOR) - prior for x in (text, image)), joint]
        pooled, gate = gated(numbers(network.pool), *sides, prior, settings.get("power"))
        has = bool(new.has_text[i]), bool(new.has_image[i])
        expected, gate = {
            (True, True): (pooled, gate),
            (True, False): (text, 1.0),
            (False, True): (image, 0.0),
            (False, False): (network.prior.tolist(), 0.0),
        }[has]
        np.testing.assert_allclose(output.logits[i], expected, atol=1e-4)
        np.testing.assert_allclose(output.parts["gate"][i], gate, atol=1e-5)
        doubt = 0 if gate in (0, 1) else -gate * np.log2(gate) - (1 - gate) * np.log2(1 - gate)
        np.testing.assert_allclose(output.guidance.gate[i], doubt, atol=1e-5)
        seen = zip((*has, all(has)), sides, strict=True)
        fused = np.concatenate([x if there else np.zeros(K) for there, x in seen])
        np.testing.assert_allclose(output.fused[i], fused, atol=1e-4)
    assert output.guidance.elements.isnan().all()


def test_the_prior_are_the_logarithms_of_the_class_frequencies(network):
    _, labels = made()
    expected = torch.bincount(labels) / len(labels)
    torch.testing.assert_close(network.prior.exp(), expected)


# --- what is learned


def test_two_sides_are_better_than_one():
    batch, labels = made(240, missing=False)
    new, truth = made(300, seed=1, missing=False)
    network = solved(batch, labels)
    right = {
        sides: float((logits(network, only(new, *sides)).argmax(-1) == truth).float().mean())
        for sides in ((True, True), (True, False), (False, True))
    }
    assert right[True, True] > 0.85
    assert max(right[True, False], right[False, True]) < right[True, True] - 0.15
    assert min(right.values()) > 0.5


def test_a_gate_that_follows_similarity_beats_one_that_does_not():
    batch, labels = made(300, missing=False)
    new, truth = made(600, seed=1, missing=False)
    losses, gates = [], []
    for gate in ("similarity", "constant"):
        network = solved(batch, labels, gate=gate, joint=False)
        with torch.no_grad():
            output = network(new)
        losses.append(float(cross_entropy(output.logits, truth)))
        gates.append(output.parts["gate"])
    assert losses[0] < 0.9 * losses[1]
    assert gates[0].std() > 0.05 and gates[1].std() < 1e-6


def test_n_grams_count_where_they_say_something():
    batch, labels = made(missing=False)
    told = 100 + labels[:, None].int()  # each label has its word
    batch = batch._replace(ngrams=torch.where(batch.ngrams < 100, batch.ngrams, told))
    new, truth = made(90, seed=1, missing=False)
    new = new._replace(ngrams=torch.cat([new.ngrams % 100, 100 + truth[:, None].int()], 1))
    right = []
    for lexical in (True, False):
        network = solved(batch, labels, lexical=lexical)
        assert network.reads_ngrams is lexical
        found = logits(network, only(new, True, False)).argmax(-1)
        right.append(float((found == truth).float().mean()))
    assert right[0] > right[1] + 0.1


def test_what_it_says_of_training_posts_comes_from_experts_that_had_not_seen_them():
    batch, labels = made(300, missing=False)
    noise = torch.randint(0, K, (300,), generator=torch.Generator().manual_seed(5))
    frequencies = torch.bincount(noise) / 300
    chance = -(frequencies * frequencies.log()).sum()
    for y, learned in ((noise, False), (labels, True)):
        torch.manual_seed(0)
        network = EvidenceNetwork(EvidenceConfig(K, DT, DV))
        held_out = cross_entropy(said := network.solve(batch, y), y)
        assert said.shape == (300, K)
        if learned:
            assert cross_entropy(logits(network, batch), y) < held_out < chance - 0.3
        else:
            assert held_out > chance - 0.03


def test_the_order_of_the_posts_does_not_matter(monkeypatch):
    batch, labels = made()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(2))
    fold = torch.arange(120) % 5
    new, _ = made(40, seed=1)
    monkeypatch.setattr("sgmft.nn.logistic.TOLERANCE", 1e-7)
    found = []
    for chosen in (torch.arange(120), order):
        folds = fold[chosen]
        monkeypatch.setattr("sgmft.nn.evidence.draw_folds", lambda *_, folds=folds: folds)
        found.append(probabilities(solved(rows(batch, chosen), labels[chosen]), new))
    torch.testing.assert_close(*found, atol=0.01, rtol=0)


def test_the_seed_decides_all(network):
    batch, labels = made()
    assert torch.equal(logits(solved(batch, labels), batch), logits(network, batch))


# --- what is not read


@pytest.mark.parametrize(
    ("settings", "value"), [({}, 1e6), ({}, torch.nan), ({"joint": False}, torch.nan)], ids=str
)
def test_what_stands_in_for_a_missing_side_is_never_read(settings, value):
    batch, labels = made()
    dirty = batch._replace(text=batch.text.clone(), image=batch.image.clone())
    dirty.text[~dirty.has_text] = value
    dirty.image[~dirty.has_image] = value
    dirty = dirty._replace(
        ngrams=torch.where(dirty.has_text[:, None], dirty.ngrams, 100 + labels[:, None].int())
    )
    expected, network = (solved(b, labels, **settings) for b in (batch, dirty))
    for name, x in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], x), name
    clean, other = expected(batch), network(dirty)
    assert torch.equal(other.logits, clean.logits)
    assert torch.equal(other.fused, clean.fused)
    assert torch.equal(other.parts["gate"], clean.parts["gate"])
    assert other.logits.isfinite().all() and other.guidance.gate.isfinite().all()


def test_a_post_without_sides_gets_the_class_frequencies(network):
    batch, labels = made()
    expected = (torch.bincount(labels) / 120).expand(120, -1)
    torch.testing.assert_close(probabilities(network, only(batch, False, False)), expected)


def test_a_post_with_one_side_is_told_apart_by_that_side_alone(network):
    new, _ = made(60, seed=1, missing=False)
    strange = new._replace(text=new.text.flip(0), ngrams=new.ngrams.flip(0))
    same = (logits(network, only(b, False, True)) for b in (new, strange))
    torch.testing.assert_close(*same)
    strange = new._replace(image=new.image.flip(0))
    same = (logits(network, only(b, True, False)) for b in (new, strange))
    torch.testing.assert_close(*same)
    assert not torch.allclose(logits(network, new), logits(network, strange), atol=0.1)


def test_neither_padding_nor_other_posts_matter(network):
    new, _ = made(30, seed=1)
    expected = logits(network, new)
    fill = torch.full((30, 7), -1).int()
    padded = new._replace(ngrams=torch.cat([fill, new.ngrams, fill], 1))
    torch.testing.assert_close(logits(network, padded), expected)
    alone = torch.cat([logits(network, rows(new, slice(i, i + 1))) for i in range(30)])
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_no_posts_at_all_are_answered_too(network):
    assert logits(network, rows(made()[0], slice(0, 0))).shape == (0, K)


# --- training posts that lack something


@pytest.mark.parametrize("settings", [{}, {"joint": False}], ids=str)
def test_training_posts_without_pictures(settings):
    batch, labels = made(image=False)
    network = solved(batch, labels, **settings)
    right = logits(network, batch).argmax(-1) == labels
    assert right[batch.has_text].float().mean() > 0.6
    new, _ = made(60, seed=1, missing=False)  # with pictures, of which nothing is known
    text = probabilities(network, only(new, True, False))
    torch.testing.assert_close(probabilities(network, new), text)
    pictures = probabilities(network, only(new, False, True))
    torch.testing.assert_close(pictures, pictures[:1].expand(60, -1))


@pytest.mark.parametrize("settings", [{}, {"joint": False}], ids=str)
def test_training_posts_without_texts(settings):
    batch, labels = made(text=False)
    network = solved(batch, labels, **settings)
    assert network.config.vocabulary_size == 0
    right = logits(network, batch).argmax(-1) == labels
    assert right[batch.has_image].float().mean() > 0.6
    new, _ = made(60, seed=1, missing=False)
    image = probabilities(network, only(new, False, True))
    torch.testing.assert_close(probabilities(network, new), image)
    texts = probabilities(network, only(new, True, False))
    torch.testing.assert_close(texts, texts[:1].expand(60, -1))


def test_training_posts_with_either_a_text_or_a_picture():
    batch, labels = made(missing=False)
    batch.has_text[::2] = False
    batch.has_image[1::2] = False
    network = solved(batch, labels)
    new, truth = made(100, seed=1, missing=False)
    loss = cross_entropy(logits(network, new), truth)
    assert all(
        loss < cross_entropy(logits(network, only(new, *one)), truth)
        for one in ((True, False), (False, True))
    )


@pytest.mark.parametrize("lexical", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_of_a_post_or_two_everything_stays_finite(count, lexical):
    batch, _ = made(count, missing=False)
    batch = batch._replace(ngrams=torch.tensor([[1, 2]]).expand(count, -1).int())
    network = solved(batch, torch.arange(count) % K, lexical=lexical)
    new, _ = made(30, seed=1)
    assert logits(network, new).isfinite().all()


@pytest.mark.parametrize("each", [1, 2, 5])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_few_posts_of_each_class_teach_what_is_plain(each, classes):
    dice = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(classes, DT + DV, generator=dice)

    def plain(count):
        labels = torch.arange(classes).repeat(count)
        x = centres[labels] + 0.5 * torch.randn(len(labels), DT + DV, generator=dice)
        there = torch.ones(len(labels), dtype=torch.bool)
        words = torch.stack([100 + labels, 100 + labels, 0 * labels], 1).int()
        return Batch(x[:, :DT], x[:, DT:], there, there, ngrams=words), labels

    network, (new, truth) = solved(*plain(each)), plain(20)
    for sides in ((True, True), (True, False), (False, True)):
        assert (logits(network, only(new, *sides)).argmax(-1) == truth).float().mean() > 0.9


def test_a_class_without_training_posts_is_not_predicted():
    batch, labels = made()
    seen = labels != 1
    network = solved(rows(batch, seen), labels[seen])
    assert probabilities(network, batch)[:, 1].max() < 0.05


def test_training_posts_of_one_class_only():
    batch, labels = made()
    network = solved(batch, torch.full_like(labels, 1))
    assert (probabilities(network, batch)[:, 1] > 0.99).all()


def test_a_class_that_only_one_fold_has():
    batch, labels = made(60)
    labels[labels == 2] = 0
    labels[5] = 2
    torch.manual_seed(0)
    network = EvidenceNetwork(EvidenceConfig(K, DT, DV))
    held_out = network.solve(batch, labels)
    assert held_out.isfinite().all() and logits(network, batch).isfinite().all()
    right = held_out.argmax(-1) == labels
    assert right[torch.arange(60) != 5].float().mean() > 0.6


def test_texts_that_share_no_n_gram():
    batch, labels = made(30, missing=False)
    batch = batch._replace(ngrams=torch.arange(30).int()[:, None])
    network = solved(batch, labels)
    assert network.config.vocabulary_size == 0
    assert (logits(network, batch).argmax(-1) == labels).float().mean() > 0.6


# --- settings


def test_features_without_n_grams_are_refused(network):
    batch, labels = made()
    bare = batch._replace(ngrams=None)
    for call in (lambda: network(bare), lambda: solved(bare, labels)):
        with pytest.raises(SgmftError, match=r"n-grams.*encode the posts again"):
            call()
    assert logits(solved(bare, labels, lexical=False), bare).isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"folds": 1}, "folds must be at least 2, not 1"),
        ({"folds": 0}, "folds must be at least 1, not 0"),
        ({"gate": "softmax"}, "gate='softmax' is not known: use similarity or constant"),
        ({"power": -0.5}, "power must be 'learned' or at least 0, not -0.5"),
        ({"power": float("nan")}, "power must be 'learned' or at least 0, not nan"),
        ({"text_width": 0}, "text_width must be at least 1"),
    ],
)
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(SgmftError, match=told):
        EvidenceConfig(**{"classes": K, "text_width": DT, "image_width": DV, **wrong})


def test_settings_by_name():
    method = get_method("sgmft")
    assert next(iter(method.presets)) == "default"
    assert method.architecture("default") == (EvidenceNetwork, EvidenceConfig)
    typed = {"gate": "constant", "joint": "false", "lexical": "False", "folds": "3", "power": "0.5"}
    preset = method.preset("default", {**typed, "seed": "4"})
    given = {"gate": "constant", "joint": False, "lexical": False, "folds": 3, "power": 0.5}
    assert preset.model == given
    assert preset.train.seed == 4
    assert {*method.setting_kinds("default")} == {"gate", "power", "joint", "lexical", "folds"}
    for key in ("epochs", "vocabulary_size", "heads", "strength"):
        with pytest.raises(SgmftError, match=rf"no setting '{key}': use gate, power, joint"):
            method.preset("default", {key: "3"})
    for key, value in (("gate", "softmax"), ("joint", "maybe"), ("folds", "many"), ("folds", "1")):
        with pytest.raises(SgmftError, match=key):
            method.preset("default", {key: value})


# --- in the package


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("sides", [{}, {"text": False}, {"image": False}], ids=str)
def test_saved_and_loaded_it_says_the_same(settings, sides, tmp_path):
    batch, labels = made(60, **sides)
    network = solved(batch, labels, **settings)
    known = 0 if network.lexical is None else len(network.lexical.vocabulary)
    assert network.config.vocabulary_size == known
    values = json.loads(json.dumps(asdict(network.config)))
    config = get_method("sgmft").load_config("default", values)
    assert config == network.config
    save_model(network, str(tmp_path / "m.safetensors"))
    torch.manual_seed(77)
    loaded = EvidenceNetwork(config)
    load_model(loaded, str(tmp_path / "m.safetensors"), strict=True)
    new, _ = made(30, seed=1)
    assert torch.equal(logits(loaded, new), logits(network, new))


def test_fitting_needs_no_held_out_posts_to_tell_how_good_it_is():
    data, method = easy_posts(60, noise=1.5), get_method("sgmft")
    preset = method.preset("default")
    assert preset.val_size == 0
    told = []
    network, history, _ = fit_network(Task(data, 3, INFO, method, preset), [], on_epoch=told.append)
    (line,) = history
    assert isinstance(network, EvidenceNetwork) and len(told) == 1
    assert 0 < line.loss < line.val_loss < np.log(3) and 0.6 < line.val_accuracy <= 1


def test_without_n_grams_in_the_features_training_says_what_to_do():
    data = easy_posts(12)
    old = Features(*(getattr(data.features, n) for n in ("text", "image", "has_text", "has_image")))
    network = EvidenceNetwork(EvidenceConfig(3, 12, 10))
    with pytest.raises(SgmftError, match="encode the posts again"):
        train(network, LabelledFeatures(old, data.labels), None, TrainConfig())


@pytest.fixture
def locator(monkeypatch):
    monkeypatch.setitem(ENCODERS, "tiny", TinyEncoder)
    return lambda **settings: SemanticLocator("tiny", settings=settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_locator_is_fitted_saved_and_loaded(locator, toy_posts, tmp_path, settings):
    fitted = locator(**settings).fit(toy_posts)
    assert isinstance(fitted.network, EvidenceNetwork)
    assert fitted.predict(toy_posts) == [post.label for post in toy_posts]
    assert 0.6 < fitted.record["metrics"]["validation accuracy"] <= 1
    fitted.save_pretrained(tmp_path / "model")
    loaded = SemanticLocator.from_pretrained(tmp_path / "model")
    assert loaded.network.config == fitted.network.config
    assert dict(loaded.preset.model) == settings
    assert np.array_equal(loaded.predict_proba(toy_posts), fitted.predict_proba(toy_posts))
    gates = [prediction.guidance[0] for prediction in loaded.predictions(toy_posts)]
    single = [not post.text or not post.images for post in toy_posts]
    assert all(gate == 0 for gate, one in zip(gates, single, strict=True) if one)


def test_a_setting_that_is_not_there(locator):
    with pytest.raises(SgmftError, match="preset 'default' of sgmft has no setting 'width'"):
        locator(width=16)
