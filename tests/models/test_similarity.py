import math

import pytest
import reference_sgmft as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from sgmft.models.similarity import (
    Temperature,
    element_entropy,
    element_probabilities,
    gate_entropy,
    modality_gate,
)

D = 16
quick = settings(max_examples=40, deadline=None)


def normal(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def unit_pair(batch=4, width=1024):
    torch.manual_seed(0)
    return (normalize(torch.randn(batch, width), dim=-1) for _ in range(2))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tau", [0.3, 1.0, 7.0])
def test_the_gate_is_equations_1_and_3(kind, tau):
    t, v = normal(3, D), normal(3, D, seed=1)
    p = modality_gate(t, v, number(tau), kind)
    close(p, [reference.gate(a, b, tau, kind) for a, b in zip(t.tolist(), v.tolist(), strict=True)])
    close(
        gate_entropy(p, kind),
        [reference.gate_entropy(row, kind) for row in p.tolist()],
    )
    if kind == "softmax":
        close(p.sum(-1), [1.0] * 3)


@pytest.mark.parametrize("tau", [0.3, 1.0, 7.0])
def test_token_probabilities_are_equations_2_4_and_5(tau):
    text, image = normal(2, 5, D, scale=0.5), normal(2, 7, D, seed=1, scale=0.5)
    mask = torch.tensor([[True] * 7, [True, True, False, True, False, True, False]])
    p = element_probabilities(text, image, number(tau), mask)
    for b in range(2):
        keys = image[b][mask[b]].tolist()
        close(p[b][:, mask[b]], reference.element_probabilities(text[b].tolist(), keys, tau))
    assert (p[1][:, ~mask[1]] == 0).all()
    close(p.sum(-1), [[1.0] * 5] * 2)
    everything = element_probabilities(text, image, number(tau))
    close(everything[1], reference.element_probabilities(text[1].tolist(), image[1].tolist(), tau))


def test_element_probabilities_are_one_row_for_each_text_element():
    t, v = normal(2, D), normal(2, D, seed=1)
    p = element_probabilities(t[..., None], v[..., None], number(2.0))
    assert p.shape == (2, D, D)
    for b in range(2):
        columns = reference.column(t[b].tolist()), reference.column(v[b].tolist())
        close(p[b], reference.element_probabilities(*columns, 2.0))


@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_token_entropy_is_the_mean_over_real_rows(tau):
    text, image = normal(3, 5, D, scale=0.5), normal(3, 7, D, seed=1, scale=0.5)
    queries = torch.arange(5) < torch.tensor([[5], [2], [1]])
    keys = torch.arange(7) < torch.tensor([[7], [3], [1]])
    measured = element_entropy(text, image, number(tau), queries, keys)
    expected = [
        reference.element_entropy(text[b][queries[b]].tolist(), image[b][keys[b]].tolist(), tau)
        for b in range(3)
    ]
    torch.testing.assert_close(measured, number(expected), rtol=0, atol=1e-6)
    assert measured[2] == 1  # a single key leaves no choice
    assert measured[0] < 1


def test_a_single_key_counts_as_uniform_without_a_mask_too():
    assert element_entropy(normal(2, 5, D), normal(2, 1, D, seed=1), number(1.0)).tolist() == [1, 1]


def test_masked_tokens_do_not_count():
    text, image = normal(1, 5, D), normal(1, 7, D, seed=1)
    queries, keys = torch.arange(5)[None] < 3, torch.arange(7)[None] < 4
    before = element_entropy(text, image, number(1.0), queries, keys)
    text[:, 3:], image[:, 4:] = 100, -100
    assert torch.equal(before, element_entropy(text, image, number(1.0), queries, keys))
    assert not torch.equal(before, element_entropy(text, image, number(1.0)))


@pytest.mark.parametrize("width", [D, 256])
def test_entropy_of_the_elements_view(width):
    """At 256 the rows are interpolated, at 16 they are not."""
    t, v = normal(1, width, scale=0.3), normal(1, width, seed=1, scale=0.3)
    expected = reference.element_entropy(
        reference.column(t[0].tolist()), reference.column(v[0].tolist()), 2.0
    )
    measured = element_entropy(t[..., None], v[..., None], number(2.0))
    assert measured.item() == pytest.approx(expected, abs=1e-7)
    assert expected < 0.9999


def test_unit_features_at_temperature_1_leave_the_guidance_nearly_uniform():
    t, v = unit_pair()
    for tau, alive in ((1.0, False), (3000.0, True)):
        temperature = torch.tensor(tau)
        gate = gate_entropy(modality_gate(t, v, temperature, "softmax"), "softmax")
        elements = element_entropy(t[..., None], v[..., None], temperature)
        if alive:
            assert gate.max() < 0.9 and elements.max() < 0.9
        else:
            assert gate.min() > 0.999 and elements.min() > 0.999
    # the literal gate: about 1/1024 everywhere, so equation 12 is nearly all self-attention
    p = modality_gate(t, v, torch.tensor(1.0), "softmax")
    torch.testing.assert_close(p, torch.full_like(p, 1 / 1024), rtol=0.02, atol=0)


def test_a_gate_at_one_half_says_nothing():
    half = modality_gate(torch.zeros(1, D), torch.ones(1, D), torch.tensor(5.0), "sigmoid")
    assert (half == 0.5).all() and gate_entropy(half, "sigmoid").item() == 1
    sure = modality_gate(torch.ones(1, D), torch.ones(1, D), torch.tensor(200.0), "sigmoid")
    assert gate_entropy(sure, "sigmoid").item() == 0


@quick
@given(
    scale=st.floats(-6, 4).map(lambda x: 10**x),
    tau=st.floats(-3, 4).map(lambda x: 10**x),
    width=st.sampled_from([2, 16, 64, 200]),
    seed=st.integers(0, 1000),
)
def test_entropies_stay_between_0_and_1(scale, tau, width, seed):
    t, v = (normal(3, width, scale=scale, seed=seed + i).float() for i in range(2))
    temperature = torch.tensor(tau)
    found = [
        gate_entropy(modality_gate(t, v, temperature, kind), kind)
        for kind in ("softmax", "sigmoid")
    ]
    found.append(element_entropy(t[..., None], v[..., None], temperature))
    tokens = t[:, None].expand(-1, 4, -1), v[:, None] * torch.tensor([1.0, 0.9, -1])[:, None]
    masks = torch.arange(4) < torch.tensor([[1], [2], [4]]), torch.ones(3, 3, dtype=torch.bool)
    found.append(element_entropy(*tokens, temperature, *masks))
    for entropies in found:
        assert entropies.shape == (3,)
        assert (entropies >= 0).all() and (entropies <= 1).all()


def test_temperature_is_a_number_or_learned():
    fixed = Temperature(4.0)
    assert fixed().item() == pytest.approx(4.0)
    assert Temperature()().item() == 1  # the literal form, exactly
    assert [p.requires_grad for p in fixed.parameters()] == [False]
    learned = Temperature("learned", initial=100.0)
    assert learned().item() == pytest.approx(100.0)
    assert [p.requires_grad for p in learned.parameters()] == [True]
    learned().backward()
    assert learned.log_value.grad.item() == pytest.approx(100.0)  # d exp(s) / ds
    assert math.isfinite(learned().item())
