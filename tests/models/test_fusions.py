"""Fusion modules against loops and matrix products: what they compute and depend on, their size."""

import math

import pytest
import reference_sgmft as reference
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BridgeTowerTextConfig
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerBertCrossLayer

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.attention import AttentionHeads
from sgmft.models.fusions import FUSIONS, SimilarityAwareFusion, SumFusion, pool
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

ATTENTION = ["asymmetric-co-attention", "co-attention", "merge-attention"]
modules = pytest.mark.parametrize("name", ATTENTION)
modes = pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])


def build(name, layers=2):
    torch.manual_seed(0)
    return randomize(FUSIONS[name](D, AttentionHeads(HEADS), layers))


def real_tokens(x, mask):
    """Each post's real tokens as lists of floats."""
    return [row[m].tolist() for row, m in zip(x, mask, strict=True)]


# --- the paper's fusion, and none


def test_pooling_is_the_mean_over_real_tokens():
    x, _ = words_and_regions()
    expected = [reference.mean(rows) for rows in real_tokens(x, TEXT_MASK)]
    assert_close(pool(x, TEXT_MASK), torch.tensor(expected, dtype=torch.float64))
    assert_close(pool(x, None), x.mean(1))
    assert torch.equal(pool(x[:, 0], None), x[:, 0])
    assert (pool(x, torch.zeros_like(TEXT_MASK)) == 0).all()  # never 0/0


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("width", [None, 1, 2, 4])
def test_fusion_is_equation_17(width, layers):
    torch.manual_seed(0)
    sfm = randomize(SimilarityAwareFusion(D, AttentionHeads(HEADS, width), layers))
    assert len(sfm.layers) == layers
    w, (text, image) = reference.matrices(sfm), words_and_regions()
    if width is not None:
        text, image = text[:, 0], image[:, 0]
        fused = sfm(text, image)
        posts = [([t], [v]) for t, v in zip(text.tolist(), image.tolist(), strict=True)]
    else:
        fused = sfm(text, image, TEXT_MASK, IMAGE_MASK)
        tokens = real_tokens(text, TEXT_MASK), real_tokens(image, IMAGE_MASK)
        posts = list(zip(*tokens, strict=True))
    expected = [reference.fusion(w, t, v, HEADS, width, layers) for t, v in posts]
    assert_close(fused, torch.tensor(expected, dtype=torch.float64))


def test_two_layers_by_default():
    assert len(SimilarityAwareFusion(D, AttentionHeads(HEADS)).layers) == 2


def test_without_the_module_the_pooled_features_are_added():
    text, image = words_and_regions()
    fusion = SumFusion(D, AttentionHeads(HEADS))
    expected = pool(text, TEXT_MASK) + pool(image, IMAGE_MASK)
    assert torch.equal(fusion(text, image, TEXT_MASK, IMAGE_MASK), expected)
    assert torch.equal(fusion(text[:, 0], image[:, 0]), text[:, 0] + image[:, 0])
    assert not fusion.state_dict()


@pytest.mark.parametrize(("name", "kind"), [("sfm", SimilarityAwareFusion), ("sum", SumFusion)])
def test_modules_by_name(name, kind):
    fusion = FUSIONS[name](D, AttentionHeads(HEADS), 3)
    assert type(fusion) is kind and FUSIONS[name] is kind
    assert len(list(fusion.children())) <= 1 and len(getattr(fusion, "layers", "123")) == 3


def test_an_unknown_name_lists_those_there_are_and_how_to_add_one(monkeypatch):
    settings = {"classes": 2, "text_width": 5, "image_width": 3, "heads": HEADS, "width": D}
    settings["fusion"] = "mine"
    with pytest.raises(SgmftError, match=r"no fusion module 'mine': use sfm, sum, .*FUSIONS\[name"):
        SGMFTConfig(**settings)
    taken = []
    monkeypatch.setitem(
        FUSIONS, "mine", lambda *arguments: taken.append(arguments) or nn.Identity()
    )
    assert isinstance(SGMFT(SGMFTConfig(**settings)).fusion, nn.Identity)
    assert taken == [(D, AttentionHeads(HEADS, 1), 2)]


# --- the others, one post and one head at a time, with matrix products only


def attend(q, k, v):
    """Softmax attention of each head, heads concatenated."""
    width, heads = D // HEADS, []
    for part in (slice(h * width, (h + 1) * width) for h in range(HEADS)):
        powers = (q[:, part] @ k[:, part].T / math.sqrt(width)).exp()
        heads.append(powers / powers.sum(1, keepdim=True) @ v[:, part])
    return torch.cat(heads, 1)


def linear(m, x):
    return x @ m.weight.T + m.bias


def norm(m, x):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * m.weight + m.bias


def gelu(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def stacked_attention(m, x, y):
    """`nn.MultiheadAttention`, whose projections of Q, K and V are one matrix."""
    q, k, v = (
        z @ weight.T + bias
        for z, weight, bias in zip(
            (x, y, y), m.in_proj_weight.split(D), m.in_proj_bias.split(D), strict=True
        )
    )
    return linear(m.out_proj, attend(q, k, v))


def feed_forward(m, x):
    return linear(m.linear2, gelu(linear(m.linear1, x)))


def asymmetric(module, x, image):
    for m in module.blocks:
        x = norm(m.norm1, x + stacked_attention(m.self_attn, x, x))
        x = norm(m.norm2, x + stacked_attention(m.multihead_attn, x, image))
        x = norm(m.norm3, x + feed_forward(m, x))
    return x.mean(0)


def merged(module, text, image):
    x = torch.cat([text + module.types[0], image + module.types[1]])
    for m in module.layers:
        x = norm(m.norm1, x + stacked_attention(m.self_attn, x, x))
        x = norm(m.norm2, x + feed_forward(m, x))
    return x.mean(0)


def bridge_attention(m, x, y):
    w = m.self
    attended = attend(linear(w.query, x), linear(w.key, y), linear(w.value, y))
    return norm(m.output.LayerNorm, linear(m.output.dense, attended) + x)


def stream(m, x, y):
    x = bridge_attention(m.crossattention, bridge_attention(m.attention, x, x), y)
    hidden = gelu(linear(m.intermediate.dense, x))
    return norm(m.output.LayerNorm, linear(m.output.dense, hidden) + x)


def symmetric(module, text, image):
    for block in module.blocks:
        text, image = stream(block.text, text, image), stream(block.image, image, text)
    return text.mean(0) + image.mean(0)


EXPECTED = dict(zip(ATTENTION, (asymmetric, symmetric, merged), strict=True))


@modes
@pytest.mark.parametrize("layers", [1, 2, 4])
@modules
def test_a_module_computes_what_it_says(name, layers, mode):
    module, (text, image) = build(name, layers), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    with torch.no_grad():
        for i in range(2):
            expected = EXPECTED[name](module, text[i, TEXT_MASK[i]], image[i, IMAGE_MASK[i]])
            assert_close(fused[i], expected)


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
@pytest.mark.parametrize("name", ATTENTION[:2])
def test_a_block_for_every_two_layers(name, layers, blocks):
    assert len(build(name, layers).blocks) == blocks


@pytest.mark.parametrize("layers", [2, 4, 6])
@modules
def test_a_module_is_about_as_large_as_the_sfm(name, layers):
    """Biases and norms, which the SFM has none of, count less at larger widths."""
    ours, sfm = (FUSIONS[x](256, AttentionHeads(8), layers) for x in (name, "sfm"))
    tolerance = 0.135 if name == "co-attention" else 0.1  # 18 D^2 for 16 D^2
    assert count_parameters(ours) == pytest.approx(count_parameters(sfm), rel=tolerance)
    assert len(build("merge-attention", layers).layers) == layers


@modules
def test_the_order_of_regions_and_of_words_does_not_count(name):
    module, (text, image) = build(name, 4), words_and_regions()
    fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    p = [3, 1, 4, 0, 2]
    assert_close(module(text, image[:, p], TEXT_MASK, IMAGE_MASK[:, p]), fused)
    p = [2, 0, 3, 1]  # a causal self-attention would notice
    assert_close(module(text[:, p], image, TEXT_MASK[:, p], IMAGE_MASK), fused)


@modules
def test_the_modalities_are_not_interchangeable(name):
    module, (text, image) = build(name), words_and_regions()
    fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    assert not torch.isclose(fused, module(image, text, IMAGE_MASK, TEXT_MASK)).any()
    if name == "merge-attention":  # which tells them apart by the type embeddings alone
        with torch.no_grad():
            module.types.copy_(module.types.flip(0))
        assert_close(module(image, text, IMAGE_MASK, TEXT_MASK), fused)


@modes
@modules
def test_padding_does_not_leak(name, mode):
    module, (text, image) = build(name, 4), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
        text, image = text.clone(), image.clone()
        text[~TEXT_MASK], image[~IMAGE_MASK] = 50.0, -50.0
        assert_close(module(text, image, TEXT_MASK, IMAGE_MASK), fused)
        assert_close(
            module(text[1:, :3], image[1:, :2], TEXT_MASK[1:, :3], IMAGE_MASK[1:, :2]), fused[1:]
        )


@modules
def test_dropout_works_in_training_only(name):
    module, (text, image) = build(name), words_and_regions()
    inputs = (text, image, TEXT_MASK, IMAGE_MASK)
    assert torch.equal(module(*inputs), module(*inputs))
    assert not torch.equal(module.train()(*inputs), module(*inputs))


@modules
def test_training_without_dropout_computes_what_evaluation_does(name):
    """Torch computes a layer by another kernel in evaluation."""
    module, (text, image) = build(name), words_and_regions()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    with torch.inference_mode():
        evaluated = module(text, image, TEXT_MASK, IMAGE_MASK)
    assert_close(module.train()(text, image, TEXT_MASK, IMAGE_MASK), evaluated)


@modules
def test_the_elements_view_is_refused(name):
    with pytest.raises(SgmftError, match=rf"{name} .*view=tokens"):
        FUSIONS[name](16, AttentionHeads(2, 1), 2)
    with pytest.raises(SgmftError, match="view=tokens"):
        SGMFT(SGMFTConfig(classes=3, text_width=16, image_width=16, fusion=name))


# --- single modules


def test_every_asymmetric_block_reads_the_image_as_it_came():
    module, (text, image) = build(ATTENTION[0], 6), words_and_regions()
    before, read = image.clone(), []
    for block in module.blocks:
        block.register_forward_pre_hook(lambda _, args: read.append(args[1]))
    module(text, image, TEXT_MASK, IMAGE_MASK)
    assert len(read) == 3
    assert all(x is image for x in read)
    assert torch.equal(image, before)


def test_a_merge_layer_moves_with_its_tokens():
    layer, x, p = build("merge-attention").layers[0], normal(2, 5, D), [3, 1, 4, 0, 2]
    out = layer(x, src_key_padding_mask=~IMAGE_MASK)
    moved = layer(x[:, p], src_key_padding_mask=~IMAGE_MASK[:, p])
    assert_close(moved, out[:, p])


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


# --- in the SFM's place


def model_and_batch(fusion, sim, seed=0):
    torch.manual_seed(seed)
    config = SGMFTConfig(
        classes=3,
        text_width=12,
        image_width=10,
        width=16,
        heads=2,
        view="tokens",
        fusion=fusion,
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


@modules
@pytest.mark.parametrize("sim", [True, False])
def test_a_model_with_it_learns(name, sim):
    model, batch = model_and_batch(name, sim)
    labels = torch.arange(6) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model.loss(model(batch), labels, cross_entropy)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for key, p in model.fusion.named_parameters():
            floor = -1 if "key.bias" in key else 0  # a softmax ignores what all keys share
            assert p.grad is not None and p.grad.abs().max() > floor, key
        optimizer.step()
    assert losses[-1] < losses[0]


@modules
def test_a_model_with_it_is_saved_and_loaded(name, tmp_path):
    (model, batch), (other, _) = (model_and_batch(name, True, seed) for seed in (0, 1))
    save_model(model, tmp_path / "model.safetensors")
    assert not torch.equal(other(batch).logits, model(batch).logits)
    load_model(other, tmp_path / "model.safetensors", strict=True)
    assert torch.equal(other(batch).logits, model(batch).logits)
    pointers = [x.data_ptr() for x in model.fusion.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
