"""The paper's equations 1 to 16 and 18, module by module, against loops; test_fusions has 17."""

import pytest
import reference_sgmft as reference
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch.nn.functional import normalize

from sgmft.models.attention import AttentionHeads, InterpolationAttention
from sgmft.models.network import classifier
from sgmft.models.sgmft import (
    FeedForward,
    Temperature,
    element_entropy,
    element_probabilities,
    gate_entropy,
    interaction,
    modality_gate,
)
from token_batches import HEADS, IMAGE_MASK, TEXT_MASK, D, normal, randomize

views = pytest.mark.parametrize("width", [None, 1, 2, 4], ids=lambda w: f"w={w}")
temperatures = pytest.mark.parametrize("tau", [0.3, 1.0, 7.0])


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, number(b), rtol=1e-10, atol=atol)


def features(width=None, seed=0):
    """Text, image and their masks; padding holds random numbers, the elements view has none."""
    text, image = normal(2, 4, D, seed=seed), normal(2, 5, D, seed=seed + 1)
    return (
        (text, image, TEXT_MASK, IMAGE_MASK)
        if width is None
        else (text[:, 0], image[:, 0], None, None)
    )


def rows(x, mask, b):
    """A post's real tokens, or its one pooled vector, (n, D)."""
    return x[b][None] if mask is None else x[b][mask[b]]


def posts(*pairs):
    """Each post's rows as lists, of features with their masks."""
    return [[rows(x, mask, b).tolist() for x, mask in pairs] for b in range(2)]


# --- equations 1 to 5, and the entropy of the guidance


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@temperatures
def test_the_gate_is_equations_1_and_3(kind, tau):
    t, v = normal(3, D), normal(3, D, seed=1)
    p = modality_gate(t, v, number(tau), kind)
    close(p, [reference.gate(a, b, tau, kind) for a, b in zip(t.tolist(), v.tolist(), strict=True)])
    close(gate_entropy(p, kind), [reference.gate_entropy(row, kind) for row in p.tolist()])


@temperatures
def test_token_probabilities_are_equations_2_4_and_5(tau):
    text, image, text_mask, image_mask = features()
    p = element_probabilities(text, image, number(tau), image_mask)
    measured = element_entropy(text, image, number(tau), text_mask, image_mask)
    for b, (words, keys) in enumerate(posts((text, text_mask), (image, image_mask))):
        every = reference.element_probabilities(text[b].tolist(), keys, tau)
        close(p[b][:, image_mask[b]], every)
        close(measured[b], reference.element_entropy(words, keys, tau), 1e-6)
    assert (p[~image_mask[:, None].expand_as(p)] == 0).all()
    unmasked = element_probabilities(text, image, number(tau))[1]
    close(unmasked, reference.element_probabilities(text[1].tolist(), image[1].tolist(), tau))


def test_a_single_key_leaves_no_choice_and_counts_as_uniform():
    text, image, text_mask, _ = features()
    only = torch.arange(5) < torch.tensor([[1], [5]])
    measured = element_entropy(text, image, number(1.0), text_mask, only)
    assert measured[0] == 1 and measured[1] < 1
    assert element_entropy(text, image[:, :1], number(1.0)).tolist() == [1, 1]


@pytest.mark.parametrize("width", [D, 256])
def test_entropy_of_the_elements_view(width):
    """At 256 the rows are interpolated, at 8 they are not."""
    t, v = 0.3 * normal(2, width), 0.3 * normal(2, width, seed=1)
    columns = [
        (reference.column(a), reference.column(b))
        for a, b in zip(t.tolist(), v.tolist(), strict=True)
    ]
    expected = [reference.element_entropy(*pair, 2.0) for pair in columns]
    close(element_entropy(t, v, number(2.0)), expected, 1e-7)
    assert max(expected) < 0.9999
    p = element_probabilities(t[..., None], v[..., None], number(2.0))
    close(p, [reference.element_probabilities(*pair, 2.0) for pair in columns])


def test_unit_features_at_temperature_1_leave_the_guidance_nearly_uniform():
    torch.manual_seed(0)
    t, v = (normalize(torch.randn(4, 1024), dim=-1) for _ in range(2))
    one, large = torch.tensor(1.0), torch.tensor(3000.0)
    p = modality_gate(t, v, one, "softmax")  # equation 12 is nearly all self-attention
    torch.testing.assert_close(p, torch.full_like(p, 1 / 1024), rtol=0.02, atol=0)
    assert min(gate_entropy(p, "softmax").min(), element_entropy(t, v, one).min()) > 0.999
    gate = gate_entropy(modality_gate(t, v, large, "softmax"), "softmax")
    assert max(gate.max(), element_entropy(t, v, large).max()) < 0.9


def test_a_gate_at_one_half_guides_nothing():
    half = modality_gate(torch.zeros(1, D), torch.ones(1, D), torch.tensor(5.0), "sigmoid")
    assert (half == 0.5).all() and gate_entropy(half, "sigmoid").item() == 1
    sure = modality_gate(torch.ones(1, D), torch.ones(1, D), torch.tensor(200.0), "sigmoid")
    assert gate_entropy(sure, "sigmoid").item() == 0


@given(
    scale=st.floats(-6, 4).map(lambda x: 10**x),
    tau=st.floats(-3, 4).map(lambda x: 10**x),
    width=st.sampled_from([2, 16, 64, 200]),
    seed=st.integers(0, 1000),
)
def test_entropies_stay_between_0_and_1(scale, tau, width, seed):
    t, v = ((scale * normal(3, width, seed=seed + i)).float() for i in range(2))
    temperature = torch.tensor(tau)
    found = [
        gate_entropy(modality_gate(t, v, temperature, kind), kind)
        for kind in ("softmax", "sigmoid")
    ]
    found.append(element_entropy(t, v, temperature))
    tokens = t[:, None].expand(-1, 4, -1), v[:, None] * torch.tensor([1.0, 0.9, -1])[:, None]
    masks = torch.arange(4) < torch.tensor([[1], [2], [4]]), torch.ones(3, 3, dtype=torch.bool)
    found.append(element_entropy(*tokens, temperature, *masks))
    for entropies in found:
        assert entropies.shape == (3,)
        assert (entropies >= 0).all() and (entropies <= 1).all()


def test_temperature_is_a_number_or_learned():
    assert Temperature()().item() == 1  # the literal form, exactly
    fixed, learned = Temperature(4.0), Temperature("learned", initial=100.0)
    assert fixed().item() == pytest.approx(4.0)
    assert learned().item() == pytest.approx(100.0)
    assert [fixed.log_value.requires_grad, learned.log_value.requires_grad] == [False, True]
    learned().backward()
    assert learned.log_value.grad.item() == pytest.approx(100.0)  # d exp(s) / ds


# --- equations 6 to 13


@views
def test_interpolation_attention_is_equations_6_to_13(width):
    block = randomize(InterpolationAttention(D, AttentionHeads(HEADS, width)))
    text, image, *masks = features(width)
    gate = torch.rand(2, D, dtype=torch.float64)
    out = block(text, image, gate, *masks)
    w = reference.matrices(block)
    for b, post in enumerate(posts((text, masks[0]), (image, masks[1]))):
        expected = reference.interpolation_attention(w, *post, gate[b].tolist(), HEADS, width)
        for x, mask, numbers in zip(out, masks, expected, strict=True):
            close(rows(x, mask, b), numbers)


# --- equations 14 to 16, and 18


@pytest.mark.parametrize("tau", [0.5, 6.0])
def test_equation_14_on_tokens(tau):
    text, image, _, mask = features()
    x = normal(2, 5, D, seed=2)
    inter = interaction(text, image, x, number(tau), mask)
    for b, (keys, values) in enumerate(posts((image, mask), (x, mask))):
        close(inter[b], reference.interaction(text[b].tolist(), keys, values, tau))


@pytest.mark.parametrize("width", [D, 128])
@pytest.mark.parametrize("tau", [0.5, 6.0])
def test_equation_14_on_elements(tau, width):
    """Exact at width 8, interpolated to float32 rounding at 128."""
    t, v, x = (s * normal(2, width, seed=i) for i, s in enumerate((0.5, 0.5, 1.0)))
    inter = interaction(t, v, x, number(tau), None)
    for b in range(2):
        columns = (reference.column(a[b].tolist()) for a in (t, v, x))
        expected = [a for (a,) in reference.interaction(*columns, tau)]
        close(inter[b], expected, 1e-10 if width == D else 1e-7 * float(x.abs().max()))


@pytest.mark.parametrize("guided", [True, False])
def test_equations_15_and_16(guided):
    """Without X_inter the conventional block, which has no W3."""
    block = randomize(FeedForward(D, 20, guided))
    assert (block.w3 is None) is not guided
    w, x, inter = reference.matrices(block), normal(2, 5, D), normal(2, 5, D, seed=1)
    given = (x, inter) if guided else (x,)
    tokens, pooled = block(*given), block(*(a[:, 0] for a in given))
    for b in range(2):
        close(tokens[b], reference.feed_forward(w, *(a[b].tolist() for a in given)))
    close(pooled, reference.feed_forward(w, *(a[:, 0].tolist() for a in given)))


def test_equation_18_is_five_fully_connected_layers():
    made, x = randomize(classifier(D, 3, (12, 10, 8, 6))), normal(4, D)
    close(made(x), [reference.classifier(reference.matrices(made), row) for row in x.tolist()])
    assert made(x).min() < 0  # logits: no ReLU at the end
    sizes = [(m.in_features, m.out_features) for m in classifier(D, 3) if isinstance(m, nn.Linear)]
    assert sizes == [(D, 512), (512, 256), (256, 128), (128, 64), (64, 3)]


def test_dropout_is_in_training_only():
    text, image, *masks = features()
    modules = (
        (InterpolationAttention(D, AttentionHeads(HEADS), 0.5), (text, image, text[:, 0], *masks)),
        (FeedForward(D, 20, False, 0.5), (text,)),
        (classifier(D, 3, (12, 10), 0.5), (text,)),
    )
    for module, inputs in modules:
        randomize(module)
        for same in (True, False):
            first, second = (module.train(not same)(*inputs) for _ in range(2))
            pairs = zip(first, second, strict=True)
            assert all(torch.equal(a, b) is same for a, b in pairs)
