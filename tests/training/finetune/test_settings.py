"""How fine-tuning is asked for, and what makes no sense."""

from __future__ import annotations

import pytest

from sgmft.cli.options import make_tuning
from sgmft.errors import SgmftError
from sgmft.models.presets import TrainConfig
from sgmft.training.finetune.settings import Tuning


def test_nothing_is_tuned_by_default():
    assert make_tuning("head", None, False, {"epochs": "3"}) is None


def test_texts_become_values():
    settings = {"tune.rank": "4", "tune.augment": "false", "tune.micro_batch": "2", "epochs": "9"}
    expected = Tuning("lora", rank=4, augment=False, micro_batch=2, last=3, merge=True)
    assert make_tuning("lora", 3, True, settings) == expected


def test_rates_by_kind_and_the_heads_other_settings_stay():
    assert (Tuning("lora").encoder_rate, Tuning("full").encoder_rate) == (1e-4, 1e-5)
    config = Tuning(epochs=2).config(TrainConfig(class_weights=True, seed=7, epochs=30))
    assert (config.epochs, config.class_weights, config.seed) == (2, True, 7)
    assert (config.schedule, config.warmup) == ("cosine", 0.1)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        ("half", {}, "use head, lora or full"),
        ("head", {"tune.rank": "2"}, "tune.rank is for --tune lora or --tune full"),
        ("lora", {"tune.ranks": "2"}, "no setting tune.ranks: use one of alpha"),
        ("lora", {"tune.rank": "two"}, "a whole number"),
        ("lora", {"tune.rank": "0"}, "tune.rank must be at least 1"),
        ("lora", {"tune.maps": "some"}, "attention or all"),
        ("lora", {"tune.alpha": "nan"}, "tune.alpha must be positive"),
        ("full", {"tune.epochs": "0"}, "epochs must be at least 1"),
        ("full", {"tune.warmup": "1"}, "warmup must be in 0..1"),
        ("full", {"tune.val_size": "0"}, "tune.val_size must be in 0..1"),
        ("full", {"tune.precision": "int8"}, "auto or bfloat16 or float32"),
    ],
)
def test_what_makes_no_sense_is_told(kind, settings, told):
    with pytest.raises(SgmftError, match=told):
        make_tuning(kind, None, False, settings)
