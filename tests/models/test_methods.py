"""Methods by name: their presets, their encoder, their configs, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest

from sgmft import SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.encoders.base import Encoded
from sgmft.models.base import Network, NetworkConfig
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig
from sgmft.models.method import BUDGET, Method
from sgmft.models.presets import Preset
from sgmft.models.registry import METHODS, find_method, get_method
from sgmft.models.sgmft import PRESETS, SGMFT, SGMFTConfig

SMALL = SGMFTConfig(classes=3, text_width=12, image_width=10, width=16, heads=2)


@dataclass(frozen=True)
class Settings(NetworkConfig):
    """One setting of a user's, and two that are not for users."""

    rank: int = 4
    view: str = "elements"
    initial_temperature: float = 1.0
    vocabulary_size: int = 1


def method(**changes: Any) -> Method:
    made = Method("mine", "Mine", "nowhere", network=Network, config=Settings)
    return replace(made, **changes)


# --- by name


def test_every_method_is_asked_for_by_its_own_name():
    assert list(METHODS)[:2] == ["gated-experts", "sgmft"]
    assert (METHODS["gated-experts"].network, METHODS["sgmft"].network) == (GatedExperts, SGMFT)
    for name, found in METHODS.items():
        assert found.name == name and get_method(name) is found
        assert found.title and found.source
        assert found.preset() == next(iter(found.presets.values()))


def test_an_unknown_method_names_those_there_are(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", method())
    with pytest.raises(SgmftError, match=r"no method 'sgmtf': use gated-experts, sgmft, .*mine"):
        get_method("sgmtf")
    with pytest.raises(SgmftError, match=r"no method 'sgmtf': use gated-experts, sgmft, .*mine"):
        SemanticLocator(method="sgmtf")
    assert SemanticLocator(method="mine").method.title == "Mine"


# --- presets


def test_the_first_preset_is_the_default():
    assert list(get_method("sgmft").presets) == ["tokens", "elements", "paper"]
    assert get_method("sgmft").preset() == PRESETS["tokens"]
    assert get_method("sgmft").preset("paper") == PRESETS["paper"]
    presets = {name: Preset(name) for name in ("b", "a")}
    assert method(presets=presets).preset().name == "b"
    assert method(presets=presets).preset("a").name == "a"


def test_without_presets_of_its_own_a_method_is_trained_within_the_common_budget():
    preset = method().preset()
    assert (preset.train, preset.val_size, preset.refit) == (BUDGET, 0.1, True)
    assert preset.model == {}


def test_an_unknown_preset_names_those_of_the_method():
    told = "no preset 'papr' of sgmft: use tokens, elements, paper"
    with pytest.raises(SgmftError, match=told):
        get_method("sgmft").preset("papr")
    with pytest.raises(SgmftError, match="no preset 'tokens' of mine: use default"):
        method().preset("tokens")


def test_settings_are_those_of_the_methods_config():
    preset = method().preset(None, {"rank": "8", "epochs": "2"})
    assert preset.model == {"rank": 8} and preset.train == replace(BUDGET, epochs=2)
    assert method().setting_kinds() == {"rank": int, "view": str}
    fixed = ("classes", "shared_space", "word_width", "initial_temperature", "vocabulary_size")
    for name in ("heads", *fixed):
        with pytest.raises(SgmftError, match=f"no setting '{name}': use one of .*rank"):
            method().preset(None, {name: 2})


# --- the default, and the paper's network


@pytest.mark.parametrize(
    ("name", "preset", "expected"),
    [
        (None, None, ("gated-experts", "default")),
        (None, "default", ("gated-experts", "default")),
        ("gated-experts", "default", ("gated-experts", "default")),
        ("sgmft", None, ("sgmft", "tokens")),
        *((None, preset, ("sgmft", preset)) for preset in PRESETS),
        ("sgmft", "paper", ("sgmft", "paper")),
        ("linear-probe", "default", ("linear-probe", "default")),
    ],
)
def test_without_a_method_the_preset_names_it(name, preset, expected):
    locator = SemanticLocator(method=name, preset=preset)
    assert (locator.method.name, locator.preset.name) == expected
    assert find_method(name, preset) is locator.method


def test_titles_tell_the_default_from_the_papers_network():
    assert get_method("gated-experts").title_with("default").startswith("Similarity-gated experts")
    assert get_method("sgmft").title_with("paper") == "SG-MFT (arXiv 2405.05760), preset paper"


@pytest.mark.parametrize(
    ("name", "preset", "message"),
    [
        ("sgmft", "default", "'default' of sgmft is a method of its own: use --method gated-exp"),
        ("sgmft", "papr", "no preset 'papr' of sgmft: use tokens, elements, paper"),
        ("gated-experts", "paper", "no preset 'paper' of gated-experts: use default"),
        (None, "best", "no preset 'best': use tokens, elements, paper, which are of sgmft"),
    ],
)
def test_presets_that_are_not_there(name, preset, message):
    with pytest.raises(SgmftError, match=message):
        SemanticLocator(method=name, preset=preset)


def test_a_method_that_is_solved_at_once_has_no_settings_of_training():
    with pytest.raises(SgmftError, match="linear-probe has no setting 'epochs': it has none"):
        SemanticLocator(method="linear-probe", settings={"epochs": 3})
    with pytest.raises(SgmftError, match="zero-shot has no setting 'epochs': use scale_factor"):
        SemanticLocator(method="zero-shot", settings={"epochs": 3})
    with pytest.raises(SgmftError, match="gated-experts has no setting 'epochs': use gate, po"):
        SemanticLocator(settings={"epochs": 3})
    for name in ("linear-probe", "zero-shot", "gated-experts"):
        assert SemanticLocator(method=name, seed=7).preset.train.seed == 7


@pytest.mark.parametrize(
    ("preset", "settings", "told"),
    [
        ("default", {"folds": 1}, "folds must be at least 2, not 1"),
        ("default", {"gate": "softmax"}, "expected similarity or constant"),
        ("elements", {"gate": "similarity"}, "expected softmax or sigmoid"),
        ("elements", {"heads": 0}, "heads must be at least 1"),
    ],
)
def test_values_that_its_network_refuses_are_refused_before_any_post_is_read(
    preset, settings, told
):
    with pytest.raises(SgmftError, match=told):
        SemanticLocator(preset=preset, settings=settings)


# --- the encoder


def test_the_encoder_of_a_method():
    assert method().pick_encoder(None) == "compact"
    assert method().pick_encoder("chinese-clip-base") == "chinese-clip-base"
    own = method(encoder="cnn")
    assert own.pick_encoder(None) == own.pick_encoder("cnn") == "cnn"
    with pytest.raises(SgmftError, match="works on the encoder 'cnn' only: leave 'compact' out"):
        own.pick_encoder("compact")


def test_words_as_numbers_of_a_vocabulary_are_refused_where_they_cannot_be_read(monkeypatch):
    for name in ("sgmft", "mine"):
        monkeypatch.setitem(METHODS, "mine", method())
        with pytest.raises(SgmftError, match=f"'cnn' gives words as numbers .* which {name} canno"):
            SemanticLocator("cnn", method=name)
    monkeypatch.setitem(METHODS, "mine", method(encoder="cnn"))
    for encoder in (None, "cnn"):
        assert SemanticLocator(encoder, method="mine").encoder_settings["name"] == "cnn"


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (method(), False),
        (method(tokens=True), True),
        (method(presets={"t": Preset("t", {"view": "tokens"})}), True),
        (method(presets={"e": Preset("e", {"view": "elements"})}), False),
    ],
    ids=["pooled", "tokens", "tokens view", "elements view"],
)
def test_token_features_are_asked_for_where_they_are_needed(monkeypatch, asked, needed):
    monkeypatch.setitem(METHODS, "mine", asked)
    assert asked.uses_tokens(asked.preset()) is needed
    assert SemanticLocator(method="mine").uses_tokens is needed


# --- label prompts


class Lengths:
    """An encoder that gives (length of the text, 10); it remembers the texts."""

    def encode_texts(self, texts: list[str], tokens: bool) -> Encoded:
        self.texts = texts
        assert not tokens
        return Encoded(np.array([[len(text), 10] for text in texts], np.float32), None)


def test_labels_as_texts_are_means_of_their_prompts_unit_vectors():
    encoder = Lengths()
    asked = method(prompts=("at {}", "a photo of {}"))
    found = asked.encode_prompts(["Home", "shopping_center"], encoder)
    assert list(encoder.texts) == [
        "at Home",
        "a photo of Home",
        "at shopping center",
        "a photo of shopping center",
    ]
    for row, lengths in zip(found.tolist(), ((7, 15), (18, 26)), strict=True):
        units = [(n / math.hypot(n, 10), 10 / math.hypot(n, 10)) for n in lengths]
        assert row == pytest.approx([sum(x) / 2 for x in zip(*units, strict=True)])
    assert method().encode_prompts(["Home"], encoder) is None


# --- configs of saved networks


def test_a_config_survives_json():
    config = replace(SMALL, view="tokens", temperature="learned", fusion="sum")
    values = json.loads(json.dumps(asdict(config)))
    assert isinstance(values["classifier_widths"], list)
    assert get_method("sgmft").load_config(values) == config
    own = GatedExpertsConfig(3, 12, 10, word_width=5, gate="constant", vocabulary_size=40)
    assert get_method("gated-experts").load_config(json.loads(json.dumps(asdict(own)))) == own
    assert method().load_config(asdict(Settings(2, 3, 4, rank=5))) == Settings(2, 3, 4, rank=5)


@pytest.mark.parametrize("old", ["sfm", "shape"])
def test_settings_that_are_not_known_are_refused(old):
    with pytest.raises(SgmftError, match=f"settings colour, {old} are not known here"):
        get_method("sgmft").load_config({**vars(SMALL), old: True, "colour": 2})


def test_a_config_belongs_to_its_network():
    with pytest.raises(SgmftError, match=r"settings .*folds.* are not known here"):
        get_method("sgmft").load_config(asdict(GatedExpertsConfig(3, 12, 10)))
    with pytest.raises(SgmftError, match=r"settings .*fusion.* are not known here"):
        get_method("gated-experts").load_config(asdict(SMALL))
