"""Alternating unimodal adaptation: network and steps against loops, and who moves in whose turn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reference_loops import cross_entropy, linear, lists, modality_input, softmax, two_layers
from sgmft.features.features import Batch
from sgmft.models.baselines.unimodal_heads import (
    AlternatingAdaptation,
    AlternatingAdaptationConfig,
)
from sgmft.training.trainer import train
from sgmft.utils.distributed import BatchCrossEntropy
from small_networks import FAST, StopHereError, equal_weights, stop_after, weights_of
from synthetic_features import make_features
from token_batches import HAS_IMAGE, HAS_TEXT, assert_close, normal, pooled_batch, randomize

SMALL = AlternatingAdaptationConfig(classes=3, text_width=7, image_width=5, width=6, dropout=0.0)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])

# --- the equations as loops over lists of floats ---


def slow_modality(w, name, x, present):
    """h and y of one modality of a post."""
    i = ("text", "image").index(name)
    x = two_layers(w, f"hidden.{i}", modality_input(w, name, x, present))
    return x, linear(w, "head", x)


def slow_forward(w, batch):
    """Logits, h and logits of text and of image, by post."""
    rows = []
    for i in range(len(batch.text)):
        h_t, y_t = slow_modality(w, "text", batch.text[i].tolist(), batch.has_text[i])
        h_v, y_v = slow_modality(w, "image", batch.image[i].tolist(), batch.has_image[i])
        entropies = [-sum(p * math.log(p) for p in softmax(y)) for y in (y_t, y_v)]
        highest = max(entropies)  # as the paper writes it
        powers = [math.exp(highest - e) for e in entropies]
        a, b = (x / sum(powers) for x in powers)
        y = [a * one + b * other for one, other in zip(y_t, y_v, strict=True)]
        rows.append((y, h_t, h_v, y_t, y_v))
    return [list(column) for column in zip(*rows, strict=True)]


# --- what is tested ---


def made(**changes):
    """A network with random weights and scales and P = I, and a batch for it."""
    torch.manual_seed(0)
    model = randomize(AlternatingAdaptation(replace(SMALL, **changes)))
    torch.nn.init.eye_(model.projection)
    return model, pooled_batch()


def test_the_whole_network_is_the_equations():
    model, batch = made()
    output = model(batch)
    y, h_t, h_v, y_t, y_v = slow_forward(lists(model), batch)
    fused = [a + b for a, b in zip(h_t, h_v, strict=True)]
    found = output.logits, output.fused, *output.parts["hidden"], *output.parts["logits"].unbind(1)
    for got, expected in zip(found, (y, fused, h_t, h_v, y_t, y_v), strict=True):
        assert_close(got, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.5]])
def test_two_batches_by_gradient_descent_are_the_steps_of_the_equations(weight):
    """The head after each of four steps, with matrices of NumPy, the other layers as they stand."""
    model, batch = made(alpha=0.3)
    criterion = BatchCrossEntropy(None if weight is None else torch.tensor(weight).double()[LABELS])
    W, b = (x.detach().numpy().copy() for x in (model.head.weight, model.head.bias))
    P, rate, K = np.eye(6), 0.1, 3
    posts = np.ones(8) if weight is None else np.array(weight)[LABELS]
    for step in range(2):
        output = model(batch._replace(text=batch.text + step))
        hidden = [h.detach().numpy() for h in output.parts["hidden"]]
        for loss, h in zip(model.losses(output, LABELS, criterion), hidden, strict=True):
            y = h @ W.T + b
            p = np.array([softmax(row) for row in y])
            expected = cross_entropy(y.tolist(), LABELS.tolist(), weight)
            assert loss.item() == pytest.approx(expected, rel=1e-10)
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for x in model.head.parameters():
                    x -= rate * x.grad
            errors = (p - np.eye(K)[LABELS]) * (posts / posts.sum())[:, None]  # (B, K)
            W, b = W - rate * errors.T @ h @ P, b - rate * errors.sum(0)
            np.testing.assert_allclose(model.head.weight.detach(), W, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(model.head.bias.detach(), b, rtol=1e-10, atol=1e-12)
            g = h.mean(0)
            P = P - P @ np.outer(g, g) @ P / (0.3 + g @ P @ g)
    assert_close(model.projection, torch.from_numpy(P))


def test_after_many_steps_p_is_the_inverse_that_it_stands_for():
    model, means = made(alpha=0.05)[0], []
    for seed in range(20):
        output = model(Batch(normal(8, 7, seed=seed), normal(8, 5, seed=seed), HAS_TEXT, HAS_IMAGE))
        means += [h.mean(0) for h in output.parts["hidden"]]
        assert len([*model.losses(output, LABELS, BatchCrossEntropy())]) == 2
    total = torch.stack(means).T @ torch.stack(means) / 0.05
    expected = torch.linalg.inv(torch.eye(6, dtype=torch.float64) + total)
    torch.testing.assert_close(model.projection, expected.detach(), rtol=1e-8, atol=1e-10)


def test_in_its_turn_a_modality_moves_itself_and_the_head_alone():
    model, batch = made()
    losses = model.losses(model(batch), LABELS, BatchCrossEntropy())
    for i, (name, loss) in enumerate(zip(("text", "image"), losses, strict=True)):
        model.zero_grad()
        loss.backward()
        moved = {key for key, p in model.named_parameters() if p.grad is not None}
        own = {
            key
            for key, _ in model.named_parameters()
            if key.startswith((name, f"hidden.{i}", "head"))
        }
        assert moved == own


def test_a_step_hardly_changes_what_the_head_says_of_the_other_modalitys_mean():
    model, batch = made(alpha=1e-6)
    output = model(batch)
    g = output.parts["hidden"][0].detach().mean(0)  # of the text
    changes = []
    for loss in model.losses(output, LABELS, BatchCrossEntropy()):
        model.zero_grad()
        loss.backward()
        changes.append((model.head.weight.grad @ g).abs().max().item())
    assert changes[0] > 1e-2 and changes[1] < 1e-5


def test_it_learns_in_the_training_loop_and_goes_on_where_it_was_stopped(tmp_path):
    data = make_features(24)
    widths = data.features.text.shape[1], data.features.image.shape[1]

    def run(folder, **options):
        torch.manual_seed(0)
        model = AlternatingAdaptation(AlternatingAdaptationConfig(3, *widths, width=16))
        history = train(model, data, None, FAST, checkpoint=folder, **options)
        return weights_of(model), [line.loss for line in history]

    whole, losses = run(None)
    assert losses[-1] < 0.8 * losses[0] and len(losses) == FAST.epochs
    assert not torch.equal(whole["projection"], torch.eye(16))
    with pytest.raises(StopHereError):
        run(tmp_path, on_epoch=stop_after(2))
    again, others = run(tmp_path)
    assert equal_weights(again, whole) and others == losses
