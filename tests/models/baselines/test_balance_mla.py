"""Balance-MLA: network and loss against loops, how the dominant branch learns, settings."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.baselines.balance_mla import (
    METHOD,
    BalanceMLA,
    BalanceMLAConfig,
    branch_coefficients,
)
from sgmft.utils.distributed_loss import BatchCrossEntropy

SMALL = BalanceMLAConfig(classes=3, text_width=7, image_width=5, width=8, heads=2)
WORDS, REGIONS = [5, 1, 4, 2, 3], [4, 6, 2, 4, 2]  # two regions a picture
HAS_TEXT, HAS_IMAGE = [True, True, False, True, False], [True, True, True, False, False]


def softmax(x):
    powers = [math.exp(a - max(x)) for a in x]
    return [a / sum(powers) for a in powers]


def random_batch(config=SMALL, seed=0):
    """Five posts of unequal length with random numbers in padding and in missing sides."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def mask(lengths, present):
        return torch.arange(max(lengths)) < (torch.tensor(lengths) * present)[:, None]

    present = torch.tensor(HAS_TEXT), torch.tensor(HAS_IMAGE)
    return Batch(
        normal(5, config.text_width),
        normal(5, config.image_width),
        *present,
        normal(5, max(WORDS), config.text_width),
        mask(WORDS, present[0]),
        normal(5, max(REGIONS), config.image_width),
        mask(REGIONS, present[1]),
        (torch.arange(max(REGIONS)) // 2).expand(5, -1),
        torch.full((5, 1), -1, dtype=torch.int32),
    )


def randomised(config=SMALL, seed=0):
    torch.manual_seed(seed)
    model = BalanceMLA(config).double().eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            x.copy_(torch.rand_like(x) + 0.5 if "deviation" in name else torch.randn_like(x) * 0.5)
    return model


def logits_of(output):
    return output.logits, output.parts["text_logits"], output.parts["image_logits"]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(a, b):
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# --- the card as loops over lists of floats, one post at a time, without padding ---


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def add(x, y):
    return [a + b for a, b in zip(x, y, strict=True)]


def linear(x, weight, bias):
    return [dot(x, row) + b for row, b in zip(weight, bias, strict=True)]


def slow_attention(w, asks, other, heads):
    """Multi-head attention; the stacked input projection is cut into those of Q, K and V."""
    D = len(asks[0])
    weight, bias = w["attention.in_proj_weight"], w["attention.in_proj_bias"]
    Q, K, V = (
        [linear(x, weight[i * D : (i + 1) * D], bias[i * D : (i + 1) * D]) for x in X]
        for i, X in enumerate((asks, other, other))
    )
    size, out = D // heads, []
    for q in Q:
        row = []
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            p = softmax([dot(q[cut], k[cut]) / math.sqrt(size) for k in K])
            row += [dot(p, column) for column in zip(*(v[cut] for v in V), strict=True)]
        out.append(linear(row, w["attention.out_proj.weight"], w["attention.out_proj.bias"]))
    return out


def slow_tokens(w, side, rows, pictures=None):
    if not rows:
        return [w[f"{side}.null"]]
    mean, deviation = w[f"{side}.token_scale.mean"], w[f"{side}.token_scale.deviation"]
    out = []
    for i, row in enumerate(rows):
        x = [(a - m) / s for a, m, s in zip(row, mean, deviation, strict=True)]
        out.append(linear(x, w[f"{side}.project.weight"], w[f"{side}.project.bias"]))
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
    y_t = linear(f_t, w["text_head.weight"], w["text_head.bias"])
    y_v = linear(f_v, w["image_head.weight"], w["image_head.bias"])
    y = []
    for a, t, v in zip(
        linear(f_t + f_v, w["weigh.weight"], w["weigh.bias"]), y_t, y_v, strict=True
    ):
        alpha = 1 / (1 + math.exp(-a))
        y.append(alpha * t + (1 - alpha) * v)
    return y, y_t, y_v, f_t + f_v


# --- what is tested ---


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_the_whole_network_is_the_card(heads):
    config = replace(SMALL, heads=heads)
    model, batch = randomised(config), random_batch()
    w = {name: x.tolist() for name, x in model.state_dict().items()}
    output = model(batch)
    rows = []
    for i in range(5):
        words = batch.text_tokens[i, : WORDS[i]].tolist() if HAS_TEXT[i] else []
        regions = batch.image_tokens[i, : REGIONS[i]].tolist() if HAS_IMAGE[i] else []
        rows.append(slow_forward(w, heads, words, regions, batch.image_index[i].tolist()))
    *expected, fused = zip(*rows, strict=True)
    for got, rows in zip(logits_of(output), expected, strict=True):
        close(got, rows)
    close(output.fused, fused)


def test_one_attention_serves_both_directions():
    model, batch = randomised(), random_batch()
    names = [name for name, _ in model.named_parameters() if "attention" in name]
    assert len(names) == 4  # stacked Q, K, V and the output, weight and bias each
    for side in (1, 2):
        grads = gradients(model, logits_of(model(batch))[side].sum())
        assert grads["attention.in_proj_weight"].abs().sum() > 0


def test_decisions_are_mixed_class_by_class():
    model, batch = randomised(), random_batch()
    with torch.no_grad():
        model.weigh.weight.zero_()
        model.weigh.bias.copy_(torch.tensor([50.0, -50.0, 0.0]))
    y, y_t, y_v = logits_of(model(batch))
    close(y, torch.stack([y_t[:, 0], y_v[:, 1], (y_t[:, 2] + y_v[:, 2]) / 2], 1))


def test_the_defaults_are_the_cards():
    config = BalanceMLAConfig(classes=7, text_width=512, image_width=1280)
    assert (config.width, config.heads, config.modulation) == (256, 8, 0.3)
    assert (METHOD.name, METHOD.tokens) == ("balance-mla", True)
    assert "reconstruction" in METHOD.title


@pytest.mark.parametrize(
    "setting, words",
    [
        ({"width": 0}, "width must be"),
        ({"heads": 0}, "heads must be"),
        ({"heads": 3}, "width 8 cannot be cut into 3 heads"),
        ({"modulation": -0.1}, "modulation must be"),
        ({"modulation": math.nan}, "modulation must be"),
        ({"modulation": math.inf}, "modulation must be"),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, words):
    with pytest.raises(SgmftError, match=f"^{words}"):
        replace(SMALL, **setting)


# --- the loss, and how much of it the dominant branch learns by ---

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
