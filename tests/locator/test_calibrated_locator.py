"""A locator's probabilities after temperature scaling: fitted, saved, and only scaled."""

import json

import numpy as np
import pytest

from sgmft import SemanticLocator
from sgmft.evaluation.calibration import rescale_probabilities


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "late-average"}, {"preset": "elements", "settings": {"epochs": 2}}],
    ids=str,
)
def test_fit_finds_a_temperature_that_only_scales(fitted, small_posts, options):
    locator = fitted(**options)
    temperature = locator.temperature
    assert temperature != 1 and 0.05 <= temperature <= 20
    assert locator.record["calibration"] == {"temperature": temperature}
    scaled, labels = locator.predict_proba(small_posts), locator.predict(small_posts)
    locator.training.temperature = 1.0
    raw = locator.predict_proba(small_posts)
    np.testing.assert_allclose(
        rescale_probabilities(raw.astype(float), temperature), scaled, atol=1e-5
    )
    assert locator.predict(small_posts) == labels


def test_without_held_out_posts_probabilities_are_the_networks(fitted):
    assert fitted(preset="paper", settings={"epochs": 1}).temperature == 1
    assert fitted(method="text-only", settings={}).temperature != 1  # held out in turn


def test_a_saved_model_keeps_its_temperature(fitted, small_posts, tmp_path):
    locator = fitted(method="late-average")
    locator.save_pretrained(tmp_path)
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.temperature == locator.temperature
    assert np.array_equal(loaded.predict_proba(small_posts), locator.predict_proba(small_posts))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["sgmft"]["digest"]
    del config["sgmft"]["calibration"]  # of a model saved before there was one
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert SemanticLocator.from_pretrained(tmp_path).temperature == 1
