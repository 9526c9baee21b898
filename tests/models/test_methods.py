"""Methods by name: their presets and settings, their encoder, their configs, what is refused."""

import json
import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import torch

from sgmft import SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.encoders.base import Encoded, EncoderInfo, PostFeatures
from sgmft.features.features import Features, LabelledFeatures
from sgmft.models.base import NetworkConfig
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig
from sgmft.models.method import BUDGET, Method
from sgmft.models.network import Network
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import METHODS, find_method, get_method
from sgmft.models.sgmft import SGMFT, SGMFTConfig
from sgmft.training.fit import TrainingTask
from synthetic_features import make_features

SMALL = SGMFTConfig(classes=3, text_width=12, image_width=10, width=16, heads=2)
WIDTHS = {"classes": 7, "text_width": 24, "image_width": 40}
PAPER, EXPERTS = get_method("sgmft"), get_method("gated-experts")
PRESETS = PAPER.presets


@dataclass(frozen=True)
class Settings(NetworkConfig):
    """One setting of a user's, and two that are not for users."""

    rank: int = 4
    view: str = "elements"
    initial_temperature: float = 1.0
    vocabulary_size: int = 1


def method(**changes) -> Method:
    made = Method("mine", "Mine", "nowhere", network=Network, config=Settings)
    return replace(made, **changes)


def config_of(preset: Preset) -> SGMFTConfig:
    return SGMFTConfig(**WIDTHS, **preset.model)


# --- by name


def test_every_method_goes_by_its_own_name():
    assert list(METHODS)[:2] == ["gated-experts", "sgmft"]
    assert (EXPERTS.network, PAPER.network) == (GatedExperts, SGMFT)
    for name, found in METHODS.items():
        assert found.name == name and get_method(name) is found
        assert found.title and found.source
        assert found.preset() == next(iter(found.presets.values()))
    assert EXPERTS.title_with(EXPERTS.preset()).startswith("Similarity-gated experts")
    assert PAPER.title_with(PRESETS["paper"]) == "SG-MFT (arXiv 2405.05760), preset paper"
    taught = PAPER.preset("tokens", {"teacher": "linear-probe"})
    assert PAPER.title_with(taught).endswith("preset tokens, taught by linear-probe")


def test_an_unknown_method_names_those_there_are(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", method())
    for ask in (get_method, lambda name: SemanticLocator(method=name)):
        message = r"no method 'sgmtf': use gated-experts, sgmft, .*mine"
        with pytest.raises(SgmftError, match=message):
            ask("sgmtf")
    assert SemanticLocator(method="mine").method.title == "Mine"


# --- presets


def test_the_first_preset_is_the_default():
    assert list(PRESETS) == ["tokens", "elements", "paper", "distilled"]
    assert all(preset.name == name for name, preset in PRESETS.items())
    assert PAPER.preset() == PRESETS["tokens"] and PRESETS["tokens"].model["view"] == "tokens"
    taught = replace(PRESETS["tokens"].train, teacher="gated-experts")
    assert PRESETS["distilled"] == replace(PRESETS["tokens"], name="distilled", train=taught)
    own = method(presets={name: Preset(name) for name in ("b", "a")})
    assert (own.preset().name, own.preset("a").name) == ("b", "a")


def test_without_presets_of_its_own_a_method_is_trained_within_the_common_budget():
    preset = method().preset()
    assert (preset.train, preset.val_size, preset.refit) == (BUDGET, 0.1, True)
    assert preset.model == {}


def test_paper_preset_is_the_papers_section_4_3():
    paper = PRESETS["paper"]
    config, train = config_of(paper), paper.train
    assert (train.learning_rate, train.beta1, train.beta2) == (1e-5, 0.9, 0.99)
    assert (train.weight_decay, train.batch_size, train.epochs) == (0, 20, 30)
    assert (train.schedule, train.label_smoothing, train.class_weights) == ("none", 0, False)
    assert (train.patience, paper.val_size, paper.refit) == (0, 0, False)
    assert (config.view, config.element_width, config.heads) == ("elements", 1, 8)
    assert (config.gate, config.temperature, config.guided) == ("softmax", 1, "text")
    assert (config.sim, config.fusion, config.scale) == (True, "sfm", "none")
    assert (config.fusion_layers, config.hidden_ratio) == (2, 4)
    assert len(config.classifier_widths) + 1 == 5  # "five fully connected layers"


def test_the_default_chooses_inside_the_training_posts():
    default = EXPERTS.preset()
    assert default.val_size == 0 and default.model == {} and default.cleaning == "light"


@pytest.mark.parametrize("name", PRESETS)
def test_every_trained_preset_builds_a_model_that_learns(name):
    config = SGMFTConfig(3, 12, 10, **PAPER.preset(name, {"width": "16"}).model)
    model, data = SGMFT(config), make_features(3)
    output = model(data.features.batch(np.arange(3)).to("cpu"))
    assert output.logits.shape == (3, 3) and output.logits.isfinite().all()
    labels = torch.from_numpy(data.labels)
    model.loss(output, labels, torch.nn.functional.cross_entropy).backward()
    assert any(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("logit_scale", [None, 100.0])
@pytest.mark.parametrize("name", PRESETS)
def test_guidance_begins_neither_flat_nor_one_hot(name, logit_scale):
    info = EncoderInfo("x", "0" * 16, 64, 96, False, logit_scale, 8, "light")
    draw = np.random.default_rng(0).standard_normal
    shapes = ((64,), (6, 64), (1, 96), (4, 96))
    posts = [PostFeatures(*(draw(s, np.float32) for s in shapes)) for _ in range(12)]
    data = LabelledFeatures(Features.of(posts, info, tokens=True), np.arange(12) % 3)
    preset = PAPER.preset(name, {"width": 64})
    network = TrainingTask(data, 3, info, PAPER, preset).model(data.features)
    guidance = network.predict(data.features.batch()).guidance
    assert 0.3 < guidance.elements.mean() < 0.99 or name == "paper"
    assert guidance.gate.mean() > 0.3


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


@pytest.mark.parametrize(
    ("name", "preset", "message"),
    [
        ("sgmft", "default", "'default' of sgmft is a method of its own: use --method gated-exp"),
        (
            "sgmft",
            "papr",
            "sgmft has no preset 'papr': use tokens, elements, paper, distilled. Did you",
        ),
        ("gated-experts", "paper", "gated-experts has no preset 'paper': use default"),
        (
            None,
            "best",
            "no preset 'best': use tokens, elements, paper, distilled, which are of sgmft",
        ),
    ],
)
def test_presets_that_are_not_there(name, preset, message):
    with pytest.raises(SgmftError, match=message):
        SemanticLocator(method=name, preset=preset)


# --- settings


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "3e-4", 3e-4),
        ("weight_decay", "0", 0.0),
        ("class_weights", "true", True),
        ("class_weights", "False", False),
        ("schedule", "cosine", "cosine"),
        ("heads", "4", 4),
        ("dropout", "0.25", 0.25),
        ("sim", "false", False),
        ("gate", "softmax", "softmax"),
        ("view", "tokens", "tokens"),
        ("temperature", "2.5", 2.5),
        ("temperature", "learned", "learned"),
        ("fusion", "sum", "sum"),
        ("classifier_widths", "64,32", (64, 32)),
        ("classifier_widths", "64", (64,)),
        ("classifier_widths", "", ()),
    ],
)
def test_settings_from_text(name, text, value):
    preset = PAPER.preset("elements", {name: text})
    found = getattr(preset.train, name) if hasattr(TrainConfig, name) else preset.model[name]
    assert found == value and type(found) is type(value)
    assert hasattr(TrainConfig, name) or getattr(config_of(preset), name) == value


def test_settings_change_nothing_else():
    elements = PRESETS["elements"]
    before = asdict(elements.train), dict(elements.model)
    changed = PAPER.preset("elements", {"epochs": 99, "heads": 2, "classifier_widths": [8]})
    assert (asdict(elements.train), dict(elements.model)) == before
    assert asdict(changed.train) == before[0] | {"epochs": 99}
    assert changed.model == before[1] | {"heads": 2, "classifier_widths": [8]}
    assert changed.val_size == elements.val_size
    assert PAPER.preset("paper") == PRESETS["paper"]


def test_settings_are_those_of_the_methods_config():
    preset = method().preset(None, {"rank": "8", "epochs": "2"})
    assert preset.model == {"rank": 8} and preset.train == replace(BUDGET, epochs=2)
    assert method().setting_kinds() == {"rank": int, "view": str}
    for name in ("heads", "vocabulary_size"):
        with pytest.raises(SgmftError, match=f"no setting '{name}': use .*rank"):
            method().preset(None, {name: 2})


@pytest.mark.parametrize("name", ["epoch", "", "classes", "sfm", "folds"])
def test_an_unknown_setting_names_those_there_are(name):
    with pytest.raises(SgmftError, match=f"no setting '{name}': use") as caught:
        PAPER.preset("elements", {name: "1"})
    names = set(str(caught.value).partition(": use ")[2].partition(".")[0].split(", "))
    assert {"epochs", "learning_rate", "heads", "temperature", "seed"} <= names
    fixed = {"text_width", "word_width", "image_width", "shared_space", "initial_temperature"}
    assert not {"classes", *fixed} & names
    assert all(hasattr(TrainConfig, known) or hasattr(SGMFTConfig, known) for known in names)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("epochs", "3.5", "a whole number"),
        ("epochs", "many", "a whole number"),
        ("learning_rate", "small", "a number"),
        ("class_weights", "1", "true or false"),
        ("gate", "hard", "softmax or sigmoid"),
        ("schedule", "linear", "none or cosine"),
        ("temperature", "warm", "a number or learned"),
        ("classifier_widths", "64,x", "whole numbers separated by commas"),
    ],
)
def test_a_value_of_the_wrong_kind_tells_what_was_expected(name, text, expected):
    with pytest.raises(SgmftError, match=f"--set {name}={text}: expected {expected}"):
        PAPER.preset("elements", {name: text})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "0"),
        ("batch_size", "-1"),
        ("learning_rate", "0"),
        ("learning_rate", "nan"),
        ("label_smoothing", "1"),
        ("modality_dropout", "1"),
        ("patience", "-1"),
        ("weight_decay", "-0.1"),
        ("beta1", "1"),
        ("schedule", ["linear"]),
        ("width", "9"),
    ],
)
def test_a_value_out_of_range_is_refused_before_any_post_is_read(name, value):
    with pytest.raises(SgmftError, match=name):
        SemanticLocator(preset="elements", settings={name: value})


def test_a_method_that_is_solved_at_once_has_no_settings_of_training():
    for name, expected in (
        ("linear-probe", "use lexical"),
        ("zero-shot", "use scale_factor"),
        ("gated-experts", "use gate, po"),
    ):
        with pytest.raises(SgmftError, match=f"{name} has no setting 'epochs': {expected}"):
            SemanticLocator(method=name, settings={"epochs": 3})
        assert SemanticLocator(method=name, seed=7).preset.train.seed == 7


# --- the encoder


def test_the_encoder_of_a_method(monkeypatch):
    assert method().pick_encoder(None) == "compact"
    assert method().pick_encoder("chinese-clip-base") == "chinese-clip-base"
    own = method(encoder="cnn")
    with pytest.raises(SgmftError, match="works on the encoder 'cnn' only: leave 'compact' out"):
        own.pick_encoder("compact")
    monkeypatch.setitem(METHODS, "mine", own)
    for encoder in (None, "cnn"):
        assert SemanticLocator(encoder, method="mine").encoder_settings["name"] == "cnn"


def test_words_as_numbers_of_a_vocabulary_are_refused_where_they_cannot_be_read(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", method())
    for name in ("sgmft", "mine"):
        with pytest.raises(SgmftError, match=f"'cnn' gives words as numbers .* which {name} canno"):
            SemanticLocator("cnn", method=name)


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


class Lengths:
    """An encoder that gives (length of the text, 10); it remembers the texts."""

    def encode_texts(self, texts, tokens):
        self.texts = list(texts)
        assert not tokens
        return Encoded(np.array([[len(text), 10] for text in texts], np.float32), None)


def test_labels_as_texts_are_means_of_their_prompts_unit_vectors():
    encoder, asked = Lengths(), method(prompts=("at {}", "a photo of {}"))
    found = asked.encode_prompts(["Home", "shopping_center"], encoder)
    names = ("Home", "shopping center")
    assert encoder.texts == [text for x in names for text in (f"at {x}", f"a photo of {x}")]
    for row, lengths in zip(found.tolist(), ((7, 15), (18, 26)), strict=True):
        units = [(n / math.hypot(n, 10), 10 / math.hypot(n, 10)) for n in lengths]
        assert row == pytest.approx([sum(x) / 2 for x in zip(*units, strict=True)])
    assert method().encode_prompts(["Home"], encoder) is None


# --- configs of saved networks


@pytest.mark.parametrize(
    ("asked", "config"),
    [
        (PAPER, replace(SMALL, view="tokens", temperature="learned", fusion="sum")),
        (EXPERTS, GatedExpertsConfig(3, 12, 10, 5, gate="constant", vocabulary_size=40)),
        (method(), Settings(2, 3, 4, rank=5)),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_a_config_survives_json_and_belongs_to_its_network(asked, config):
    values = json.loads(json.dumps(asdict(config)))
    assert asked.load_config(values) == config
    for old in ("sfm", "shape"):
        with pytest.raises(SgmftError, match=f"settings colour, {old} are not known here"):
            asked.load_config({**values, old: True, "colour": 2})
    other = EXPERTS if asked is PAPER else PAPER
    with pytest.raises(SgmftError, match=r"settings .* are not known here"):
        other.load_config(values)
