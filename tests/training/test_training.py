"""The training loop on small made-up features: what it learns, keeps, repeats and answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from sgmft.features.features import Features
from sgmft.models.inference import EVALUATION_BATCH, predict_logits
from sgmft.training.trainer import train
from small_networks import FAST, SMALL, equal_weights, make_network, mislabelled, weights_of
from small_networks import steps as steps
from synthetic_features import INFO, make_features

# --- learning


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_loss_falls_and_the_classes_are_learned(view):
    model = make_network(replace(SMALL, view=view))
    data = make_features()
    history = train(model, data, make_features(15, seed=1), replace(FAST, epochs=12))
    assert [epoch.epoch for epoch in history] == list(range(1, 13))
    assert history[-1].loss < history[0].loss / 2
    assert history[-1].accuracy > 0.95 and history[-1].val_accuracy > 0.9
    logits, _, guidance = predict_logits(model, data.features)
    assert (logits.argmax(-1) == data.labels).float().mean() > 0.95
    assert not model.training
    assert guidance.isfinite().all() and (guidance > 0).all() and (guidance <= 1 + 1e-5).all()
    assert 0 < history[0].gate_entropy <= 1 and 0 < history[0].element_entropy <= 1


def test_figures_of_an_epoch_without_validation_or_guidance_are_nan():
    history = train(
        make_network(replace(SMALL, sim=False)), make_features(), None, replace(FAST, epochs=1)
    )
    values = history[0]._asdict()
    assert {name for name, x in values.items() if math.isnan(x)} == {
        "val_loss",
        "val_accuracy",
        "gate_entropy",
        "element_entropy",
    }


@pytest.mark.parametrize("view", ["elements", "tokens"])
@pytest.mark.parametrize("lacking", ["text", "image"])
def test_a_side_that_every_post_lacks(view, lacking):
    model, data = make_network(replace(SMALL, view=view)), make_features(lacking=lacking)
    history = train(model, data, None, FAST)
    assert history[-1].loss < history[0].loss
    assert predict_logits(model, data.features).logits.isfinite().all()
    assert predict_logits(model, make_features(5, seed=2).features).logits.isfinite().all()


def test_two_classes():
    model = make_network(replace(SMALL, classes=2))
    history = train(model, make_features(20, classes=2), make_features(6, classes=2, seed=1), FAST)
    assert history[-1].val_accuracy == 1


@pytest.mark.parametrize("count", [3, 9])
def test_one_post_per_class_and_a_last_batch_of_one(count):
    model, data = make_network(), make_features(count)
    history = train(model, data, None, replace(FAST, epochs=30))
    assert history[-1].loss < history[0].loss
    assert predict_logits(model, data.features).logits.isfinite().all()


# --- answers


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_answers_are_the_networks_in_the_order_of_the_posts(view):
    count = EVALUATION_BATCH + 3  # more than one batch
    features = make_features(count).features
    model = make_network(replace(SMALL, view=view)).eval()
    with torch.no_grad():
        output = model(features.batch(torch.arange(count)))
    found = predict_logits(model.train(), features)
    assert not model.training
    expected = output.logits, output.fused, torch.stack(tuple(output.guidance), 1)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_answers_without_guidance_are_nan_there():
    found = predict_logits(make_network(replace(SMALL, sim=False)), make_features(4).features)
    assert found.guidance.shape == (4, 2) and found.guidance.isnan().all()
    assert found.logits.isfinite().all()


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_no_posts_no_answers(view):
    found = predict_logits(make_network(replace(SMALL, view=view)), Features.of([], INFO, True))
    assert found.logits.shape == (0, 3)
    assert found.guidance.shape == (0, 2) and len(found.fused) == 0


# --- the optimiser


def test_cosine_schedule_falls_from_the_rate_to_zero_over_all_steps(steps):
    train(make_network(), make_features(20), None, replace(FAST, epochs=4, schedule="cosine"))
    total = 4 * 3  # epochs x batches of at most eight
    expected = [3e-3 * (1 + math.cos(math.pi * i / total)) / 2 for i in range(total)]
    assert [rates[0] for rates in steps] == pytest.approx(expected)


def test_without_schedule_the_rate_stays(steps):
    train(make_network(), make_features(20), None, replace(FAST, epochs=2))
    assert steps == [[3e-3]] * 6


# --- which epoch is kept


def test_early_stopping_keeps_the_best_epochs_weights():
    model = make_network()
    held = mislabelled(make_features(15, seed=1))
    config = replace(FAST, epochs=60, patience=3, learning_rate=1e-2)
    history = train(model, make_features(), held, config)
    losses = [epoch.val_loss for epoch in history]
    best = losses.index(min(losses))
    assert len(history) == best + 1 + 3 < 60
    logits = predict_logits(model, held.features).logits
    assert float(cross_entropy(logits, held.labels)) == pytest.approx(min(losses), rel=1e-6)
    accuracy = float((logits.argmax(-1) == held.labels).float().mean())
    assert accuracy == pytest.approx(history[best].val_accuracy)
    assert losses[-1] > min(losses) * 1.01


def test_without_patience_all_epochs_are_trained_and_the_last_is_kept():
    model, held = make_network(), mislabelled(make_features(15, seed=1))
    history = train(model, make_features(), held, replace(FAST, epochs=15, learning_rate=1e-2))
    logits = predict_logits(model, held.features).logits
    loss = float(cross_entropy(logits, held.labels))
    assert len(history) == 15
    assert loss == pytest.approx(history[-1].val_loss, rel=1e-6)
    assert loss > min(epoch.val_loss for epoch in history) * 1.01


def test_patience_without_validation_trains_all_epochs():
    assert (
        len(train(make_network(), make_features(), None, replace(FAST, patience=1))) == FAST.epochs
    )


# --- one seed


def test_the_seed_decides_initial_weights_dropout_and_order():
    def run(initial: int, order: int, dropout: float = 0.0) -> dict[str, torch.Tensor]:
        model = make_network(replace(SMALL, dropout=dropout), initial)
        train(model, make_features(), None, replace(FAST, epochs=2, seed=order))
        return weights_of(model)

    assert equal_weights(run(0, 0, 0.5), run(0, 0, 0.5))
    assert not equal_weights(run(0, 0, 0.5), run(1, 0, 0.5))
    assert not equal_weights(run(0, 0), run(0, 1))


# --- TensorBoard


def test_tracking_writes_tensorboard_files(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(
        make_network(),
        make_features(),
        make_features(9, seed=1),
        replace(FAST, epochs=3),
        track=tmp_path,
    )
    logs = [EventAccumulator(str(x)).Reload() for x in tmp_path.rglob("events.out.tfevents*")]
    (events,) = [log for log in logs if "loss" in log.Tags()["scalars"]]
    for name in ("loss", "accuracy", "val_loss", "gate_entropy"):
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([getattr(epoch, name) for epoch in history], rel=1e-5)
