"""Balance-MLA: the network against loops over lists of floats, what it reads, and its settings."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from branches import (
    HAS_IMAGE,
    HAS_TEXT,
    REGIONS,
    SMALL,
    WORDS,
    close,
    gradients,
    logits_of,
    random_batch,
    randomised,
    softmax,
)
from torch.nn.functional import pad

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.baselines.balance_mla import METHOD, BalanceMLAConfig

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


def test_padding_and_missing_sides_do_not_leak():
    model, batch = randomised(), random_batch()
    expected = model(batch)
    text_mask, image_mask = batch.text_mask[..., None], batch.image_mask[..., None]
    noisy = batch._replace(
        text_tokens=batch.text_tokens.where(text_mask, torch.tensor(1e3).double()),
        image_tokens=batch.image_tokens.where(image_mask, torch.tensor(-1e3).double()),
        text=batch.text + 5,
        image=batch.image - 5,
    )
    longer = batch._replace(
        text_tokens=pad(batch.text_tokens, (0, 0, 0, 3), value=9.0),
        text_mask=pad(batch.text_mask, (0, 3)),
        image_tokens=pad(batch.image_tokens, (0, 0, 0, 4), value=9.0),
        image_mask=pad(batch.image_mask, (0, 4)),
        image_index=pad(batch.image_index, (0, 4)),
    )
    for changed in (noisy, longer):
        output = model(changed)
        for a, b in zip(logits_of(output), logits_of(expected), strict=True):
            close(a, b)
        close(output.fused, expected.fused)
    for i in range(5):  # alone, as among others
        alone = Batch._make(None if x is None else x[i : i + 1] for x in batch)
        close(model(alone).logits, expected.logits[i : i + 1])


def test_the_defaults_are_the_cards():
    config = BalanceMLAConfig(classes=7, text_width=512, image_width=1280)
    assert (config.width, config.heads, config.modulation) == (256, 8, 0.3)
    assert METHOD.load_config(json.loads(json.dumps(asdict(config)))) == config
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
