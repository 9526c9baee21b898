import math

import pytest
import torch
from hypothesis import example, given, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sgmft.models.sgmft import MAX_NODES, nodes_needed, rank_one_attention, rank_one_entropy

EPS = torch.finfo(torch.float32).eps
powers = st.floats(-4, 1).map(lambda x: 10**x)
scales = {
    "tau": st.floats(-3, 4).map(lambda x: 10**x),
    "width": st.sampled_from([64, 200, 512, 1024]),
    "spread": st.tuples(powers, powers),
    "offset": st.tuples(st.sampled_from([0.0, 0.3, -2.0]), st.sampled_from([0.0, 0.3, -5.0])),
    "size": st.floats(-20, 20).map(lambda x: 10**x),
    "seed": st.integers(0, 10_000),
}


def inputs(width, spread, offset, size=1.0, seed=0, batch=2):
    torch.manual_seed(seed)
    t, v = (torch.randn(batch, width) * s + o for s, o in zip(spread, offset, strict=True))
    return t, v, torch.randn(batch, width) * size


def logits(t, v, tau):
    t, v, tau = t.double(), v.double(), torch.as_tensor(tau).double()
    return tau * t[:, :, None] * v[:, None, :]


def exact(t, v, x, tau):
    return (logits(t, v, tau).softmax(-1) @ x.double()[:, :, None])[..., 0]


def rounding(t, v, tau):
    """What rounding logits of this size to float32 can do to a softmax, relative to the values."""
    spread = (v.amax(-1) - v.amin(-1)).max() / 2
    return EPS * float(tau * t.abs().max() * spread)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


@given(**scales)
@example(tau=1.0, width=1024, spread=(0.03, 0.03), offset=(0.0, 0.0), size=1.0, seed=0)
@example(tau=1e4, width=512, spread=(10.0, 10.0), offset=(-2.0, -5.0), size=1e20, seed=0)
def test_within_rounding_of_the_exact_softmax(tau, width, spread, offset, size, seed):
    t, v, x = inputs(width, spread, offset, size, seed)
    temperature = torch.tensor(tau)
    error = (rank_one_attention(t, v, x, temperature).double() - exact(t, v, x, temperature)).abs()
    assert error.max() / x.abs().max() <= 1e-6 + rounding(t, v, tau)


def half_ranges(t, v):
    return [(x.amax(-1) - x.amin(-1)) / 2 for x in (t, v)]


@given(rho=st.floats(-3, 0.7).map(lambda x: 10**x), seed=st.integers(0, 10_000))
def test_where_it_interpolates_the_error_is_below_1e_6(rho, seed):
    """Heavy tails and outliers included: the bound asks only for the ranges of t and v."""
    torch.manual_seed(seed)
    t, v, x = (torch.randn(2, 256) ** p for p in (1, 3, 1))
    tau = torch.tensor(rho) / math.prod(half_ranges(t, v)).max()
    error = (rank_one_attention(t, v, x, tau).double() - exact(t, v, x, tau)).abs().max()
    assert error / x.abs().max() <= 1e-6
    expected = torch.special.entr(logits(t, v, tau).softmax(-1)).sum(-1)
    error = (rank_one_entropy(t, v, tau).double() - expected).abs().max()
    assert error <= 1e-6 * math.log(256)


def gradients(function, leaves, weight):
    leaves = [a.clone().requires_grad_() for a in leaves]
    out = function(*leaves)
    return out.detach(), torch.autograd.grad((out * weight).sum(), leaves)


DRAWN = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("t", "v"),
    [
        (torch.zeros(2, 64), DRAWN),
        (torch.full((2, 64), 0.03), DRAWN),
        (DRAWN, torch.zeros(2, 64)),
        (DRAWN, torch.full((2, 64), 1e6)),
        (torch.zeros(2, 64), torch.zeros(2, 64)),
        (torch.full((2, 64), 1e20), torch.full((2, 64), -3.0)),
        (1 + EPS * (torch.arange(64) % 2).expand(2, 64), DRAWN),
    ],
    ids=["zero t", "constant t", "zero v", "constant v", "zeros", "huge t", "two neighbours"],
)
def test_constant_queries_and_keys(t, v):
    """Values and gradients stay those of the exact form where the interval has no width."""
    torch.manual_seed(0)
    leaves = t, v, torch.randn(2, 64), torch.tensor(1.0)
    weight = torch.randn(2, 64)
    out, found = gradients(rank_one_attention, leaves, weight)
    value, expected = gradients(exact, [a.double() for a in leaves], weight)
    torch.testing.assert_close(out.double(), value, rtol=0, atol=2e-6)
    for a, b in zip(found[:3], expected, strict=False):
        scale = float(b.abs().max())
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5 * scale + 1e-6)


def test_one_post_with_constant_features_among_others():
    t, v, x = inputs(256, (0.5, 0.5), (0.0, 0.0), batch=3)
    t[1], v[2] = 0, 1
    t.requires_grad_()
    out = rank_one_attention(t, v, x, torch.tensor(1.0))
    torch.testing.assert_close(out.double(), exact(t, v, x, 1.0), rtol=0, atol=2e-6)
    out.sum().backward()
    assert t.grad.abs().max() < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rho", [0.01, 0.1, 1.0, 5.0])
def test_gradients_agree_with_the_exact_form(rho, dtype):
    t, v, x = (a.to(dtype) for a in inputs(256, (1.0, 1.0), (0.2, -0.1)))
    leaves = t, v, x, rho / math.prod(half_ranges(t, v)).max()
    assert nodes_needed(rho) < 256 // 2  # it does interpolate
    weight = torch.randn(2, 256)
    _, found = gradients(rank_one_attention, leaves, weight)
    _, expected = gradients(exact, [a.double() for a in leaves], weight)
    for name, a, b in zip(("queries", "keys", "values", "tau"), found, expected, strict=True):
        error = (a.double() - b).abs().max() / b.abs().max()
        single = 1e-4 if name == "tau" else 1e-5  # tau: one sum of all
        assert error < (single if dtype == torch.float32 else 1e-6), (name, error)


def test_the_number_of_nodes_follows_the_range():
    counts = [nodes_needed(rho) for rho in (0.0, 1e-7, 1e-3, 0.1, 1.0, 3.0)]
    assert counts == sorted(counts) and 2 <= counts[0] < counts[-1] <= MAX_NODES
    for rho in (1e3, math.inf, math.nan):
        assert nodes_needed(rho) is None


def test_falls_back_to_the_exact_form_where_the_range_is_large():
    t, v, x = inputs(256, (1.0, 1.0), (0.0, 0.0))
    for tau in (1e2, 1e4):
        with Largest() as seen:
            out = rank_one_attention(t, v, x, torch.tensor(tau))
        assert seen.numel >= 2 * 256 * 256
        error = (out.double() - exact(t, v, x, tau)).abs().max()
        assert error <= x.abs().max() * (1e-6 + rounding(t, v, tau))


def test_memory_is_linear_in_the_width():
    t, v, x = inputs(1024, (0.1, 0.1), (0.0, 0.0))
    nodes = nodes_needed(1.0)
    with Largest() as seen:
        rank_one_attention(t, v, x, torch.tensor(5.0))
        rank_one_entropy(t, v, torch.tensor(5.0))
    assert seen.numel <= 2 * 1024 * nodes < 2 * 1024 * 1024 // 16


def test_a_batch_neighbour_changes_no_more_than_rounding():
    t, v, x = inputs(256, (0.2, 0.2), (0.0, 0.0))
    t[1] *= 5  # needs more nodes
    together = rank_one_attention(t, v, x, torch.tensor(1.0))[:1]
    alone = rank_one_attention(t[:1], v[:1], x[:1], torch.tensor(1.0))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_keys_far_from_zero_lose_nothing():
    """Only differences between keys count, so their common part must not eat the digits."""
    for width in (32, 256):  # exact and interpolated
        t, v, x = inputs(width, (0.1, 0.1), (1.0, 1000.0))
        error = (rank_one_attention(t, v, x, torch.tensor(1.0)) - exact(t, v, x, 1.0)).abs().max()
        assert error <= 1e-6
