"""Balance-MLA: network and loss against loops, how the dominant branch learns, settings."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn.functional import cross_entropy

import reference_loops
from reference_loops import add, dot, gradients, linear, lists, softmax, standardised
from sgmft.features.features import Batch
from sgmft.models.baselines.unimodal_heads import BalanceMLA, BalanceMLAConfig, branch_coefficients
from sgmft.utils.distributed import BatchCrossEntropy

SMALL = BalanceMLAConfig(classes=3, text_width=7, image_width=5, width=8, heads=2)
WORDS, REGIONS = [5, 1, 4, 2, 3], [4, 6, 2, 4, 2]  # two regions a picture
HAS_TEXT, HAS_IMAGE = [True, True, False, True, False], [True, True, True, False, False]
LABELS = torch.tensor([0, 1, 2, 0, 1])


def random_batch():
    """Five posts of unequal length with random numbers in padding and in missing sides."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def mask(lengths, present):
        return torch.arange(max(lengths)) < (torch.tensor(lengths) * present)[:, None]

    present = torch.tensor(HAS_TEXT), torch.tensor(HAS_IMAGE)
    index = (torch.arange(max(REGIONS)) // 2).expand(5, -1)
    sides = normal(5, max(WORDS), 7), mask(WORDS, present[0]), normal(5, max(REGIONS), 5)
    return Batch(normal(5, 7), normal(5, 5), *present, *sides, mask(REGIONS, present[1]), index)


def made(**changes):
    """A network with random weights and scales, and a batch for it."""
    torch.manual_seed(0)
    model = BalanceMLA(replace(SMALL, **changes)).double().eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            x.copy_(torch.rand_like(x) + 0.5 if "deviation" in name else torch.randn_like(x) * 0.5)
    return model, random_batch()


def logits_of(output):
    return output.logits, output.parts["text_logits"], output.parts["image_logits"]


def loss_of(model, batch):
    return model.loss(model(batch), LABELS, BatchCrossEntropy())


def close(a, b):
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# --- the card as loops over lists of floats, one post at a time, without padding


def slow_attention(w, asks, other, heads):
    """Multi-head attention; the stacked input projection is cut into those of Q, K and V."""
    D = len(asks[0])
    for i, part in enumerate("QKV"):
        for kind in ("weight", "bias"):
            w[f"{part}.{kind}"] = w[f"attention.in_proj_{kind}"][i * D : (i + 1) * D]
    Q = [linear(w, "Q", x) for x in asks]
    K, V = ([linear(w, part, x) for x in other] for part in "KV")
    size, out = D // heads, []
    for q in Q:
        row = []
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            p = softmax([dot(q[cut], k[cut]) / math.sqrt(size) for k in K])
            row += [dot(p, column) for column in zip(*(v[cut] for v in V), strict=True)]
        out.append(linear(w, "attention.out_proj", row))
    return out


def slow_tokens(w, side, rows, pictures=None):
    if not rows:
        return [w[f"{side}.null"]]
    out = []
    for i, row in enumerate(rows):
        out.append(linear(w, f"{side}.project", standardised(w, f"{side}.token_scale", row)))
        if pictures is not None:
            out[-1] = add(out[-1], w["image.index.weight"][pictures[i]])
    return out


def slow_forward(w, heads, words, regions, pictures):
    """y, y_t, y_v and [f_t; f_v] of one post."""
    T, V = slow_tokens(w, "text", words), slow_tokens(w, "image", regions, pictures)
    branches = []
    for asks, other in ((T, V), (V, T)):
        rows = [add(x, a) for x, a in zip(asks, slow_attention(w, asks, other, heads), strict=True)]
        branches.append([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    f_t, f_v = branches
    y_t, y_v = linear(w, "text_head", f_t), linear(w, "image_head", f_v)
    alpha = [1 / (1 + math.exp(-a)) for a in linear(w, "weigh", f_t + f_v)]
    y = [a * t + (1 - a) * v for a, t, v in zip(alpha, y_t, y_v, strict=True)]
    return y, y_t, y_v, f_t + f_v


def slow_coefficients(y_t, y_v, labels, strength):
    sums = [
        sum(softmax(row)[y] for row, y in zip(rows, labels, strict=True)) for rows in (y_t, y_v)
    ]
    ratios = sums[0] / sums[1], sums[1] / sums[0]
    return [1 - math.tanh(strength * max(rho, 0)) if rho > 1 else 1.0 for rho in ratios]


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_the_whole_network_is_the_card(heads):
    model, batch = made(heads=heads)
    w, output, rows = lists(model), model(batch), []
    for i in range(5):
        words = batch.text_tokens[i, : WORDS[i]].tolist() if HAS_TEXT[i] else []
        regions = batch.image_tokens[i, : REGIONS[i]].tolist() if HAS_IMAGE[i] else []
        rows.append(slow_forward(w, heads, words, regions, batch.image_index[i].tolist()))
    found = *logits_of(output), output.fused
    for got, expected in zip(found, zip(*rows, strict=True), strict=True):
        close(got, expected)


# --- the loss, and how much of it the dominant branch learns by


@given(st.integers(1, 6), st.floats(0, 3), st.floats(0.1, 5), st.integers(0, 1000))
def test_the_coefficients_are_the_cards(posts, strength, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    y_t, y_v = torch.randn((2, posts, 4), generator=generator, dtype=torch.float64) * spread
    labels = torch.randint(0, 4, (posts,), generator=generator)
    got = branch_coefficients(y_t.requires_grad_(), y_v, labels, strength)
    close(got, slow_coefficients(y_t.tolist(), y_v.tolist(), labels.tolist(), strength))
    assert got.max() == 1 and got.min() >= 0
    assert not got.requires_grad  # a factor, not something to learn by
    close(branch_coefficients(y_v, y_t, labels, strength), got.flip(0))


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_equal_and_hopeless_branches_give_numbers(strength):
    y = torch.randn(5, 3)
    assert branch_coefficients(y, y, LABELS, strength).tolist() == [1, 1]
    wrong, right = torch.tensor([[0.0, 500.0]]), torch.tensor([[500.0, 0.0]])
    label = torch.tensor([0])
    assert branch_coefficients(wrong, wrong, label, strength).tolist() == [1, 1]
    expected = [0.0 if strength else 1.0, 1.0]
    assert branch_coefficients(right, wrong, label, strength).tolist() == expected


def plain_gradients(model, batch):
    """Of the three cross-entropies as they are."""
    return gradients(model, sum(cross_entropy(y, LABELS) for y in logits_of(model(batch))))


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("dominant", ["text", "image"])
def test_the_dominant_side_learns_by_exactly_its_coefficient(dominant, strength):
    model, batch = made(modulation=strength)
    with torch.no_grad():  # one branch guesses, the other favours the right classes
        other = "image" if dominant == "text" else "text"
        model.get_submodule(f"{other}_head").weight.mul_(0.01)
        features = model(batch).fused.chunk(2, -1)[dominant == "image"]
        head = model.get_submodule(f"{dominant}_head")
        target = torch.nn.functional.one_hot(LABELS, 3).double() * 2
        head.weight.copy_(torch.linalg.lstsq(features, target).solution.T)
        head.bias.zero_()
    plain = plain_gradients(model, batch)
    _, y_t, y_v = (x.tolist() for x in logits_of(model(batch)))
    scaled = gradients(model, loss_of(model, batch))
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
    model, batch = made(modulation=strength)
    if strength:
        with torch.no_grad():
            for head in (model.text_head, model.image_head):
                head.weight.zero_()
                head.bias.copy_(torch.tensor([0.5, -0.3, 0.1]))
    plain = plain_gradients(model, batch)
    for name, grad in gradients(model, loss_of(model, batch)).items():
        close(grad, plain[name])


def test_the_loss_is_three_cross_entropies_and_changes_no_number():
    model, batch = made()
    output = model(batch)
    before = [x.detach().clone() for x in (*logits_of(output), output.fused)]
    loss = model.loss(output, LABELS, BatchCrossEntropy())
    rows = [x.tolist() for x in logits_of(output)]
    expected = sum(reference_loops.cross_entropy(row, LABELS.tolist()) for row in rows)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    first = gradients(model, loss)
    for a, b in zip(before, (*logits_of(output), output.fused), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(model(batch).logits, before[0])
    again = gradients(model, loss_of(model, batch))  # a step's scaling is not left behind
    assert all(torch.equal(again[name], grad) for name, grad in first.items())
    for quiet in (torch.no_grad(), torch.inference_mode()):
        with quiet:
            assert loss_of(model, batch).item() == loss.item()
