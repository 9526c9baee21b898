"""SG-MFT learns: its loss, whom gradients reach, and dropout."""

import math
from dataclasses import replace
from functools import partial

import pytest
import reference_sgmft as reference
import torch
from small_model import SMALL, configs, fresh, random_batch, randomised, views
from torch.nn.functional import cross_entropy

from sgmft.features.batch import Batch
from sgmft.models.sgmft import SGMFT, SGMFTConfig


def gradients(model, batch):
    """Which parameters get one."""
    labels = torch.arange(5) % 3
    model.zero_grad()
    model.loss(model(batch), labels, cross_entropy).backward()
    return {
        name: p.grad is not None and bool((p.grad != 0).any())
        for name, p in model.named_parameters()
    }


@views
def test_the_loss_is_equation_19(view):
    config = replace(SMALL, view=view)
    out, labels = randomised(config)(random_batch(config)), torch.arange(5) % 3
    rows = zip(out.logits.tolist(), labels.tolist(), strict=True)
    expected = sum(-math.log(reference.softmax(row)[label]) for row, label in rows) / 5
    assert fresh(config).loss(out, labels, cross_entropy).item() == pytest.approx(expected)
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    found = fresh(config).loss(out, labels, partial(cross_entropy, weight=weight))
    assert found.item() == pytest.approx(cross_entropy(out.logits, labels, weight).item())


@configs
def test_gradients_reach_every_parameter(config):
    config = replace(config, dropout=0.0)
    model, batch = fresh(config).double(), random_batch(config)
    reached = gradients(model, batch)
    fixed = {"temperature.log_value"} if config.sim and config.temperature != "learned" else set()
    assert {name for name, yes in reached.items() if not yes} == fixed
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == fixed


@views
def test_null_vectors_learn_from_missing_sides_only(view):
    config = replace(SMALL, view=view, dropout=0.0)
    model = fresh(config).double()
    complete = gradients(model, random_batch(config, missing=False))
    assert {n for n, yes in complete.items() if not yes} == {
        "text.null",
        "image.null",
        "temperature.log_value",
    }
    batch = random_batch(config)
    only_text = gradients(model, batch._replace(has_image=torch.ones(5, dtype=torch.bool)))
    assert only_text["text.null"]


def test_index_vectors_learn_from_the_pictures_they_stand_for():
    config = replace(SMALL, view="tokens", dropout=0.0)
    model = fresh(config).double()
    gradients(model, random_batch(config, missing=False))
    assert (model.image.index.weight.grad != 0).any(1).tolist() == [True, True, True]
    batch = random_batch(config, missing=False)
    gradients(model, batch._replace(image_index=torch.zeros_like(batch.image_index)))
    assert (model.image.index.weight.grad != 0).any(1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"view": "elements"},
        {"view": "elements", "gate": "sigmoid", "element_width": 4},
        {"view": "tokens", "gate": "sigmoid", "temperature": "learned"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_hundred_steps_overfit_32_random_posts(changes):
    torch.manual_seed(0)
    config = SGMFTConfig(
        classes=4,
        text_width=24,
        image_width=24,
        width=32,
        heads=4,
        classifier_widths=(64, 32, 32, 16),
        dropout=0.0,
        **changes,
    )
    model = SGMFT(config)
    tokens = {}
    if config.view == "tokens":
        tokens = {
            "text_tokens": torch.randn(32, 5, 24),
            "text_mask": torch.arange(5) < torch.randint(1, 6, (32, 1)),
            "image_tokens": torch.randn(32, 4, 24),
            "image_mask": torch.ones(32, 4, dtype=torch.bool),
            "image_index": torch.zeros(32, 4, dtype=torch.long),
        }
    here = torch.arange(32) % 8
    batch = Batch(torch.randn(32, 24), torch.randn(32, 24), here != 0, here != 1, **tokens)
    if config.view == "tokens":  # posts without a side could not be told apart otherwise
        batch = batch._replace(has_text=here >= 0, has_image=here >= 0)
    labels = torch.randint(4, (32,))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(model(batch), labels, cross_entropy).backward()
        optimizer.step()
    out = model.eval()(batch).logits
    assert torch.equal(out.argmax(-1), labels)
    assert cross_entropy(out, labels) < 0.1


def test_training_drops_out_and_evaluation_does_not():
    model, batch = fresh(SMALL), random_batch(SMALL, dtype=torch.float32)
    assert not torch.equal(model(batch).logits, model(batch).logits)
    model.eval()
    assert torch.equal(model(batch).logits, model(batch).logits)
