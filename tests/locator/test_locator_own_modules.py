"""Methods and fusion modules of the user's own: learned, saved and loaded as those."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from sgmft import SemanticLocator
from sgmft.errors import SgmftError
from sgmft.models.base import BimodalNetwork, NetworkConfig, Output
from sgmft.models.fusions import FUSIONS
from sgmft.models.method import Method
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import METHODS
from small_posts import LABELS, saved_config


@dataclass(frozen=True)
class LinearConfig(NetworkConfig):
    width: int = 4
    shape: tuple[int, ...] = (1,)

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))


class Linear(BimodalNetwork):
    """Pooled features added: a method that a user might bring."""

    def __init__(self, config):
        super().__init__(config, config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, batch):
        fused = torch.stack(self.pooled_inputs(batch)).sum(0)
        return Output(self.head(fused), fused)


@pytest.fixture
def linear(monkeypatch):
    """The method "linear", with two presets and a setting that JSON turns into a list."""
    train = TrainConfig(epochs=30, learning_rate=3e-2)
    presets = {
        "narrow": Preset("narrow", {"width": 4}, train),
        "wide": Preset("wide", {"width": 8, "shape": (2, 3)}, train),
    }
    method = Method(
        "linear", "A line", "by hand", network=Linear, config=LinearConfig, presets=presets
    )
    monkeypatch.setitem(METHODS, "linear", method)
    return method


@pytest.mark.parametrize("preset", [None, "wide"])
def test_another_method_is_learned_saved_and_loaded_as_that(
    tiny, linear, small_posts, tmp_path, preset, monkeypatch
):
    locator = SemanticLocator("tiny", method="linear", preset=preset).fit(small_posts)
    found = locator.predict_proba(small_posts)
    assert [LABELS[k] for k in found.argmax(1)] == [post.label for post in small_posts]
    assert all(math.isnan(x) for x in next(locator.predictions(small_posts)).guidance)
    locator.save_pretrained(tmp_path)
    config = saved_config(tmp_path)
    assert (config["method"], config["preset"]) == ("linear", preset or "narrow")
    assert "Method: A line (by hand)" in (tmp_path / "README.md").read_text("utf-8")
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.method is linear and type(loaded.network) is Linear
    assert loaded.preset == locator.preset and loaded.network.config == locator.network.config
    assert np.array_equal(loaded.predict_proba(small_posts), found)
    assert np.array_equal(loaded.fit(small_posts).predict_proba(small_posts), found)
    monkeypatch.delitem(METHODS, "linear")
    with pytest.raises(SgmftError, match="no method 'linear': use gated-experts"):
        SemanticLocator.from_pretrained(tmp_path)


class Largest(nn.Module):
    """A user's fusion module: the largest value of each number over all words and regions."""

    def __init__(self, width, heads, layers):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(layers, width))

    def forward(self, text, image, text_mask, image_mask):
        tokens, mask = torch.cat([text, image], 1), torch.cat([text_mask, image_mask], 1)
        return tokens.masked_fill(~mask[..., None], -torch.inf).amax(1) * self.gain.sum(0)


def test_a_fusion_module_of_the_users_own(tiny, small_posts, tmp_path, monkeypatch):
    monkeypatch.setitem(FUSIONS, "mine", Largest)
    settings = {"fusion": "mine", "fusion_layers": 3, "epochs": 15, "dropout": 0.0}
    locator = tiny(settings, preset="tokens", val_size=0.0).fit(small_posts)
    fusion = locator.network.fusion
    assert isinstance(fusion, Largest) and fusion.gain.shape == (3, 16)
    assert not torch.equal(fusion.gain, torch.ones(3, 16))  # it has learned
    found = locator.predict_proba(small_posts)
    right = [LABELS[k] == post.label for k, post in zip(found.argmax(1), small_posts, strict=True)]
    assert np.mean(right) > 0.9
    locator.save_pretrained(tmp_path)
    assert saved_config(tmp_path)["model"]["fusion"] == "mine"
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert isinstance(loaded.network.fusion, Largest)
    assert np.array_equal(loaded.predict_proba(small_posts), found)
    monkeypatch.delitem(FUSIONS, "mine")
    with pytest.raises(SgmftError, match=r"no fusion module 'mine': use sfm, .* register your own"):
        SemanticLocator.from_pretrained(tmp_path)
    with pytest.raises(SgmftError, match="no fusion module 'mine'"):
        tiny(settings, preset="tokens").fit(small_posts)
