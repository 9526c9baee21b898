"""SG-MFT's settings: the paper's by default, and wrong ones told in a sentence."""

from dataclasses import replace

import pytest
from small_model import SMALL
from torch import nn

from sgmft.errors import SgmftError
from sgmft.models.sgmft import SGMFT, SGMFTConfig, shared_width


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"view": "both"}, "view='both' is not known: use elements or tokens."),
        ({"gate": "tanh"}, "gate='tanh' is not known: use softmax or sigmoid."),
        ({"guided": "both"}, "guided='both' is not known: use text or image."),
        ({"scale": "l2"}, "scale='l2' is not known: use none or unit or standard."),
        ({"heads": 3}, "width 16 cannot be cut into 3 heads of elements 1 wide"),
        ({"heads": 3, "view": "tokens"}, "width 16 cannot be cut into 3 heads: choose a multiple"),
        ({"element_width": 3}, "choose a multiple of 6."),
        ({"heads": 0}, "heads must be at least 1, not 0."),
        ({"classes": 0}, "classes must be at least 1, not 0."),
        ({"width": -16}, "width must be at least 1, not -16."),
        ({"text_width": 0}, "text_width must be at least 1, not 0."),
        ({"fusion_layers": 0}, "fusion_layers must be at least 1, not 0."),
        ({"max_images": 0}, "max_images must be at least 1, not 0."),
        ({"classifier_widths": (8, 0)}, "classifier_widths must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive or 'learned', not 0.0."),
        ({"temperature": -1}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"temperature": "hot"}, "temperature must be positive or 'learned', not hot."),
        ({"initial_temperature": 0.0}, "initial_temperature must be positive, not 0.0."),
        ({"hidden_ratio": -1.0}, "hidden_ratio must be positive, not -1.0."),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, not 1."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1"),
    ],
    ids=lambda x: None if isinstance(x, str) else str(x),
)
def test_a_wrong_setting_is_told_in_a_sentence(changes, words):
    with pytest.raises(SgmftError) as error:
        replace(SMALL, **changes)
    assert words in str(error.value) and str(error.value).endswith(".")


def test_defaults_are_the_papers():
    config = SGMFTConfig(classes=6, text_width=1024, image_width=1024, shared_space=True)
    assert (config.width, config.heads, config.view, config.element_width) == (
        1024,
        8,
        "elements",
        1,
    )
    assert (config.gate, config.temperature, config.guided) == ("softmax", 1.0, "text")
    assert (config.sim, config.fusion, config.fusion_layers) == (True, "sfm", 2)
    assert (config.scale, config.projected) == ("none", False)
    small = SGMFTConfig(classes=6, text_width=16, image_width=16, shared_space=True)
    model = SGMFT(small)
    assert sum(isinstance(m, nn.Linear) for m in model.classifier) == 5
    assert model.text_ffn.w1.out_features == 64


@pytest.mark.parametrize(
    ("widths", "shared", "width"),
    [((768, 768), True, 768), ((1536, 2560), False, 512), ((64, 64), False, 512)],
)
def test_the_width_is_the_shared_spaces_or_512(widths, shared, width):
    config = SGMFTConfig(3, *widths, shared_space=shared)
    assert config.width == shared_width(*widths, shared) == width
    assert config.projected is not shared
    assert SGMFTConfig(3, *widths, shared_space=shared, width=16).width == 16


def test_an_unknown_fusion_module_is_told_when_the_model_is_built():
    with pytest.raises(SgmftError, match="no fusion module 'magic': use sfm, sum"):
        SGMFT(replace(SMALL, fusion="magic"))
