"""UniS-MMC: the network and its loss against loops, what it learns by, and its settings."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from contrasts import dot, flags, slow_contrast
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.baselines.unis_mmc import METHOD, UniSMMC, UniSMMCConfig
from sgmft.utils.distributed_loss import BatchCrossEntropy
from token_batches import normal

SMALL = UniSMMCConfig(classes=3, text_width=7, image_width=5, width=6)
HAS_TEXT = torch.tensor([True, True, False, True, True, False, True, True])
HAS_IMAGE = torch.tensor([True, True, True, False, True, False, True, True])

# --- the card as loops over lists of floats ---


def linear(x, weight, bias):
    return [dot(x, row) + b for row, b in zip(weight, bias, strict=True)]


def relu(x):
    return [max(a, 0.0) for a in x]


def slow_head(w, name, x):
    x = relu(linear(x, w[f"{name}.hidden.0.weight"], w[f"{name}.hidden.0.bias"]))
    x = relu(linear(x, w[f"{name}.hidden.3.weight"], w[f"{name}.hidden.3.bias"]))
    return x, linear(x, w[f"{name}.output.weight"], w[f"{name}.output.bias"])


def slow_side(w, name, x, present):
    if not present:
        return w[f"{name}.null"]
    mean, deviation = w[f"{name}.pooled_scale.mean"], w[f"{name}.pooled_scale.deviation"]
    x = [(a - m) / s for a, m, s in zip(x, mean, deviation, strict=True)]
    return linear(x, w[f"{name}.project.weight"], w[f"{name}.project.bias"])


def slow_forward(w, batch):
    """r_t, r_v, the logits of text, of image and of both, and the last hidden layer, by post."""
    rows = []
    for i in range(len(batch.text)):
        t = slow_side(w, "text", batch.text[i].tolist(), batch.has_text[i])
        v = slow_side(w, "image", batch.image[i].tolist(), batch.has_image[i])
        hidden, both = slow_head(w, "head", t + v)
        rows.append((t, v, slow_head(w, "text_head", t)[1], slow_head(w, "image_head", v)[1]))
        rows[-1] += (both, hidden)
    return [list(column) for column in zip(*rows, strict=True)]


def slow_cross_entropy(logits, labels):
    losses = [
        math.log(sum(math.exp(a) for a in row)) - row[y]
        for row, y in zip(logits, labels, strict=True)
    ]
    return sum(losses) / len(losses)


# --- what is tested ---


def random_batch(config=SMALL, seed=0):
    size = len(HAS_TEXT)
    pooled = normal(size, config.text_width, seed=seed), normal(size, config.image_width, seed=9)
    return Batch(*pooled, HAS_TEXT, HAS_IMAGE)


def randomised(config=SMALL, seed=0):
    torch.manual_seed(seed)
    model = UniSMMC(config).double().eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            x.copy_(torch.rand_like(x) + 0.5 if "deviation" in name else torch.randn_like(x) * 0.6)
    return model


def mixed_labels(output):
    """Labels that put posts 0, 1, 4, 6, 7, the pairs, in P, S, S, N, N as far as they can be."""
    text, image = (output.parts[f"{side}_logits"].argmax(-1) for side in ("text", "image"))
    labels = (3 - text - image) % 3  # neither, where the two differ
    labels = torch.where(text == image, (text + 1) % 3, labels)
    labels[[0, 1]] = text[[0, 1]]
    labels[4] = image[4]
    return labels


def test_the_whole_network_is_the_card():
    model, batch = randomised(), random_batch()
    w = {name: x.tolist() for name, x in model.state_dict().items()}
    output = model(batch)
    *parts, logits, hidden = slow_forward(w, batch)
    names = ("text", "image", "text_logits", "image_logits")
    for name, expected in zip(names, parts, strict=True):
        torch.testing.assert_close(output.parts[name], torch.tensor(expected).double())
    for got, expected in ((output.logits, logits), (output.fused, hidden)):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert output.parts["paired"].tolist() == (HAS_TEXT & HAS_IMAGE).tolist()


@pytest.mark.parametrize("contrast, tau", [(0.1, 0.07), (2.0, 1.0), (0.0, 0.07)])
def test_the_loss_is_three_cross_entropies_and_the_contrast(contrast, tau):
    model = randomised(replace(SMALL, contrast=contrast, contrast_temperature=tau))
    batch = random_batch()
    output = model(batch)
    labels = mixed_labels(output)
    w = {name: x.tolist() for name, x in model.state_dict().items()}
    t, v, text, image, both, _ = slow_forward(w, batch)
    y = labels.tolist()
    right = [
        [row.index(max(row)) == label for row, label in zip(rows, y, strict=True)]
        for rows in (text, image)
    ]
    mmc = slow_contrast(t, v, *right, (HAS_TEXT & HAS_IMAGE).tolist(), tau)
    assert mmc > 0.01  # the labels make it count
    expected = sum(slow_cross_entropy(x, y) for x in (text, image, both)) + contrast * mmc
    assert model.loss(output, labels, BatchCrossEntropy()).item() == pytest.approx(
        expected, rel=1e-10
    )


def test_without_contrast_the_representations_learn_by_the_labels_alone():
    grads = []
    for contrast in (0.0, 0.1, None):
        model = randomised(replace(SMALL, contrast=contrast or 0.0))
        output = model(random_batch())
        labels = mixed_labels(output)
        logits = (output.parts["text_logits"], output.parts["image_logits"], output.logits)
        loss = model.loss(output, labels, BatchCrossEntropy())
        if contrast is None:
            loss = sum(cross_entropy(x, labels) for x in logits)
        grads.append(torch.autograd.grad(loss, model.text.project.weight)[0])
    torch.testing.assert_close(grads[0], grads[2], rtol=1e-12, atol=1e-14)
    assert (grads[1] - grads[2]).abs().max() > 1e-3


def test_the_criterion_given_is_used_for_all_three_heads():
    model = randomised()
    output, seen = model(random_batch()), []

    class Watching(BatchCrossEntropy):
        def __call__(self, logits, labels):
            seen.append(logits)
            return super().__call__(logits, labels)

    model.loss(output, torch.zeros(8, dtype=torch.long), Watching())
    assert {id(x) for x in seen} == {
        id(output.logits),
        id(output.parts["text_logits"]),
        id(output.parts["image_logits"]),
    }


def test_it_learns_where_no_post_has_both_sides():
    model = randomised()
    batch = random_batch()._replace(has_text=flags("11110000"), has_image=flags("00001111"))
    model.loss(model(batch), torch.arange(8) % 3, BatchCrossEntropy()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name


def test_dropout_in_training_only():
    model, batch = randomised(replace(SMALL, dropout=0.5)), random_batch()
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)


def test_the_defaults_are_the_cards():
    config = UniSMMCConfig(classes=7, text_width=512, image_width=1280)
    assert (config.width, config.contrast, config.contrast_temperature) == (256, 0.1, 0.07)
    head = UniSMMC(config).head
    assert [tuple(p.shape) for p in head.parameters() if p.dim() == 2] == [
        (256, 512),
        (256, 256),
        (7, 256),
    ]
    assert METHOD.load_config(json.loads(json.dumps(asdict(config)))) == config
    assert (METHOD.name, METHOD.tokens) == ("unis-mmc", False)


@pytest.mark.parametrize(
    "setting",
    [
        {"width": 0},
        {"contrast": -0.1},
        {"contrast": math.nan},
        {"contrast": math.inf},
        {"contrast_temperature": 0.0},
        {"contrast_temperature": math.inf},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(SgmftError, match=f"^{next(iter(setting))} must be"):
        replace(SMALL, **setting)
