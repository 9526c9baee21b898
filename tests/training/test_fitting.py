"""From labelled features to a network: who is learned from, what is chosen, what is fitted anew."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sgmft.training.trainer
from sgmft.errors import SgmftError
from sgmft.features.features import Batch, LabelledFeatures
from sgmft.features.ragged import Ragged
from sgmft.models.arrays import cross_entropy
from sgmft.models.base import NetworkConfig, Output, predict_logits
from sgmft.models.method import Method
from sgmft.models.network import Network
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
from small_networks import equal_weights, history_text, weights_of
from synthetic_features import INFO, NearestMean, make_features

watching = pytest.mark.parametrize("watched", [False, True])
HELD = [0, 4, 8, 15, 20, 25]  # two of each class
SETTINGS = {"width": 16, "heads": 2, "classifier_widths": (12,), "epochs": 8, "seed": 3}


def solved(refit: bool = False, network: type[NearestMean] = NearestMean) -> TrainingTask:
    preset = Preset("default", {}, TrainConfig(epochs=9, patience=2), 0.1, refit)
    method = Method("centres", "Centres", "nowhere", network=network, config=NetworkConfig)
    return TrainingTask(make_features(), 3, INFO, method, preset)


def elements(**settings: Any) -> TrainingTask:
    method = get_method("sgmft")
    return TrainingTask(
        make_features(), 3, INFO, method, method.preset("elements", SETTINGS | settings)
    )


def centres(data: LabelledFeatures, without: list[int]) -> np.ndarray:
    kept = [i for i in range(len(data.labels)) if i not in without]
    return np.stack(
        [data.features.text[[i for i in kept if data.labels[i] == k]].mean(0) for k in range(3)]
    )


# --- models in closed form


@pytest.mark.parametrize("held", [[], HELD])
@pytest.mark.parametrize("refit", [False, True])
def test_a_closed_form_model_is_fitted_again_on_all_posts(tmp_path, refit, held):
    task = solved(refit)
    assert not np.array_equal(centres(task.data, []), centres(task.data, HELD))
    for _ in ("first", "again"):  # a folder for checkpoints changes nothing
        told = []
        choice = fit_network(task, held, checkpoint=tmp_path, on_epoch=told.append)
        np.testing.assert_allclose(
            choice.model.means, centres(task.data, [] if refit else held), rtol=1e-6, atol=1e-6
        )
        (line,) = choice.history
        assert (line.epoch, repr(choice.selected)) == (1, repr(line))
        assert len(told) == 1 + (refit and held != []) and repr(told[0]) == repr(line)
        assert all(math.isnan(later.val_loss) for later in told[1:])
        if held:  # the figures are of those held out
            assert 0 < line.val_loss < math.inf and line.val_accuracy > 0.9
        else:
            assert math.isnan(line.val_loss)


@watching
def test_the_log_of_a_closed_form_model_has_one_line(tmp_path, watched):
    task, held, told = solved(), HELD if watched else [], []
    task.data.labels[HELD[::2]] = 2  # some of them wrong
    found = train_with_validation(task, held, checkpoint=tmp_path, on_epoch=told.append)
    (line,) = found.history
    assert history_text(told) == history_text([line])
    assert (line.epoch, line.epochs) == (1, 1)
    kept = np.delete(np.arange(45), held)
    for figures, rows in ((line[2:4], kept), (line[4:6], np.array(held, int))):
        if not len(rows):
            assert np.isnan(figures).all()
            continue
        logits = predict_logits(found.model, task.data.features.take(rows)).logits
        loss, right = cross_entropy(logits, of := task.data.labels[rows]), logits.argmax(-1) == of
        assert figures == pytest.approx((loss, right.mean()))
    assert math.isnan(line.gate_entropy) and math.isnan(line.element_entropy)


class LeavingOut(NearestMean):
    """Says of each post what is far from the truth when it is left out; reads n-grams."""

    uses_ngrams = True

    def fit(self, batch, labels, rng, weights=None) -> np.ndarray:
        super().fit(batch, labels, rng, weights)
        assert batch.ngrams is not None and len(batch.ngrams) == len(labels)
        return np.stack([np.eye(3, dtype=np.float32)[(labels + 1) % 3]] * 4)

    def forward(self, batch: Batch) -> Output:
        assert batch.ngrams is not None
        counts = np.stack([(batch.ngrams == 100 + k).sum(1) for k in range(3)], 1)
        return Output(np.float32(10) * counts.astype(np.float32), batch.text)


@watching
def test_without_validation_posts_what_is_said_of_posts_left_out_stands_for_them(watched):
    found = train_with_validation(solved(network=LeavingOut), HELD if watched else [])
    (line,) = found.history
    assert line.accuracy == 1 and line.loss == pytest.approx(math.log1p(2 * math.exp(-10)), rel=0.1)
    assert line.val_accuracy == (1 if watched else 0)
    loss = line.loss if watched else math.log(math.e + 2)  # -log p, the 1 on a wrong class
    assert line.val_loss == pytest.approx(loss)
    assert len(found.held_out.labels) == (len(HELD) if watched else 45)


# --- refitting


@pytest.fixture
def trained(monkeypatch):
    """What each training was given: posts, epochs at most, patience, and the epochs it took."""
    runs, real = [], sgmft.training.trainer.train

    def train(network, data, validation, settings, **run):
        history = real(network, data, validation, settings, **run)
        runs.append((len(data.labels), settings.epochs, settings.patience, len(history)))
        return history

    monkeypatch.setattr(sgmft.training.trainer, "train", train)
    return runs


def misled(**settings: Any) -> TrainingTask:
    """Held-out posts have wrong labels: the less is learned, the better for them."""
    task = elements(**{"learning_rate": 1e-2, "patience": 2} | settings)
    wrong = make_features()
    labels = wrong.labels.copy()
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
    again, weights = train_on_all(task, best), weights_of(fitted.model)
    assert equal_weights(weights_of(again), weights)
    assert not equal_weights(weights_of(chosen.model), weights)
    alone = fit_network(replace(task, preset=replace(task.preset, refit=False)), HELD)
    assert equal_weights(weights_of(alone.model), weights_of(chosen.model))


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
    logits, labels = chosen.held_out.logits, chosen.held_out.labels
    loss, right = cross_entropy(logits, labels), logits.argmax(-1) == labels
    told = {"validation accuracy": right.mean(), "validation loss": loss}
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
    def measure(cls, words: Ragged | None) -> dict[str, int]:
        return {"vocabulary_size": 1 if words is None else len(words)}

    def prepare(self, *given: Ragged | None) -> None:
        self.given = [None if x is None else np.concatenate([*x.split(7)]) for x in given]

    def forward(self, batch: Batch) -> Output:
        raise AssertionError("nothing is asked of it before training")


def test_a_network_is_made_from_the_training_posts_the_encoder_and_the_settings():
    method = Method("watching", "", "", network=Watching, config=Measured)
    preset, prompts = method.preset(None, {"rank": 2, "seed": 5}), np.eye(3, 12)
    data = make_features()
    data.features.has_text[:10] = False
    data.features.has_image[40:] = False
    task = TrainingTask(data, 3, INFO, method, preset, prompts)
    made, known = task.model(data.features), data.features
    words, regions = known.words.values, known.regions.values
    assert made.config == Measured(3, 12, 10, rank=2, vocabulary_size=len(words))
    expected = known.text[10:], known.image[:40], words, regions
    assert all(map(np.array_equal, made.given, expected))
    assert np.array_equal(made.prompts, prompts)
    torch.rand(7)  # whatever else was drawn
    assert torch.equal(task.model(data.features).drawn, made.drawn)
    other = replace(task, preset=method.preset(None, {"seed": 6}))
    assert not torch.equal(other.model(data.features).drawn, made.drawn)
    change = {"shared_space": True, "word_width": 5}
    narrow = replace(task, info=replace(INFO, **change)).model(data.features)
    assert narrow.config == replace(made.config, **change)
    pooled = task.model(replace(known, words=None, regions=None))
    assert pooled.config.vocabulary_size == 1 and pooled.given[2:] == [None, None]


def test_scales_are_those_of_the_posts_that_are_learned_from():
    chosen = train_with_validation(elements(scale="standard", epochs=1), HELD).model
    data = make_features()
    kept = [i for i in range(45) if i not in HELD]
    mean = torch.from_numpy(data.features.text[kept].mean(0))
    torch.testing.assert_close(chosen.text.pooled_scale.mean, mean)
    assert isinstance(chosen.text.project, nn.Linear)
    fitted = fit_network(elements(scale="standard", epochs=1), HELD).model
    mean = torch.from_numpy(data.features.text.mean(0))
    torch.testing.assert_close(fitted.text.pooled_scale.mean, mean)
