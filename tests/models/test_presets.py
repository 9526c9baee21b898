"""Presets and single settings: what the paper says, and what a user types after --set."""

from dataclasses import asdict

import pytest
import torch

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features, LabelledFeatures
from sgmft.features.post_features import PostFeatures
from sgmft.models.gated_experts import GatedExpertsConfig
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import get_method
from sgmft.models.sgmft import PRESETS, SGMFT, SGMFTConfig
from sgmft.training.fit import TrainingTask

WIDTHS = {"classes": 7, "text_width": 24, "image_width": 40}
METHOD, EXPERTS = get_method("sgmft"), get_method("gated-experts")


def config_of(preset: Preset, **changes) -> SGMFTConfig:
    return SGMFTConfig(**WIDTHS, **{**preset.model, **changes})


def batch_of(posts: int, config: SGMFTConfig) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    has = torch.ones(posts, dtype=torch.bool)
    pooled = (normal(posts, config.text_width), normal(posts, config.image_width), has, has)
    if config.view == "elements":
        return Batch(*pooled)
    mask = torch.ones(posts, 5, dtype=torch.bool)
    words, regions = normal(posts, 5, config.text_width), normal(posts, 5, config.image_width)
    return Batch(*pooled, words, mask, regions, mask, torch.zeros(posts, 5, dtype=torch.long))


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
    assert config.fusion_layers == 2
    assert len(config.classifier_widths) + 1 == 5  # "five fully connected layers"


def test_presets_are_those_promised():
    assert list(PRESETS) == ["tokens", "elements", "paper"]
    assert all(preset.name == name for name, preset in PRESETS.items())
    assert PRESETS["tokens"].model["view"] == "tokens"
    assert METHOD.presets is PRESETS


def test_the_default_chooses_inside_the_training_posts():
    default = EXPERTS.preset()
    assert default.val_size == 0 and default.model == {} and default.cleaning == "light"


@pytest.mark.parametrize("name", PRESETS)
def test_every_trained_preset_builds_a_model_that_learns(name):
    config = config_of(METHOD.preset(name, {"width": "16"}))
    model, batch = SGMFT(config), batch_of(3, config)
    output = model(batch)
    assert output.logits.shape == (3, 7) and output.logits.isfinite().all()
    labels = torch.tensor([0, 1, 2])
    model.loss(output, labels, torch.nn.functional.cross_entropy).backward()
    assert any(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "3e-4", 3e-4),
        ("weight_decay", "0", 0.0),
        ("class_weights", "true", True),
        ("class_weights", "False", False),
        ("schedule", "cosine", "cosine"),
    ],
)
def test_training_settings_from_text(name, text, value):
    found = getattr(METHOD.preset("elements", {name: text}).train, name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
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
def test_model_settings_from_text(name, text, value):
    preset = METHOD.preset("elements", {name: text})
    assert preset.model[name] == value and type(preset.model[name]) is type(value)
    assert getattr(config_of(preset), name) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gate", "constant", "constant"),
        ("joint", "false", False),
        ("lexical", "true", True),
        ("folds", "10", 10),
    ],
)
def test_the_defaults_settings_from_text(name, text, value):
    preset = EXPERTS.preset(None, {name: text})
    assert preset.model == {name: value} and type(preset.model[name]) is type(value)
    assert getattr(GatedExpertsConfig(**WIDTHS, **preset.model), name) == value


def test_settings_change_nothing_else():
    elements = PRESETS["elements"]
    before = asdict(elements.train), dict(elements.model)
    changed = METHOD.preset("elements", {"epochs": 99, "heads": 2, "classifier_widths": [8]})
    assert (asdict(elements.train), dict(elements.model)) == before
    assert asdict(changed.train) == before[0] | {"epochs": 99}
    assert changed.model == before[1] | {"heads": 2, "classifier_widths": [8]}
    assert changed.val_size == elements.val_size
    assert METHOD.preset("paper") == PRESETS["paper"]


@pytest.mark.parametrize(
    "name", ["epoch", "", "classes", "text_width", "shared_space", "sfm", "folds"]
)
def test_unknown_setting_names_those_there_are(name):
    with pytest.raises(SgmftError, match=f"no setting '{name}': use one of") as caught:
        METHOD.preset("elements", {name: "1"})
    told = str(caught.value).partition("use one of ")[2].rstrip(".").split(", ")
    assert {"epochs", "learning_rate", "heads", "temperature", "seed"} <= set(told)
    assert not {"classes", "text_width", "word_width", "image_width", "shared_space"} & set(told)
    assert "initial_temperature" not in told
    for known in told:
        assert hasattr(TrainConfig, known) or hasattr(SGMFTConfig, known)


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
def test_value_of_the_wrong_kind_tells_what_was_expected(name, text, expected):
    with pytest.raises(SgmftError, match=f"--set {name}={text}: expected {expected}"):
        METHOD.preset("elements", {name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("epochs", "0"),
        ("batch_size", "-1"),
        ("learning_rate", "0"),
        ("learning_rate", "nan"),
        ("label_smoothing", "1"),
        ("modality_dropout", "1"),
        ("patience", "-1"),
        ("weight_decay", "-0.1"),
    ],
)
def test_value_out_of_range_is_refused(name, text):
    with pytest.raises(SgmftError, match=name):
        METHOD.preset("elements", {name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("heads", "0"),
        ("dropout", "1"),
        ("temperature", "-1"),
        ("width", "9"),
        ("hidden_ratio", "0"),
    ],
)
def test_model_value_out_of_range_is_refused_when_it_is_built(name, text):
    with pytest.raises(SgmftError, match=name.partition("_")[0]):
        config_of(METHOD.preset("paper", {name: text}))


def test_unknown_words_in_python_too():
    with pytest.raises(SgmftError, match="schedule='linear' is not known"):
        TrainConfig(schedule="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("logit_scale", [None, 100.0])
@pytest.mark.parametrize("name", PRESETS)
def test_guidance_begins_neither_flat_nor_one_hot(name, logit_scale):
    info = EncoderInfo("x", "0" * 16, 64, 96, False, logit_scale, 8, "light")
    generator = torch.Generator().manual_seed(0)
    posts = [
        PostFeatures(
            *(torch.randn(shape, generator=generator).numpy() for shape in ((64,), (6, 64))),
            *(torch.randn(shape, generator=generator).numpy() for shape in ((1, 96), (4, 96))),
        )
        for _ in range(12)
    ]
    features = Features.of(posts, info, tokens=True)
    preset = METHOD.preset(name, {"width": 64})
    data = LabelledFeatures(features, torch.arange(12) % 3)
    network = TrainingTask(data, 3, info, METHOD, preset).network(features)
    guidance = network(features.batch(torch.arange(12))).guidance
    assert 0.3 < float(guidance.elements.mean()) < 0.99 or name == "paper"
    assert float(guidance.gate.mean()) > 0.3
