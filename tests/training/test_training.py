"""The training loop on small made-up features: what it minimises, learns, keeps and predicts."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sgmft.features.features import Batch, Features
from sgmft.models.arrays import cross_entropy
from sgmft.models.base import NETWORK_BATCH, NetworkConfig, Output, predict_logits
from sgmft.models.network import BimodalNetwork
from sgmft.training.trainer import train
from small_networks import (
    FAST,
    SMALL,
    equal_weights,
    make_network,
    weights_of,
)
from synthetic_features import INFO, make_features

WIDTHS = NetworkConfig(3, 12, 10)
views = pytest.mark.parametrize("view", ["elements", "tokens"])

# --- learning


@views
def test_loss_falls_and_the_classes_are_learned(view):
    model, data = make_network(replace(SMALL, view=view)), make_features()
    history = train(model, data, make_features(15, seed=1), replace(FAST, epochs=12))
    assert [epoch.epoch for epoch in history] == list(range(1, 13))
    assert history[-1].loss < history[0].loss / 2
    assert history[-1].accuracy > 0.95 and history[-1].val_accuracy > 0.9
    logits, _, guidance = predict_logits(model, data.features)
    assert (logits.argmax(-1) == data.labels).mean() > 0.95
    assert not model.training
    assert np.isfinite(guidance).all() and (guidance > 0).all() and (guidance <= 1 + 1e-5).all()
    assert 0 < history[0].gate_entropy <= 1 and 0 < history[0].element_entropy <= 1


def test_figures_of_an_epoch_without_validation_or_guidance_are_nan():
    model = make_network(replace(SMALL, sim=False))
    (line,) = train(model, make_features(), None, replace(FAST, epochs=1))
    unknown = {"val_loss", "val_accuracy", "gate_entropy", "element_entropy"}
    assert {name for name, x in line._asdict().items() if math.isnan(x)} == unknown
    found = predict_logits(model, make_features(4).features)
    assert found.guidance.shape == (4, 2) and np.isnan(found.guidance).all()
    assert np.isfinite(found.logits).all()


@views
@pytest.mark.parametrize("lacking", ["text", "image"])
def test_a_side_that_every_post_lacks(view, lacking):
    model, data = make_network(replace(SMALL, view=view)), make_features(lacking=lacking)
    history = train(model, data, None, FAST)
    assert history[-1].loss < history[0].loss
    assert np.isfinite(predict_logits(model, data.features).logits).all()
    assert np.isfinite(predict_logits(model, make_features(5, seed=2).features).logits).all()


@pytest.mark.parametrize("count, classes", [(3, 3), (9, 3), (20, 2)])
def test_one_post_per_class_a_last_batch_of_one_and_two_classes(count, classes):
    model, data = make_network(replace(SMALL, classes=classes)), make_features(count, classes)
    history = train(model, data, make_features(6, classes, 1), replace(FAST, epochs=15))
    assert history[-1].loss < history[0].loss
    assert history[-1].val_accuracy == 1 or count < 20
    assert np.isfinite(predict_logits(model, data.features).logits).all()


def test_the_seed_decides_initial_weights_dropout_and_order():
    def run(initial: int, order: int, dropout: float = 0.0) -> dict[str, torch.Tensor]:
        model = make_network(replace(SMALL, dropout=dropout), initial)
        train(model, make_features(), None, replace(FAST, epochs=2, seed=order))
        return weights_of(model)

    assert equal_weights(run(0, 0, 0.5), run(0, 0, 0.5))
    assert not equal_weights(run(0, 0, 0.5), run(1, 0, 0.5))
    assert not equal_weights(run(0, 0), run(0, 1))


# --- predictions


@views
def test_predictions_are_the_networks_in_the_order_of_the_posts(view):
    count = NETWORK_BATCH + 3  # more than one batch
    features = make_features(count).features
    model = make_network(replace(SMALL, view=view)).eval()
    with torch.no_grad():
        output = model(features.batch().to("cpu"))
    found = predict_logits(model.train(), features)
    assert not model.training
    expected = output.logits, output.fused, torch.stack(tuple(output.guidance), 1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    none = predict_logits(model, Features.of([], INFO, True))
    assert none.logits.shape == (0, 3)
    assert none.guidance.shape == (0, 2) and len(none.fused) == 0


# --- the optimiser


@pytest.mark.parametrize("schedule", ["cosine", "none"])
def test_the_rate_falls_to_zero_over_all_steps_or_stays(steps, schedule):
    train(make_network(), make_features(20), None, replace(FAST, epochs=4, schedule=schedule))
    total = 4 * 3  # epochs x batches of at most eight
    falling = [(1 + math.cos(math.pi * i / total)) / 2 for i in range(total)]
    share = falling if schedule == "cosine" else [1.0] * total
    assert [rates[0] for rates in steps] == pytest.approx([3e-3 * x for x in share])


# --- what is minimised


def test_the_loss_is_the_mean_of_minus_log_p_weighted_and_smoothed():
    rows = np.array([0, 3, 6, 9, 12, 1, 4, 2])  # five, two and one of a class
    data = make_features().take(rows)

    def first_loss(**settings: Any) -> float:
        """The reported loss of the first step, all posts in one batch."""
        config = replace(FAST, epochs=1, batch_size=8, **settings)
        return train(copy.deepcopy(model), data, None, config)[0].loss

    model = make_network()
    logits = predict_logits(copy.deepcopy(model), data.features).logits.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    own = log_p[range(8), data.labels]
    assert first_loss() == pytest.approx(-float(own.mean()), rel=1e-5)
    # Each class weighs the same in total: the mean over classes of the mean over its posts.
    means = [-float(own[data.labels == k].mean()) for k in range(3)]
    assert first_loss(class_weights=True) == pytest.approx(sum(means) / 3, rel=1e-5)
    assert first_loss(class_weights=True) != pytest.approx(first_loss(), rel=1e-3)
    smoothed = -0.7 * own.mean() - 0.3 * log_p.mean()
    assert first_loss(label_smoothing=0.3) == pytest.approx(float(smoothed), rel=1e-5)


class SideBySide(BimodalNetwork):
    """The text's classes and the picture's, each with a head; only the text's is the answer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, 8)
        self.heads = nn.ModuleList(nn.Linear(8, config.classes) for _ in range(2))

    def forward(self, batch: Batch) -> Output:
        text, image = self.pooled_inputs(batch)
        return Output(self.heads[0](text), text, parts={"image": self.heads[1](image)})

    def loss(self, output: Output, labels: torch.Tensor, criterion: Any) -> torch.Tensor:
        assert output.parts is not None
        return criterion(output.logits, labels) + criterion(output.parts["image"], labels)


def test_a_networks_own_objective_is_minimised_and_the_cross_entropy_told():
    torch.manual_seed(0)
    model, data = SideBySide(WIDTHS), make_features()
    model.prepare(data.features.texts, data.features.images, None, None)
    before, everything = weights_of(model), data.features.batch().to("cpu")
    told = cross_entropy(model.predict(data.features.batch()).logits, data.labels)
    history = train(model, data, None, replace(FAST, epochs=20, batch_size=45, learning_rate=0.03))
    assert history[0].loss == pytest.approx(told, rel=1e-5)  # of the logits alone
    output = model(everything)
    for logits in (output.logits, output.parts["image"]):  # the other head by `loss` alone
        assert (logits.argmax(-1).numpy() == data.labels).mean() > 0.95
    learned = {name for name, x in weights_of(model).items() if not torch.equal(before[name], x)}
    layers = ("heads.0", "heads.1", "text.project", "image.project")
    assert learned == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


# --- n-grams


def test_n_grams_reach_the_networks_that_read_them_and_no_others():
    data, seen = make_features(NETWORK_BATCH + 3), []

    class Reading(SideBySide):
        def forward(self, batch: Batch) -> Output:
            seen.append(batch.ngrams)
            return super().forward(batch)

    for reads in (False, True):
        model = Reading(WIDTHS)
        model.uses_ngrams = reads
        seen.clear()
        train(model, data, make_features(15, seed=1), replace(FAST, epochs=1, batch_size=100))
        predict_logits(model, data.features)
        assert len(seen) == 3 + 1 + 2 and all((x is not None) is reads for x in seen)
    assert seen[-1][:, 0].tolist() == [100 + i % 3 for i in range(NETWORK_BATCH, len(data[1]))]


# --- modality dropout


def shown(share: float, epochs: int = 1) -> list[Batch]:
    """The batches that a training of so many epochs shows."""
    model, seen = make_network(), []
    forward = model.forward
    model.forward = lambda batch: (seen.append(batch), forward(batch))[1]
    config = replace(FAST, epochs=epochs, batch_size=40, modality_dropout=share)
    train(model, make_features(200), None, config)
    return seen


def test_a_share_of_the_posts_loses_one_side_and_none_loses_both():
    batches, complete = shown(0.4), shown(0.0)
    text, image = (torch.cat([b[i] for b in batches]) for i in (2, 3))
    had = torch.cat([b.has_text & b.has_image for b in complete])
    for side in (text, image):
        assert 0.1 < float((had & ~side).float().mean()) < 0.3  # about half of 0.4
    assert ((text | image)[had]).all()
    for x, y in zip(batches, complete, strict=True):
        assert torch.equal(x.text, y.text) and torch.equal(x.image, y.image)  # only the flags


def test_each_epoch_draws_anew_and_each_run_the_same():
    runs = [torch.cat([torch.stack(b[2:4], 1) for b in shown(0.4, 2)]) for _ in range(2)]
    assert torch.equal(*runs)
    assert not torch.equal(*runs[0].chunk(2))


def test_a_post_with_one_side_keeps_it():
    batch = make_features(9).features.batch()
    alone = batch._replace(has_text=np.arange(9) % 3 > 0, has_image=np.arange(9) % 3 < 2)
    lost = alone.drop_modalities(0.99, np.zeros((2, 9)))
    both = alone.has_text & alone.has_image
    assert np.array_equal(lost.has_text, alone.has_text & ~both)
    assert np.array_equal(lost.has_image, alone.has_image)
