"""What training minimises: the loss, a network's own objective, or what is solved at once."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sgmft.features.batch import Batch
from sgmft.features.features import LabelledFeatures
from sgmft.models.base import BimodalNetwork, NetworkConfig, Output
from sgmft.models.inference import EVALUATION_BATCH, predict_logits
from sgmft.training.trainer import Epoch, train
from small_networks import FAST, history_text, make_network, mislabelled, weights_of
from synthetic_features import NearestMean, make_features

# --- the loss


def first_loss(data: LabelledFeatures, **settings: Any) -> tuple[float, torch.Tensor]:
    """The reported loss of the first step, all posts in one batch, and the logits it is of."""
    model = make_network()
    logits = predict_logits(copy.deepcopy(model), data.features).logits
    size = len(data.labels)
    history = train(model, data, None, replace(FAST, epochs=1, batch_size=size, **settings))
    return history[0].loss, logits.double()


def uneven() -> LabelledFeatures:
    data, rows = (
        make_features(),
        torch.tensor([0, 3, 6, 9, 12, 1, 4, 2]),
    )  # five, two and one of a class
    return LabelledFeatures(data.features.take(rows), data.labels[rows])


def test_plain_loss_is_the_mean_of_minus_log_p():
    data = uneven()
    loss, logits = first_loss(data)
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    assert loss == pytest.approx(-float(log_p[range(8), data.labels].mean()), rel=1e-5)


def test_class_weights_are_inverse_frequencies():
    data = uneven()
    loss, logits = first_loss(data, class_weights=True)
    log_p = (logits - logits.exp().sum(1, keepdim=True).log()).tolist()
    # Each class weighs the same in total: the mean over classes of the mean over its posts.
    means = []
    for k in range(3):
        of_class = [-row[k] for row, label in zip(log_p, data.labels, strict=True) if label == k]
        means.append(sum(of_class) / len(of_class))
    assert loss == pytest.approx(sum(means) / 3, rel=1e-5)
    assert loss != pytest.approx(first_loss(data)[0], rel=1e-3)


def test_label_smoothing_spreads_a_share_of_the_target():
    data = uneven()
    loss, logits = first_loss(data, label_smoothing=0.3)
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    expected = -0.7 * log_p[range(8), data.labels].mean() - 0.3 * log_p.mean()
    assert loss == pytest.approx(float(expected), rel=1e-5)


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
    model, data = SideBySide(NetworkConfig(3, 12, 10)), make_features()
    model.prepare(data.features.text, data.features.image, None, None)
    before = weights_of(model)
    everything = data.features.batch(torch.arange(45))
    with torch.no_grad():
        told = float(cross_entropy(model(everything).logits, data.labels))
    history = train(model, data, None, replace(FAST, epochs=20, batch_size=45, learning_rate=0.03))
    assert history[0].loss == pytest.approx(told, rel=1e-5)  # of the logits alone
    output = model(everything)
    for logits in (output.logits, output.parts["image"]):  # the other head by `loss` alone
        assert (logits.argmax(-1) == data.labels).float().mean() > 0.95
    after = weights_of(model)
    learned = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {f"heads.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    expected |= {f"{side}.project.{k}" for side in ("text", "image") for k in ("weight", "bias")}
    assert learned == expected


# --- networks that are solved at once


@pytest.mark.parametrize("watched", [False, True])
def test_a_solved_network_has_one_line_of_log(tmp_path, watched):
    model, data, held = (
        NearestMean(NetworkConfig(3, 12, 10)),
        make_features(),
        mislabelled(make_features(15, seed=1)),
    )
    told: list[Epoch] = []
    history = train(
        model,
        data,
        held if watched else None,
        replace(FAST, epochs=50, patience=3),
        checkpoint=tmp_path / "c",
        on_epoch=told.append,
    )
    (line,) = history
    assert history_text(told) == history_text(history)
    assert (line.epoch, line.epochs) == (1, 1)
    assert not model.training
    for k in range(3):
        mean = data.features.text[data.labels == k].mean(0)
        torch.testing.assert_close(model.means[k], mean)
    for name, of in (("", data), ("val_", held)):
        if of is held and not watched:
            assert math.isnan(line.val_loss) and math.isnan(line.val_accuracy)
            continue
        logits = predict_logits(model, of.features).logits
        loss, right = cross_entropy(logits, of.labels), logits.argmax(-1) == of.labels
        assert getattr(line, f"{name}loss") == pytest.approx(float(loss))
        assert getattr(line, f"{name}accuracy") == pytest.approx(float(right.float().mean()))
    assert math.isnan(line.gate_entropy) and math.isnan(line.element_entropy)


class LeavingOut(NearestMean):
    """Says of each post what is far from the truth when it is left out; reads n-grams."""

    uses_ngrams = True

    def solve(self, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        super().solve(batch, labels)
        assert batch.ngrams is not None and len(batch.ngrams) == len(labels)
        return nn.functional.one_hot((labels + 1) % 3, 3).float()

    def forward(self, batch: Batch) -> Output:
        assert batch.ngrams is not None
        counts = torch.stack([(batch.ngrams == 100 + k).sum(1) for k in range(3)], 1)
        return Output(10.0 * counts, batch.text)


@pytest.mark.parametrize("watched", [False, True])
def test_without_validation_posts_what_is_said_of_posts_left_out_stands_for_them(watched):
    data, held = make_features(), make_features(15, seed=1)
    model = LeavingOut(NetworkConfig(3, 12, 10))
    (line,) = train(model, data, held if watched else None, FAST)
    assert line.accuracy == 1 and line.loss == pytest.approx(math.log1p(2 * math.exp(-10)), rel=0.1)
    assert line.val_accuracy == (1 if watched else 0)
    loss = line.loss if watched else math.log(math.e + 2)  # -log p, the 1 on a wrong class
    assert line.val_loss == pytest.approx(loss)


def test_n_grams_reach_the_networks_that_read_them_and_no_others():
    data, seen = make_features(EVALUATION_BATCH + 3), []

    class Reading(SideBySide):
        def forward(self, batch: Batch) -> Output:
            seen.append(batch.ngrams)
            return super().forward(batch)

    for reads in (False, True):
        model = Reading(NetworkConfig(3, 12, 10))
        model.uses_ngrams = reads
        seen.clear()
        train(model, data, make_features(15, seed=1), replace(FAST, epochs=1, batch_size=100))
        predict_logits(model, data.features)
        assert len(seen) == 3 + 1 + 2 and all((x is not None) is reads for x in seen)
    assert seen[-1][:, 0].tolist() == [100 + i % 3 for i in range(EVALUATION_BATCH, len(data[1]))]


# --- modality dropout


def shown(share: float, epochs: int = 1) -> list[Batch]:
    """The batches that a training of so many epochs shows."""
    model, seen = make_network(), []
    forward = model.forward
    model.forward = lambda batch: (seen.append(batch), forward(batch))[1]  # type: ignore[method-assign]
    train(model, make_features(200), None, replace(FAST, epochs=epochs, modality_dropout=share))
    return seen


def test_a_share_of_the_posts_loses_one_side_and_none_loses_both():
    batches = shown(0.4)
    text, image = (torch.cat([b[i] for b in batches]) for i in (2, 3))
    complete = shown(0.0)
    had = torch.cat([b.has_text & b.has_image for b in complete])
    for side in (text, image):
        assert 0.1 < float((had & ~side).float().mean()) < 0.3  # about half of 0.4
    assert ((text | image)[had]).all()
    for x, y in zip(batches, complete, strict=True):
        assert torch.equal(x.text, y.text) and torch.equal(x.image, y.image)  # only the flags


def test_each_epoch_draws_anew_and_each_run_the_same():
    first, again = shown(0.4, 2), shown(0.4, 2)
    half = len(first) // 2
    for x, y in zip(first, again, strict=True):
        assert torch.equal(x.has_text, y.has_text) and torch.equal(x.has_image, y.has_image)
    epochs = [torch.cat([b.has_text for b in part]) for part in (first[:half], first[half:])]
    assert not torch.equal(*epochs)


def test_a_post_with_one_side_keeps_it():
    batch = make_features(9).features.batch(torch.arange(9))
    alone = batch._replace(has_text=torch.arange(9) % 3 > 0, has_image=torch.arange(9) % 3 < 2)
    lost = alone.drop_modalities(0.99, torch.zeros(2, 9))
    both = alone.has_text & alone.has_image
    assert torch.equal(lost.has_text, alone.has_text & ~both)
    assert torch.equal(lost.has_image, alone.has_image)
