"""From labelled features to a network: who is learned from, what is chosen, what is fitted anew."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import sgmft.training.fit
from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.features.features import LabelledFeatures
from sgmft.models.base import Network, NetworkConfig, Output, Vectors
from sgmft.models.method import Method
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import get_method
from sgmft.training.fit import (
    TrainingTask,
    fit_network,
    selected_epoch,
    train_on_all,
    train_with_validation,
    validation_metrics,
)
from small_networks import equal_weights, weights_of
from synthetic_features import INFO, NearestMean, make_features

HELD = [0, 4, 8, 15, 20, 25]  # two of each class
SETTINGS = {"width": 16, "heads": 2, "classifier_widths": (12,), "epochs": 8, "seed": 3}


def solved(refit: bool) -> TrainingTask:
    preset = Preset("default", {}, TrainConfig(epochs=9, patience=2), 0.1, refit)
    method = Method("centres", "Centres", "nowhere", network=NearestMean, config=NetworkConfig)
    return TrainingTask(make_features(), 3, INFO, method, preset)


def elements(**settings: Any) -> TrainingTask:
    method = get_method("sgmft")
    return TrainingTask(
        make_features(), 3, INFO, method, method.preset("elements", SETTINGS | settings)
    )


def centres(data: LabelledFeatures, without: list[int]) -> torch.Tensor:
    kept = [i for i in range(len(data.labels)) if i not in without]
    return torch.stack(
        [data.features.text[[i for i in kept if data.labels[i] == k]].mean(0) for k in range(3)]
    )


# --- networks that are solved at once


@pytest.mark.parametrize("held", [[], HELD])
@pytest.mark.parametrize("refit", [False, True])
def test_a_solved_network_is_solved_again_on_all_posts(tmp_path, refit, held):
    task = solved(refit)
    assert not torch.equal(centres(task.data, []), centres(task.data, HELD))
    for _ in ("first", "again"):  # a folder for checkpoints changes nothing
        told = []
        choice = fit_network(task, held, checkpoint=tmp_path, on_epoch=told.append)
        torch.testing.assert_close(choice.network.means, centres(task.data, [] if refit else held))
        (line,) = choice.history
        assert (line.epoch, repr(choice.selected)) == (1, repr(line))
        assert len(told) == 1 + (refit and held != []) and repr(told[0]) == repr(line)
        assert all(math.isnan(later.val_loss) for later in told[1:])
        if held:  # the figures are of those held out
            assert 0 < line.val_loss < math.inf and line.val_accuracy > 0.9
        else:
            assert math.isnan(line.val_loss)


# --- refitting


@pytest.fixture
def trained(monkeypatch):
    """What each training was given: posts, epochs at most, patience, and the epochs it took."""
    runs, real = [], sgmft.training.fit.train

    def train(network, data, validation, settings, **run):
        history = real(network, data, validation, settings, **run)
        runs.append((len(data.labels), settings.epochs, settings.patience, len(history)))
        return history

    monkeypatch.setattr(sgmft.training.fit, "train", train)
    return runs


def misled(**settings: Any) -> TrainingTask:
    """Held-out posts have wrong labels: the less is learned, the better for them."""
    task = elements(**{"learning_rate": 1e-2, "patience": 2} | settings)
    wrong = make_features()
    labels = wrong.labels.clone()
    labels[HELD] = (labels[HELD] + 1) % 3
    return replace(task, data=LabelledFeatures(wrong.features, labels))


def test_all_posts_are_learned_from_for_as_many_epochs_as_held_out_posts_chose(trained):
    task = misled()
    chosen = train_with_validation(task, HELD)
    best = chosen.selected.epoch
    assert best < 6  # so that the epochs chosen are not simply all
    trained.clear()
    fitted = fit_network(task, HELD)
    assert trained == [(39, 8, 2, best + 2), (45, best, 0, best)]
    assert repr(fitted.history) == repr(chosen.history)
    again, weights = train_on_all(task, best), weights_of(fitted.network)
    assert equal_weights(weights_of(again), weights)
    assert not equal_weights(weights_of(chosen.network), weights)
    alone = fit_network(replace(task, preset=replace(task.preset, refit=False)), HELD)
    assert equal_weights(weights_of(alone.network), weights_of(chosen.network))


def test_without_held_out_posts_all_epochs_are_trained_on_all_posts(trained):
    choice = fit_network(elements(), [])
    assert trained == [(45, 8, 3, 8)]
    assert all(math.isnan(line.val_loss) for line in choice.history)
    assert validation_metrics(choice.selected) == {}


@pytest.mark.parametrize("patience", [0, 7])
def test_the_epoch_kept_is_the_one_whose_figures_are_the_networks(patience):
    """With patience that of the least loss on held-out posts, without it the last."""
    chosen = train_with_validation(misled(patience=patience), HELD)
    losses = [line.val_loss for line in chosen.history]
    assert len(losses) == 8 and losses.index(min(losses)) + 1 < 8
    assert chosen.selected.epoch == (losses.index(min(losses)) + 1 if patience else 8)
    logits, labels = chosen.held_out
    loss, right = cross_entropy(logits, labels), logits.argmax(-1) == labels
    told = {"validation accuracy": float(right.float().mean()), "validation loss": float(loss)}
    assert validation_metrics(chosen.selected) == pytest.approx(told, rel=1e-5)


def test_an_epoch_of_which_nothing_is_known_is_not_the_best():
    lines = train_with_validation(elements(patience=6, epochs=3), HELD).history
    broken = [lines[0]._replace(val_loss=math.nan), *lines[1:]]
    assert selected_epoch(broken, 6) == min(lines[1:], key=lambda line: line.val_loss)


@pytest.mark.parametrize("held", [[], HELD])
def test_a_training_that_diverges_is_no_model(held):
    with pytest.raises(SgmftError, match=r"SG-MFT has diverged: .* learning rate than 1e\+30"):
        fit_network(elements(learning_rate=1e30, epochs=2), held)


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
    def measure(cls, words: Vectors | None) -> dict[str, int]:
        return {"vocabulary_size": 1 if words is None else len(words)}

    def prepare(self, *given: Vectors | None) -> None:
        self.given = [None if x is None else torch.cat([*x.split(7)]) for x in given]

    def forward(self, batch: Batch) -> Output:
        raise AssertionError("nothing is asked of it before training")


def test_a_network_is_made_from_the_training_posts_the_encoder_and_the_settings():
    method = Method("watching", "", "", network=Watching, config=Measured)
    preset, prompts = method.preset(None, {"rank": 2, "seed": 5}), torch.randn(3, 12)
    data = make_features()
    data.features.has_text[:10] = False
    data.features.has_image[40:] = False
    task = TrainingTask(data, 3, INFO, method, preset, prompts)
    made, known = task.network(data.features), data.features
    words, regions = known.words.values, known.regions.values
    assert made.config == Measured(3, 12, 10, rank=2, vocabulary_size=len(words))
    expected = known.text[10:], known.image[:40], words, regions
    assert all(map(np.array_equal, made.given, expected))
    assert torch.equal(made.prompts, prompts)
    torch.rand(7)  # whatever else was drawn
    assert torch.equal(task.network(data.features).drawn, made.drawn)
    other = replace(task, preset=method.preset(None, {"seed": 6}))
    assert not torch.equal(other.network(data.features).drawn, made.drawn)
    change = {"shared_space": True, "word_width": 5}
    narrow = replace(task, info=replace(INFO, **change)).network(data.features)
    assert narrow.config == replace(made.config, **change)
    pooled = task.network(replace(known, words=None, regions=None))
    assert pooled.config.vocabulary_size == 1 and pooled.given[2:] == [None, None]


def test_scales_are_those_of_the_posts_that_are_learned_from():
    chosen = train_with_validation(elements(scale="standard", epochs=1), HELD).network
    data = make_features()
    kept = [i for i in range(45) if i not in HELD]
    mean = data.features.text[kept].mean(0)
    torch.testing.assert_close(chosen.text.pooled_scale.mean, mean)
    assert isinstance(chosen.text.project, nn.Linear)
    fitted = fit_network(elements(scale="standard", epochs=1), HELD).network
    torch.testing.assert_close(fitted.text.pooled_scale.mean, data.features.text.mean(0))
