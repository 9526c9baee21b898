"""Predictive dynamic fusion: weights, network and loss against loops, and what learns from what."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from reference_loops import (
    cross_entropy,
    gradients,
    linear,
    lists,
    modality_input,
    softmax,
    two_layers,
)
from sgmft.models.baselines.unimodal_heads import (
    DynamicFusion,
    DynamicFusionConfig,
    fusion_weights,
)
from sgmft.utils.distributed import BatchCrossEntropy
from token_batches import assert_close, normal, pooled_batch, randomize

SMALL = DynamicFusionConfig(classes=3, text_width=7, image_width=5, width=6, dropout=0.0)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])

# --- the equations as loops over lists of floats ---


def slow_weights(scores, logits=None):
    """Weights of text and image of one post."""
    c = [1 / (1 + math.exp(-s)) for s in scores]
    holo = [math.log(c[1 - m]) / (math.log(c[0]) + math.log(c[1])) for m in (0, 1)]
    belief = [a + b for a, b in zip(c, holo, strict=True)]
    if logits is not None:
        u = [sum(abs(p - 1 / len(y)) for p in softmax(y)) / len(y) for y in logits]
        belief = [b * min(1, u[m] / u[1 - m]) for m, b in enumerate(belief)]
    return softmax(belief)


def slow_modality(w, name, x, present):
    """h, y and the score of one modality of a post."""
    i = ("text", "image").index(name)
    x = two_layers(w, f"hidden.{i}", modality_input(w, name, x, present))
    return x, linear(w, f"heads.{i}", x), linear(w, f"scores.{i}", x)[0]


def slow_forward(w, batch, calibrated):
    """Logits, fused features, logits of text and of image, confidence of both, by post."""
    rows = []
    for i in range(len(batch.text)):
        h_t, y_t, s_t = slow_modality(w, "text", batch.text[i].tolist(), batch.has_text[i])
        h_v, y_v, s_v = slow_modality(w, "image", batch.image[i].tolist(), batch.has_image[i])
        a, b = slow_weights([s_t, s_v], [y_t, y_v] if calibrated else None)
        y = [a * one + b * other for one, other in zip(y_t, y_v, strict=True)]
        c = [1 / (1 + math.exp(-s)) for s in (s_t, s_v)]
        rows.append((y, h_t + h_v, y_t, y_v, c))
    return [list(column) for column in zip(*rows, strict=True)]


# --- what is tested ---


def made(**changes):
    """A network with random weights and scales, and a batch for it."""
    torch.manual_seed(0)
    return randomize(DynamicFusion(replace(SMALL, **changes))), pooled_batch()


@pytest.mark.parametrize("training", [False, True])
def test_the_whole_network_is_the_equations_and_calibrates_predictions_alone(training):
    model, batch = made()
    output = model.train(training)(batch)
    alone = output.parts["logits"].unbind(1)
    found = output.logits, output.fused, *alone, output.parts["scores"].sigmoid()
    for got, expected in zip(found, slow_forward(lists(model), batch, not training), strict=True):
        assert_close(got, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.5]])
def test_the_loss_is_three_cross_entropies_and_the_errors_of_the_confidence(weight):
    model, batch = made()
    y, _, text, image, c = slow_forward(lists(model), batch, True)
    labels = LABELS.tolist()
    expected = sum(cross_entropy(x, labels, weight) for x in (y, text, image))
    for m, logits in enumerate((text, image)):
        rows = zip(c, logits, labels, strict=True)
        expected += sum(abs(own[m] - softmax(row)[k]) for own, row, k in rows) / len(labels)
    criterion = BatchCrossEntropy(None if weight is None else torch.tensor(weight).double()[LABELS])
    assert model.loss(model(batch), LABELS, criterion).item() == pytest.approx(expected, rel=1e-10)


def test_confidence_learns_from_its_errors_alone_and_nothing_else_does():
    model, batch = made()
    model.train()
    output, criterion = model(batch), BatchCrossEntropy()
    logits = output.logits, *output.parts["logits"].unbind(1)
    supervised = gradients(model, sum(criterion(x, LABELS) for x in logits))
    whole = gradients(model, model.loss(model(batch), LABELS, criterion))
    assert {name for name in whole if name not in supervised} == {
        name for name, _ in model.named_parameters() if name.startswith("scores")
    }
    for name, x in supervised.items():
        torch.testing.assert_close(whole[name], x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scores", [(0.3, -1.2), (2.0, 2.0), (-9.0, 4.0)])
def test_the_surer_modality_weighs_more_and_both_the_same_where_they_are_alike(scores):
    y = normal(1, 2, 4)
    for given_logits in (None, y):
        ((a, b),) = fusion_weights(
            torch.tensor([scores], dtype=torch.float64), given_logits
        ).tolist()
        expected = slow_weights(scores, None if given_logits is None else y[0].tolist())
        assert (a, b) == pytest.approx(tuple(expected), rel=1e-12)
    a, b = slow_weights(scores)
    assert (a > b) == (scores[0] > scores[1]) and (a == b) == (scores[0] == scores[1])


@given(
    scores=st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 2),
    logits=st.lists(st.tuples(*[st.floats(-1e3, 1e3, width=32)] * 2), min_size=2, max_size=5),
)
def test_weights_are_shares_and_change_places_with_the_modalities(scores, logits):
    s, y = torch.tensor([scores]), torch.tensor(logits).T[None]
    weights = fusion_weights(s, y)
    assert weights.isfinite().all() and (weights > 0).all()
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(fusion_weights(s.flip(1), y.flip(1)), weights.flip(1))


def test_a_modality_that_knows_nothing_weighs_as_if_it_had_no_belief():
    y = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]])
    ((a, b),) = fusion_weights(torch.zeros(1, 2), y).tolist()
    assert [a, b] == pytest.approx(softmax([0.0, 1.0]), rel=1e-6)
    assert fusion_weights(torch.zeros(1, 2), torch.zeros(1, 2, 3)).tolist() == [[0.5, 0.5]]
