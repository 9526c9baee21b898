"""UniS-MMC: network, loss and contrast against loops, what it learns by, and its settings."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from reference_loops import cross_entropy, dot, linear, lists, modality_input
from sgmft.models.baselines.unimodal_heads import UniSMMC, UniSMMCConfig, multimodal_contrast
from sgmft.utils.distributed import BatchCrossEntropy
from token_batches import HAS_IMAGE, HAS_TEXT, assert_close, normal, pooled_batch, randomize

SMALL = UniSMMCConfig(classes=3, text_width=7, image_width=5, width=6)

# --- the card as loops over lists of floats ---


def slow_contrast(text, image, text_correct, image_correct, paired, tau):
    above = below = 0.0
    for t, v, right_t, right_v, pair in zip(
        text, image, text_correct, image_correct, paired, strict=True
    ):
        if pair:
            weight = math.exp(dot(t, v) / math.sqrt(dot(t, t) * dot(v, v)) / tau)
            below += weight
            if right_t or right_v:
                above += weight
    return -math.log(above / below) if above else 0.0


def flags(text):
    return torch.tensor([letter == "1" for letter in text], dtype=torch.bool)


def slow_head(w, name, x):
    for layer in ("hidden.0", "hidden.3"):
        x = [max(a, 0.0) for a in linear(w, f"{name}.{layer}", x)]
    return x, linear(w, f"{name}.output", x)


def slow_forward(w, batch):
    """r_t, r_v, the logits of text, of image and of both, and the last hidden layer, by post."""
    rows = []
    for i in range(len(batch.text)):
        t = modality_input(w, "text", batch.text[i].tolist(), batch.has_text[i])
        v = modality_input(w, "image", batch.image[i].tolist(), batch.has_image[i])
        hidden, both = slow_head(w, "head", t + v)
        rows.append((t, v, slow_head(w, "text_head", t)[1], slow_head(w, "image_head", v)[1]))
        rows[-1] += (both, hidden)
    return [list(column) for column in zip(*rows, strict=True)]


# --- what is tested ---


def made(**changes):
    torch.manual_seed(0)
    return randomize(UniSMMC(replace(SMALL, **changes)))


def mixed_labels(output):
    """Labels that put posts 0, 1, 4, 6, 7, the pairs, in P, S, S, N, N as far as they can be."""
    text, image = (x.argmax(-1) for x in output.parts["alone"])
    labels = (3 - text - image) % 3  # neither, where the two differ
    labels = torch.where(text == image, (text + 1) % 3, labels)
    labels[[0, 1]] = text[[0, 1]]
    labels[4] = image[4]
    return labels


def test_the_whole_network_is_the_card():
    model, batch = made(), pooled_batch()
    output = model(batch)
    found = (*output.parts["sides"], *output.parts["alone"], output.logits, output.fused)
    for got, expected in zip(found, slow_forward(lists(model), batch), strict=True):
        assert_close(got, torch.tensor(expected, dtype=torch.float64))
    assert output.parts["paired"].tolist() == (HAS_TEXT & HAS_IMAGE).tolist()


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.5]])
@pytest.mark.parametrize("contrast, tau", [(0.1, 0.07), (2.0, 1.0), (0.0, 0.07)])
def test_the_loss_is_three_cross_entropies_and_the_contrast(contrast, tau, weight):
    model, batch = made(contrast=contrast, contrast_temperature=tau), pooled_batch()
    output = model(batch)
    labels = mixed_labels(output)
    t, v, text, image, both, _ = slow_forward(lists(model), batch)
    y = labels.tolist()
    right = [
        [row.index(max(row)) == label for row, label in zip(rows, y, strict=True)]
        for rows in (text, image)
    ]
    mmc = slow_contrast(t, v, *right, (HAS_TEXT & HAS_IMAGE).tolist(), tau)
    assert mmc > 0.01  # the labels make it count
    expected = sum(cross_entropy(x, y, weight) for x in (text, image, both)) + contrast * mmc
    criterion = BatchCrossEntropy(None if weight is None else torch.tensor(weight).double()[labels])
    assert model.loss(output, labels, criterion).item() == pytest.approx(expected, rel=1e-10)


def test_without_contrast_the_representations_learn_by_the_labels_alone():
    grads = []
    for contrast in (0.0, 0.1, None):
        model = made(contrast=contrast or 0.0)
        output = model(pooled_batch())
        labels = mixed_labels(output)
        logits = (*output.parts["alone"], output.logits)
        loss = model.loss(output, labels, BatchCrossEntropy())
        if contrast is None:
            loss = sum(torch.nn.functional.cross_entropy(x, labels) for x in logits)
        grads.append(torch.autograd.grad(loss, model.text.project.weight)[0])
    torch.testing.assert_close(grads[0], grads[2], rtol=1e-12, atol=1e-14)
    assert (grads[1] - grads[2]).abs().max() > 1e-3


def test_it_learns_where_no_post_has_both_sides():
    model = made()
    batch = pooled_batch()._replace(has_text=flags("11110000"), has_image=flags("00001111"))
    model.loss(model(batch), torch.arange(8) % 3, BatchCrossEntropy()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name


# --- the contrast ---

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
    right_t, right_v, paired = map(flags, ("111000010", "100110010", "111111100"))
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
