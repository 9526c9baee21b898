"""Balance-MLA's loss, and how much of it the dominant side learns by."""

import math
from dataclasses import replace

import pytest
import torch
from branches import SMALL, close, gradients, logits_of, random_batch, randomised, softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from sgmft.models.baselines.balance_mla import branch_coefficients
from sgmft.utils.distributed_loss import BatchCrossEntropy

LABELS = torch.tensor([0, 1, 2, 0, 1])


def slow_coefficients(y_t, y_v, labels, strength):
    sums = [
        sum(softmax(row)[y] for row, y in zip(rows, labels, strict=True)) for rows in (y_t, y_v)
    ]
    ratios = sums[0] / sums[1], sums[1] / sums[0]
    return [1 - math.tanh(strength * max(rho, 0)) if rho > 1 else 1.0 for rho in ratios]


def plain_gradients(model, batch, labels=LABELS):
    """Of the three cross-entropies as they are."""
    return gradients(model, sum(cross_entropy(y, labels) for y in logits_of(model(batch))))


@settings(max_examples=100, deadline=None)
@given(
    posts=st.integers(1, 6),
    strength=st.floats(0, 3),
    spread=st.floats(0.1, 5),
    seed=st.integers(0, 1000),
)
def test_the_coefficients_are_the_cards(posts, strength, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    y_t, y_v = torch.randn((2, posts, 4), generator=generator, dtype=torch.float64) * spread
    labels = torch.randint(0, 4, (posts,), generator=generator)
    got = branch_coefficients(y_t, y_v, labels, strength)
    close(got, slow_coefficients(y_t.tolist(), y_v.tolist(), labels.tolist(), strength))
    assert got.max() == 1 and got.min() >= 0
    close(branch_coefficients(y_v, y_t, labels, strength), got.flip(0))


def test_equal_branches_are_both_left_alone():
    y = torch.randn(5, 3)
    assert branch_coefficients(y, y, LABELS).tolist() == [1, 1]


def test_a_hand_made_ratio_of_two():
    sure, torn = torch.tensor([[60.0, 0.0]], requires_grad=True), torch.tensor([[1.0, 1.0]])
    got = branch_coefficients(sure, torn, torch.tensor([0]), 0.3)
    torch.testing.assert_close(got, torch.tensor([1 - math.tanh(0.6), 1.0]))
    assert not got.requires_grad  # a factor, not something to learn by


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_hopeless_branches_give_numbers(strength):
    wrong, right = torch.tensor([[0.0, 500.0]]), torch.tensor([[500.0, 0.0]])
    label = torch.tensor([0])
    assert branch_coefficients(wrong, wrong, label, strength).tolist() == [1, 1]
    expected = [0.0 if strength else 1.0, 1.0]
    assert branch_coefficients(right, wrong, label, strength).tolist() == expected


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("dominant", ["text", "image"])
def test_the_dominant_side_learns_by_exactly_its_coefficient(dominant, strength):
    model, batch = randomised(replace(SMALL, modulation=strength)), random_batch()
    with torch.no_grad():  # one branch guesses, the other favours the right classes
        other = "image" if dominant == "text" else "text"
        model.get_submodule(f"{other}_head").weight.mul_(0.01)
        features = model(batch).fused.chunk(2, -1)[dominant == "image"]
        head = model.get_submodule(f"{dominant}_head")
        target = torch.nn.functional.one_hot(LABELS, 3).double() * 2
        head.weight.copy_(torch.linalg.lstsq(features, target).solution.T)
        head.bias.zero_()
    plain = plain_gradients(model, batch)
    output = model(batch)
    _, y_t, y_v = (x.tolist() for x in logits_of(output))
    scaled = gradients(model, model.loss(output, LABELS, BatchCrossEntropy()))
    both = slow_coefficients(y_t, y_v, LABELS.tolist(), strength)
    coefficient = both[dominant == "image"]
    assert 0 < coefficient < 0.75 and max(both) == 1
    own = {name for name in plain if name.startswith(f"{dominant}.")}
    assert own >= {f"{dominant}.project.weight", f"{dominant}.null"}
    for name, grad in plain.items():
        assert grad.abs().max() > 1e-8, name
        close(scaled[name], grad * coefficient if name in own else grad)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_balanced_branches_and_modulation_zero_scale_nothing(strength):
    model, batch = randomised(replace(SMALL, modulation=strength)), random_batch()
    if strength:
        with torch.no_grad():
            for head in (model.text_head, model.image_head):
                head.weight.zero_()
                head.bias.copy_(torch.tensor([0.5, -0.3, 0.1]))
    plain = plain_gradients(model, batch)
    scaled = gradients(model, model.loss(model(batch), LABELS, BatchCrossEntropy()))
    for name, grad in plain.items():
        close(scaled[name], grad)


def test_the_loss_is_three_cross_entropies_and_changes_no_number():
    model, batch = randomised(), random_batch()
    output = model(batch)
    before = [x.detach().clone() for x in (*logits_of(output), output.fused)]
    loss = model.loss(output, LABELS, BatchCrossEntropy())
    expected = 0.0
    for rows in logits_of(output):
        for row, label in zip(rows.tolist(), LABELS.tolist(), strict=True):
            expected -= math.log(softmax(row)[label]) / 5
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.backward()
    for a, b in zip(before, (*logits_of(output), output.fused), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(model(batch).logits, before[0])


def test_one_steps_scaling_is_not_left_behind():
    model, batch = randomised(), random_batch()
    first = gradients(model, model.loss(model(batch), LABELS, BatchCrossEntropy()))
    again = gradients(model, model.loss(model(batch), LABELS, BatchCrossEntropy()))
    for name, grad in first.items():
        assert torch.equal(again[name], grad), name


def test_the_loss_can_be_asked_for_without_gradients():
    model, batch = randomised(), random_batch()
    expected = model.loss(model(batch), LABELS, BatchCrossEntropy()).item()
    for quiet in (torch.no_grad(), torch.inference_mode()):
        with quiet:
            assert model.loss(model(batch), LABELS, BatchCrossEntropy()).item() == expected
