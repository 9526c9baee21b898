import math

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch.nn.functional import cross_entropy
from transformers import BridgeTowerTextConfig
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.attention import AttentionHeads
from sgmft.models.fusions import FUSIONS, CoAttention
from sgmft.models.layers import CrossModalLayer, additive_mask
from sgmft.models.sgmft import SGMFT, SGMFTConfig
from token_batches import (
    HEADS,
    IMAGE_MASK,
    TEXT_MASK,
    D,
    assert_close,
    count_parameters,
    normal,
    randomize,
    words_and_regions,
)


def made(layers=2):
    torch.manual_seed(0)
    return randomize(CoAttention(D, AttentionHeads(HEADS), layers))


# --- one post and one head at a time ---


def attention(m, x, y):
    w, width, heads = m.self, D // HEADS, []
    q = x @ w.query.weight.T + w.query.bias
    k, v = (y @ a.weight.T + a.bias for a in (w.key, w.value))
    for part in (slice(h * width, (h + 1) * width) for h in range(HEADS)):
        powers = (q[:, part] @ k[:, part].T / math.sqrt(width)).exp()
        heads.append(powers / powers.sum(1, keepdim=True) @ v[:, part])
    return residual(m.output, torch.cat(heads, 1), x)


def residual(m, x, before):
    x = x @ m.dense.weight.T + m.dense.bias + before
    x = x - x.mean(-1, keepdim=True)
    return (
        x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * m.LayerNorm.weight
        + m.LayerNorm.bias
    )


def stream(m, x, y):
    x = attention(m.crossattention, attention(m.attention, x, x), y)
    hidden = x @ m.intermediate.dense.weight.T + m.intermediate.dense.bias
    return residual(m.output, hidden / 2 * (1 + torch.erf(hidden / math.sqrt(2))), x)


@torch.no_grad()
def slow(module, text, image):
    for block in module.blocks:
        text, image = stream(block.text, text, image), stream(block.image, image, text)
    return text.mean(0) + image.mean(0)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", [1, 2, 4, 6])
def test_each_stream_attends_to_itself_and_then_to_the_other(layers, mode):
    module, (text, image) = made(layers), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    for i in range(2):
        assert_close(fused[i], slow(module, text[i, TEXT_MASK[i]], image[i, IMAGE_MASK[i]]))


def test_the_layer_is_that_of_transformers():
    layer, (text, image) = randomize(CrossModalLayer(D, HEADS, 12)), words_and_regions()
    config = BridgeTowerTextConfig(
        hidden_size=D, num_attention_heads=HEADS, intermediate_size=12, attn_implementation="eager"
    )
    no_text, no_image = (
        torch.where(m, 0.0, -math.inf).double()[:, None, None] for m in (TEXT_MASK, IMAGE_MASK)
    )
    ways = (
        (layer.text, text, image, no_text, no_image),
        (layer.image, image, text, no_image, no_text),
    )
    out = layer(text, image, TEXT_MASK, IMAGE_MASK)
    for ours, (weights, x, y, no_x, no_y) in zip(out, ways, strict=True):
        theirs = BridgeTowerBertCrossLayer(config).double().eval()
        theirs.load_state_dict(weights.state_dict(), strict=True)
        assert_close(ours, theirs(x, y, attention_mask=no_x, encoder_attention_mask=no_y)[0])


def test_both_streams_are_updated_from_the_same_inputs():
    """Exchanging the streams and their weights exchanges the results: neither goes first."""
    layer, other = (randomize(CrossModalLayer(D, HEADS, 12), seed) for seed in (1, 2))
    other.text.load_state_dict(layer.image.state_dict())
    other.image.load_state_dict(layer.text.state_dict())
    text, image = words_and_regions()
    a, b = layer(text, image, TEXT_MASK, IMAGE_MASK)
    d, c = other(image, text, IMAGE_MASK, TEXT_MASK)
    assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.isclose(a, layer(text, b, TEXT_MASK, IMAGE_MASK)[0]).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_masked_key_has_no_weight_at_all(dtype):
    mask = additive_mask(IMAGE_MASK, dtype)
    assert mask.shape == (2, 1, 1, 5) and mask.dtype == dtype
    weights = torch.softmax(torch.full((2, 1, 3, 5), -7.0, dtype=dtype) + mask, -1)
    assert (weights[1, ..., 2:] == 0).all() and (weights[1, ..., :2] == 0.5).all()
    assert (mask[0] == 0).all()


# --- its size ---


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_a_cross_modal_layer_for_every_two_layers(layers, blocks):
    assert len(made(layers).blocks) == blocks


@pytest.mark.parametrize("layers", [2, 4, 6])
def test_it_is_about_as_large_as_the_sfm(layers):
    """18 D² for 16 D², and biases and norms, which the SFM has none of."""
    for width in (64, 256):
        module = CoAttention(width, AttentionHeads(8), layers)
        sfm = count_parameters(FUSIONS["sfm"](width, AttentionHeads(8), layers))
        assert sum(p.numel() for p in module.parameters() if p.dim() == 2) == sfm * 18 / 16
        assert count_parameters(module) == pytest.approx(sfm, rel=0.16 if width == 64 else 0.135)


# --- what it depends on ---


def test_the_order_of_regions_and_of_words_does_not_count():
    module, (text, image) = made(4), words_and_regions()
    fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    p = [3, 1, 4, 0, 2]
    assert_close(module(text, image[:, p], TEXT_MASK, IMAGE_MASK[:, p]), fused)
    p = [2, 0, 3, 1]  # a causal self-attention would notice
    assert_close(module(text[:, p], image, TEXT_MASK[:, p], IMAGE_MASK), fused)


def test_the_sides_are_not_interchangeable():
    module, (text, image) = made(), words_and_regions()
    assert not torch.isclose(
        module(text, image, TEXT_MASK, IMAGE_MASK), module(image, text, IMAGE_MASK, TEXT_MASK)
    ).any()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_padding_does_not_leak(mode):
    module, (text, image) = made(4), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
        text, image = text.clone(), image.clone()
        text[~TEXT_MASK], image[~IMAGE_MASK] = 50.0, -50.0
        assert_close(module(text, image, TEXT_MASK, IMAGE_MASK), fused)
        assert_close(
            module(text[1:, :3], image[1:, :2], TEXT_MASK[1:, :3], IMAGE_MASK[1:, :2]), fused[1:]
        )


def test_dropout_works_in_training_only():
    module, (text, image) = made(), words_and_regions()
    inputs = (text, image, TEXT_MASK, IMAGE_MASK)
    assert torch.equal(module(*inputs), module(*inputs))
    module.train()
    assert not torch.equal(module(*inputs), module(*inputs))


def test_the_elements_view_is_refused():
    with pytest.raises(SgmftError, match=r"co-attention .*view=tokens"):
        FUSIONS["co-attention"](16, AttentionHeads(2, 1), 2)
    with pytest.raises(SgmftError, match="view=tokens"):
        SGMFT(SGMFTConfig(classes=3, text_width=16, image_width=16, fusion="co-attention"))


# --- in the SFM's place ---


def model_and_batch(sim, seed=0):
    torch.manual_seed(seed)
    config = SGMFTConfig(
        classes=3,
        text_width=12,
        image_width=10,
        width=16,
        heads=2,
        view="tokens",
        fusion="co-attention",
        sim=sim,
        classifier_widths=(12,),
    )
    batch = Batch(
        normal(6, 12),
        normal(6, 10),
        torch.arange(6) != 0,
        torch.arange(6) != 1,
        normal(6, 4, 12),
        torch.arange(4) < torch.tensor([[4], [1], [3], [2], [4], [1]]),
        normal(6, 5, 10),
        torch.arange(5) < torch.tensor([[5], [2], [3], [1], [4], [5]]),
        torch.zeros(6, 5, dtype=torch.long),
    )
    return SGMFT(config).double().eval(), batch


@pytest.mark.parametrize("sim", [True, False])
def test_a_model_with_it_learns(sim):
    model, batch = model_and_batch(sim)
    labels = torch.arange(6) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model.loss(model(batch), labels, cross_entropy)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for name, p in model.fusion.named_parameters():
            floor = -1 if "key.bias" in name else 0  # a softmax does not see what all keys share
            assert p.grad is not None and p.grad.abs().max() > floor, name
        optimizer.step()
    assert losses[-1] < losses[0]


def test_a_model_with_it_is_saved_and_loaded(tmp_path):
    (model, batch), (other, _) = model_and_batch(True), model_and_batch(True, seed=1)
    save_model(model, tmp_path / "model.safetensors")
    assert not torch.equal(other(batch).logits, model(batch).logits)
    load_model(other, tmp_path / "model.safetensors", strict=True)
    assert torch.equal(other(batch).logits, model(batch).logits)
    pointers = [x.data_ptr() for x in model.fusion.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
