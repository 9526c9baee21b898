"""Linear, text-only and image-only probes and late averaging, against scikit-learn itself."""

import json
import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_model, save_model
from sklearn.linear_model import LogisticRegression

from sgmft.baselines.late_average import METHOD as LATE_AVERAGE
from sgmft.baselines.linear_probe import METHODS, ProbeConfig
from sgmft.encoders import EncoderInfo
from sgmft.errors import SgmftError
from sgmft.features import Features
from sgmft.fitting import Task, fit_network
from sgmft.nn.batch import Batch
from sgmft.training import LabelledFeatures, train

N, K, DT, DV = 60, 4, 7, 5
LINEAR, TEXT, IMAGE = METHODS
ALL = (*METHODS, LATE_AVERAGE)
C = 0.05


def features(n=N, classes=K, seed=0, missing=True):
    """Posts whose sides both tell something of the label; every fifth lacks one of them."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    text, image = (
        3 * torch.randn(n, width, generator=dice, dtype=torch.float64) + labels[:, None] * slope + 2
        for width, slope in ((DT, torch.linspace(-1, 1, DT)), (DV, torch.linspace(2, -1, DV)))
    )
    has_text, has_image = torch.ones(2, n, dtype=torch.bool)
    if missing:
        has_text[3::10] = False
        has_image[1::10] = False
    return Batch(text, image, has_text, has_image), labels


def solved(method, batch, labels, classes=K, strength=C):
    network = method.network(method.config(classes, DT, DV, strength=strength)).double()
    network.prepare(batch.text[batch.has_text], batch.image[batch.has_image], None, None)
    network.solve(batch, labels)
    return network.eval()


def standardised(x, has, train_x, train_has):
    """Training mean and deviation (n - 1 in the denominator), zeros where missing."""
    seen = train_x[train_has].numpy()
    scaled = (x.numpy() - seen.mean(0)) / seen.std(0, ddof=1)
    return np.where(has.numpy()[:, None], scaled, 0.0)


def regression(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=C, max_iter=500).fit(x, y)


def sides(batch, training):
    return (
        standardised(batch.text, batch.has_text, training.text, training.has_text),
        standardised(batch.image, batch.has_image, training.image, training.has_image),
    )


def one_side(x, has, train_x, train_has, train_labels):
    """Probabilities of scikit-learn where there is a side, class frequencies elsewhere."""
    model = regression(train_x[train_has.numpy()], train_labels[train_has].numpy())
    frequencies = np.bincount(train_labels.numpy()) / len(train_labels)
    return np.where(has.numpy()[:, None], model.predict_proba(x), frequencies)


def probabilities(network, batch):
    with torch.no_grad():
        return network(batch).logits.softmax(-1).numpy()


@pytest.mark.parametrize("missing", [False, True])
def test_the_linear_probe_is_scikit_learns(missing):
    training, labels = features(missing=missing)
    batch, _ = features(seed=1, missing=missing)
    x, seen = np.hstack(sides(batch, training)), np.hstack(sides(training, training))
    network = solved(LINEAR, training, labels)
    expected = regression(seen, labels.numpy()).predict_proba(x)
    np.testing.assert_allclose(probabilities(network, batch), expected, atol=1e-5)
    np.testing.assert_allclose(network(batch).fused.numpy(), x, atol=1e-10)


def test_a_unimodal_probe_is_scikit_learns_on_the_posts_with_its_side():
    training, labels = features()
    labels[3::10] = 0  # so that the class frequencies of posts without text differ
    batch, _ = features(seed=1)
    (t, v), (seen_t, seen_v) = sides(batch, training), sides(training, training)
    for method, x, has, seen, seen_has in (
        (TEXT, t, batch.has_text, seen_t, training.has_text),
        (IMAGE, v, batch.has_image, seen_v, training.has_image),
    ):
        network = solved(method, training, labels)
        expected = one_side(x, has, seen, seen_has, labels)
        np.testing.assert_allclose(probabilities(network, batch), expected, atol=1e-5)
        np.testing.assert_allclose(network(batch).fused.numpy(), x, atol=1e-10)


def test_late_averaging_is_the_mean_of_the_probabilities():
    training, labels = features()
    batch, _ = features(seed=1)
    (t, v), (seen_t, seen_v) = sides(batch, training), sides(training, training)
    p = one_side(t, batch.has_text, seen_t, training.has_text, labels)
    q = one_side(v, batch.has_image, seen_v, training.has_image, labels)
    expected = [
        (p[i] + q[i]) / 2
        if batch.has_text[i] and batch.has_image[i]
        else (p[i] if batch.has_text[i] else q[i])
        for i in range(N)
    ]
    network = solved(LATE_AVERAGE, training, labels)
    np.testing.assert_allclose(probabilities(network, batch), expected, atol=1e-5)
    np.testing.assert_allclose(network(batch).logits.exp().sum(-1).detach(), 1, atol=1e-10)
    np.testing.assert_allclose(network(batch).fused.numpy(), np.hstack([t, v]), atol=1e-10)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_two_classes(method):
    training, labels = features(classes=2, missing=False)
    network = solved(method, training, labels, classes=2)
    t, v = sides(training, training)
    x = {"linear-probe": np.hstack([t, v]), "text-only": t, "image-only": v}[method.name]
    expected = regression(x, labels.numpy()).predict_proba(x)
    np.testing.assert_allclose(probabilities(network, training), expected, atol=1e-5)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("present", [[0, 2, 3], [1, 3]])
def test_a_class_without_training_posts_is_never_predicted(method, present):
    training, labels = features(classes=len(present))
    named = torch.tensor(present)[labels]
    network = solved(method, training, named, classes=K + 1)
    found = probabilities(network, training)
    absent = sorted({*range(K + 1)} - {*present})
    assert found[:, absent].max() < 1e-12
    same = solved(method, training, labels, classes=len(present))
    np.testing.assert_allclose(found[:, present], probabilities(same, training), atol=1e-8)
    logits = network(training).logits
    assert torch.nn.functional.cross_entropy(logits, named + 1).isfinite()  # an unseen class's loss


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_one_class_or_no_side_at_all_leaves_the_class_frequencies(method):
    training, labels = features()
    network = solved(method, training, torch.full_like(labels, 2))
    np.testing.assert_allclose(probabilities(network, training)[:, 2], 1)
    if method is TEXT or method is IMAGE:
        blind = training._replace(
            **{"has_text" if method is TEXT else "has_image": torch.zeros(N).bool()}
        )
        network = solved(method, blind, torch.where(labels == 3, 0, labels))
        np.testing.assert_allclose(
            probabilities(network, blind), [[0.5, 0.25, 0.25, 0]] * N, atol=1e-7
        )


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_what_stands_under_a_missing_side_is_never_read(method, value):
    training, labels = features()
    dirty = training._replace(text=training.text.clone(), image=training.image.clone())
    dirty.text[~dirty.has_text] = value
    dirty.image[~dirty.has_image] = value
    expected = solved(method, training, labels)
    network = solved(method, dirty, labels)
    for name, x in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], x), name
    assert torch.equal(network(dirty).logits, expected(training).logits)
    assert torch.equal(network(dirty).fused, expected(training).fused)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_saved_and_loaded_it_says_the_same(method, tmp_path):
    training, labels = features()
    network = solved(method, training, labels)
    config = method.load_config(json.loads(json.dumps(asdict(network.config))))
    assert config == network.config
    loaded = method.network(config).double()
    save_model(network, str(tmp_path / "m.safetensors"))
    load_model(loaded, str(tmp_path / "m.safetensors"), strict=True)
    assert torch.equal(loaded(training).logits, network(training).logits)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_less_strength_is_less_weight(method):
    training, labels = features()
    sizes = [
        sum(
            float(p.detach().square().sum())
            for name, p in solved(method, training, labels, strength=c).named_parameters()
            if name.endswith("weight")
        )
        for c in (1e-4, 1e-2, 1.0)
    ]
    assert sizes[0] < 0.1 * sizes[1] < 0.1 * sizes[2]


def labelled(**options):
    batch, labels = features(**options)
    rows = Features(batch.text.float(), batch.image.float(), batch.has_text, batch.has_image)
    return LabelledFeatures(rows, labels)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_training_is_one_epoch_and_refitting_sees_all_posts(method):
    data = labelled()
    info = EncoderInfo("made-up", "0" * 16, DT, DV, False, None, 8, "light")
    preset = method.preset(None, {"strength": C})
    assert (preset.val_size, preset.refit) == (0.1, True)
    task = Task(data, K, info, method, preset)
    told = []
    held_out = list(range(0, N, 10))
    choice = fit_network(task, held_out, on_epoch=told.append)
    assert [epoch.epoch for epoch in choice.history] == [1]
    assert np.isfinite(choice.history[0].val_loss)
    network = task.network(data.features)
    history = train(network, data, None, preset.train)
    assert len(history) == 1 and np.isnan(history[0].val_loss)
    assert history[0].accuracy > 1.2 / K
    for name, x in network.state_dict().items():
        assert torch.equal(choice.network.state_dict()[name], x), name
    seen = data.take(torch.arange(N) % 10 != 0)
    part = task.network(seen.features)
    train(part, seen, None, preset.train)
    changed = [
        not torch.equal(x, choice.network.state_dict()[name])
        for name, x in part.state_dict().items()
        if name.endswith(("weight", "mean"))
    ]
    assert changed and all(changed)


def test_methods_name_what_is_tuned():
    names = ["linear-probe", "text-only", "image-only", "late-average"]
    assert [method.name for method in ALL] == names
    for method in ALL:
        assert method.tuned == "strength"
        assert method.preset(None, {"strength": "3e-2"}).model == {"strength": 0.03}
        assert method.config(2, 1, 1).strength == 1e-3


@pytest.mark.parametrize("strength", [0, -1, float("inf"), float("nan")])
def test_strength_must_be_positive(strength):
    with pytest.raises(SgmftError, match="strength must be positive"):
        ProbeConfig(2, 3, 3, strength=strength)


def test_no_warning_where_the_solver_stops_early(monkeypatch):
    monkeypatch.setattr("sgmft.baselines.logistic.MAX_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved(LINEAR, *features())
