"""The default network in the package: fitted, saved and loaded, by itself and in a locator."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from gated_experts_posts import SETTINGS, logits, made, solved
from gated_experts_posts import _fewer_penalties as _fewer_penalties
from safetensors.torch import load_model, save_model

from sgmft import SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.encoders.registry import ENCODERS
from sgmft.features.features import Features, LabelledFeatures
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig
from sgmft.models.presets import TrainConfig
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, fit_network
from sgmft.training.trainer import train
from synthetic_features import INFO
from synthetic_features import make_features as easy_posts
from tiny_encoder import TinyEncoder


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("sides", [{}, {"text": False}, {"image": False}], ids=str)
def test_saved_and_loaded_it_says_the_same(settings, sides, tmp_path):
    batch, labels = made(60, **sides)
    network = solved(batch, labels, **settings)
    known = 0 if network.lexical is None else len(network.lexical.vocabulary)
    assert network.config.vocabulary_size == known
    values = json.loads(json.dumps(asdict(network.config)))
    config = get_method("gated-experts").load_config(values)
    assert config == network.config
    save_model(network, str(tmp_path / "m.safetensors"))
    torch.manual_seed(77)
    loaded = GatedExperts(config)
    load_model(loaded, str(tmp_path / "m.safetensors"), strict=True)
    new, _ = made(30, seed=1)
    assert torch.equal(logits(loaded, new), logits(network, new))


def test_fitting_needs_no_held_out_posts_to_tell_how_good_it_is():
    data, method = easy_posts(60, noise=1.5), get_method("gated-experts")
    preset = method.preset()
    assert preset.val_size == 0
    told = []
    choice = fit_network(TrainingTask(data, 3, INFO, method, preset), [], on_epoch=told.append)
    (line,) = choice.history
    assert isinstance(choice.network, GatedExperts) and len(told) == 1
    assert 0 < line.loss < line.val_loss < np.log(3) and 0.6 < line.val_accuracy <= 1


def test_without_n_grams_in_the_features_training_says_what_to_do():
    data = easy_posts(12)
    old = Features(*(getattr(data.features, n) for n in ("text", "image", "has_text", "has_image")))
    network = GatedExperts(GatedExpertsConfig(3, 12, 10))
    with pytest.raises(SgmftError, match="encode the posts again"):
        train(network, LabelledFeatures(old, data.labels), None, TrainConfig())


@pytest.fixture
def locator(monkeypatch):
    monkeypatch.setitem(ENCODERS, "tiny", TinyEncoder)
    return lambda **settings: SemanticLocator("tiny", settings=settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_locator_is_fitted_saved_and_loaded(locator, small_posts, tmp_path, settings):
    fitted = locator(**settings).fit(small_posts)
    assert isinstance(fitted.network, GatedExperts)
    assert fitted.predict(small_posts) == [post.label for post in small_posts]
    assert 0.6 < fitted.record["metrics"]["validation accuracy"] <= 1
    fitted.save_pretrained(tmp_path / "model")
    loaded = SemanticLocator.from_pretrained(tmp_path / "model")
    assert loaded.network.config == fitted.network.config
    assert dict(loaded.preset.model) == settings
    assert np.array_equal(loaded.predict_proba(small_posts), fitted.predict_proba(small_posts))
    gates = [prediction.guidance[0] for prediction in loaded.predictions(small_posts)]
    single = [not post.text or not post.images for post in small_posts]
    assert all(gate == 0 for gate, one in zip(gates, single, strict=True) if one)


def test_a_setting_that_is_not_there(locator):
    with pytest.raises(SgmftError, match="gated-experts has no setting 'width'"):
        locator(width=16)
