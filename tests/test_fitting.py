"""From labelled features to a network: who is learned from, what is chosen, what is fitted anew."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from made_up import Centres, posts
from sgmft.baselines.base import Method
from sgmft.encoders import EncoderInfo
from sgmft.fitting import Choice, Task, choose, fit_network
from sgmft.methods import get_method
from sgmft.nn import Network, NetworkConfig
from sgmft.presets import Preset, TrainConfig
from sgmft.training import LabelledFeatures

INFO = EncoderInfo("made up", "0" * 16, 12, 10, False, None, 8, "none")
HELD = [0, 4, 8, 15, 20, 25]  # two of each class
SETTINGS = {"width": 16, "heads": 2, "classifier_widths": (12,), "epochs": 8, "seed": 3}


def solved(refit: bool) -> Task:
    preset = Preset("default", {}, TrainConfig(epochs=9, patience=2), 0.1, refit)
    method = Method("centres", "Centres", "nowhere", network=Centres, config=NetworkConfig)
    return Task(posts(), 3, INFO, method, preset)


def sgmft(**settings: Any) -> Task:
    method = get_method("sgmft")
    return Task(posts(), 3, INFO, method, method.preset("default", SETTINGS | settings))


def centres(data: LabelledFeatures, without: list[int]) -> torch.Tensor:
    kept = [i for i in range(len(data.labels)) if i not in without]
    return torch.stack(
        [data.features.text[[i for i in kept if data.labels[i] == k]].mean(0) for k in range(3)]
    )


# --- networks that are solved at once


@pytest.mark.parametrize("refit", [False, True])
def test_a_solved_network_is_solved_again_on_all_posts(refit):
    task, told = solved(refit), []
    choice = fit_network(task, HELD, on_epoch=told.append)
    expected = centres(task.data, [] if refit else HELD)
    assert not torch.equal(centres(task.data, []), centres(task.data, HELD))
    torch.testing.assert_close(choice.network.means, expected)
    (line,) = choice.history
    assert (line.epoch, choice.epochs, choice.share) == (1, 1, None)
    assert 0 < line.val_loss < math.inf and line.val_accuracy > 0.9  # of those held out
    assert len(told) == 1 + refit and repr(told[0]) == repr(line)
    assert all(math.isnan(later.val_loss) for later in told[1:])


@pytest.mark.parametrize("refit", [False, True])
def test_a_solved_network_without_held_out_posts(tmp_path, refit):
    task = solved(refit)
    for _ in ("first", "again"):  # a folder for checkpoints changes nothing
        choice = fit_network(task, [], checkpoint=tmp_path)
        torch.testing.assert_close(choice.network.means, centres(task.data, []))
        assert len(choice.history) == 1 and math.isnan(choice.history[0].val_loss)


# --- refitting


def test_the_fused_paths_share_is_the_one_that_held_out_posts_chose():
    wrong = posts()
    labels = wrong.labels.clone()
    labels[HELD] = (labels[HELD] + 1) % 3  # the less the better
    task = replace(sgmft(learning_rate=1e-2), data=LabelledFeatures(wrong.features, labels))
    chosen = choose(task, HELD)
    assert 0 <= chosen.share < 1
    fitted = fit_network(task, HELD)
    assert fitted.share == pytest.approx(chosen.share)
    assert repr(fitted.history) == repr(chosen.history)
    alone = fit_network(replace(task, preset=replace(task.preset, refit=False)), HELD)
    for name, value in chosen.network.state_dict().items():
        assert torch.equal(alone.network.state_dict()[name], value)
    assert any(
        not torch.equal(fitted.network.state_dict()[name], value)
        for name, value in chosen.network.state_dict().items()
    )


def test_without_a_direct_path_there_is_no_share_to_keep():
    assert fit_network(sgmft(direct=False), HELD).share is None


def test_the_choice_is_the_epoch_with_the_least_loss_on_held_out_posts():
    chosen = choose(sgmft(patience=0), HELD)
    losses = [line.val_loss for line in chosen.history]
    assert len(losses) == 8 and chosen.epochs == losses.index(min(losses)) + 1
    assert Choice(chosen.network, chosen.history[::-1]).epochs == chosen.epochs


# --- a new network


@dataclass(frozen=True)
class Measured(NetworkConfig):
    rank: int = 4
    vocabulary_size: int = 1


class Watching(Network):
    """Remembers what it was given before training."""

    def __init__(self, config: Measured) -> None:
        super().__init__(config)
        self.register_buffer("prompts", torch.zeros(config.classes, config.text_width))
        self.drawn = torch.rand(3)

    @classmethod
    def measure(cls, words: torch.Tensor | None) -> dict[str, int]:
        return {"vocabulary_size": 1 if words is None else len(words)}

    def prepare(self, *given: torch.Tensor | None) -> None:
        self.given = [None if x is None else x.clone() for x in given]


def test_a_network_is_made_from_the_training_posts_the_encoder_and_the_settings():
    method = Method("watching", "", "", network=Watching, config=Measured)
    preset, prompts = method.preset(None, {"rank": 2, "seed": 5}), torch.randn(3, 12)
    data = posts()
    data.features.has_text[:10] = False
    data.features.has_image[40:] = False
    task = Task(data, 3, INFO, method, preset, prompts)
    made = task.network(data.features)
    assert made.config == Measured(3, 12, 10, False, 2, len(data.features.words.values))
    text, image, words, regions = made.given
    assert torch.equal(text, data.features.text[10:])
    assert torch.equal(image, data.features.image[:40])
    assert torch.equal(words, data.features.words.values)
    assert torch.equal(regions, data.features.regions.values)
    assert torch.equal(made.prompts, prompts)
    torch.rand(7)  # whatever else was drawn
    assert torch.equal(task.network(data.features).drawn, made.drawn)
    other = replace(task, preset=method.preset(None, {"seed": 6}))
    assert not torch.equal(other.network(data.features).drawn, made.drawn)
    pooled = replace(data.features, words=None, regions=None)
    assert task.network(pooled).config.vocabulary_size == 1
    assert task.network(pooled).given[2:] == [None, None]


def test_scales_are_those_of_the_posts_that_are_learned_from():
    chosen = choose(sgmft(scale="standard", epochs=1), HELD).network
    data = posts()
    kept = [i for i in range(45) if i not in HELD]
    mean = data.features.text[kept].mean(0)
    torch.testing.assert_close(chosen.text.pooled_scale.mean, mean)
    assert isinstance(chosen.text.project, nn.Linear)
    fitted = fit_network(sgmft(scale="standard", epochs=1), HELD).network
    torch.testing.assert_close(fitted.text.pooled_scale.mean, data.features.text.mean(0))
