"""UniS-MMC's contrast: the formula, whatever the pairs, and which way it moves them."""

import pytest
import torch
from contrasts import flags, slow_contrast
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from sgmft.models.baselines.unis_mmc import multimodal_contrast
from token_batches import normal

CASES = {
    "all correct": ("11111", "11111", "11111"),
    "none correct": ("00000", "00000", "11111"),
    "text alone": ("11111", "00000", "11111"),
    "image alone": ("00000", "11111", "11111"),
    "mixed": ("11001", "10100", "11111"),
    "a missing side among the right and the wrong": ("11001", "10100", "10110"),
    "right ones only where a side is missing": ("10000", "11000", "00111"),
    "one pair": ("10000", "00000", "00010"),
    "no pair": ("11001", "10100", "00000"),
    "no post": ("", "", ""),
}
ZERO = {"all correct", "none correct", "text alone", "image alone"} | {
    name for name in CASES if "only where" in name or name.startswith(("one", "no "))
}


@pytest.mark.parametrize("tau", [0.07, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_the_contrast_is_the_formula(name, tau):
    right_t, right_v, paired = map(flags, CASES[name])
    t, v = normal(len(paired), 4).requires_grad_(), normal(len(paired), 4, seed=1).requires_grad_()
    loss = multimodal_contrast(t, v, right_t, right_v, paired, tau)
    expected = slow_contrast(t.tolist(), v.tolist(), right_t, right_v, paired, tau)
    assert loss.shape == () and loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert (loss.item() == 0) == (name in ZERO)
    for grad in torch.autograd.grad(loss, (t, v)):  # there is a gradient, if only zero
        assert grad.isfinite().all()


@settings(max_examples=100, deadline=None)
@given(
    posts=st.lists(st.tuples(*[st.booleans()] * 3), max_size=8),
    width=st.integers(1, 5),
    tau=st.floats(0.05, 5),
    seed=st.integers(0, 1000),
)
def test_the_contrast_is_the_formula_on_any_batch(posts, width, tau, seed):
    right_t, right_v, paired = (
        torch.tensor([post[i] for post in posts], dtype=torch.bool) for i in range(3)
    )
    t, v = normal(len(posts), width, seed=seed), normal(len(posts), width, seed=seed + 1)
    loss = multimodal_contrast(t, v, right_t, right_v, paired, tau).item()
    expected = slow_contrast(t.tolist(), v.tolist(), right_t, right_v, paired, tau)
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert loss >= 0


def test_zero_representations_and_tiny_temperatures_give_numbers():
    t = torch.zeros(3, 4, requires_grad=True)
    for right in ("100", "000"):
        loss = multimodal_contrast(t, t * 1, flags(right), flags("000"), flags("111"), 1e-4)
        (grad,) = torch.autograd.grad(loss, t)
        assert loss.isfinite() and grad.isfinite().all()
    v = normal(3, 4).float()  # exp(1 / 1e-4) is beyond float32
    assert multimodal_contrast(v, v, flags("100"), flags("100"), flags("111"), 1e-4).isfinite()


def test_only_the_wrong_side_of_a_disagreement_moves():
    #       P     text right  image right   N    N   P and N without a pair
    right_t, right_v, paired = (
        flags("1110000" + "10"),
        flags("1001100" + "10"),
        flags("1" * 7 + "00"),
    )
    t, v = normal(9, 4).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    grads = torch.autograd.grad(multimodal_contrast(t, v, right_t, right_v, paired, 0.5), (t, v))
    moves = [(grad.abs().sum(-1) > 1e-6).tolist() for grad in grads]
    assert moves[0] == [True, False, False, True, True, True, True, False, False]
    assert moves[1] == [True, True, True, False, False, True, True, False, False]
    for grad, still in zip(grads, (right_t & ~right_v, right_v & ~right_t), strict=True):
        assert (grad[still | ~paired] == 0).all()
    h = 1e-6  # what moves, moves by the formula's derivative
    for side, grad in enumerate(grads):
        for i, j in ((i, j) for i in range(9) for j in range(4) if moves[side][i]):
            losses = []
            for step in (h, -h):
                rows = [t.tolist(), v.tolist()]
                rows[side][i][j] += step
                losses.append(slow_contrast(*rows, right_t, right_v, paired, 0.5))
            slope = (losses[0] - losses[1]) / (2 * h)
            assert grad[i, j].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_descent_brings_right_pairs_together_and_wrong_ones_apart():
    right_t, right_v, paired = flags("1100"), flags("1000"), flags("1111")
    t, v = normal(4, 6).requires_grad_(), normal(4, 6, seed=1).requires_grad_()
    before = cosine_similarity(t, v)
    loss = multimodal_contrast(t, v, right_t, right_v, paired, 0.5)
    step = [
        x - 0.01 * grad for x, grad in zip((t, v), torch.autograd.grad(loss, (t, v)), strict=True)
    ]
    closer = cosine_similarity(*step) > before
    assert closer.tolist() == [True, True, False, False]
