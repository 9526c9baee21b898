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

from reference_loops import bridgetower_layer, transformer_block
from sgmft.errors import SgmftError
from sgmft.models.attention import AttentionHeads
from sgmft.models.fusions import FUSIONS, SimilarityAwareFusion, pool
from sgmft.models.network import CrossModalLayer, additive_mask
from sgmft.models.sgmft import SGMFT, SGMFTConfig
from token_batches import (
    HEADS,
    IMAGE_MASK,
    TEXT_MASK,
    WIDTHS,
    D,
    assert_close,
    normal,
    random_batch,
    randomize,
)

ATTENTION = ["asymmetric-co-attention", "co-attention", "merge-attention"]
MASKS = TEXT_MASK, IMAGE_MASK
modules = pytest.mark.parametrize("name", ATTENTION)
modes = pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])


def build(name, layers=2):
    torch.manual_seed(0)
    return randomize(FUSIONS[name](D, AttentionHeads(HEADS), layers))


@pytest.fixture
def text():
    return normal(2, 4, D)


@pytest.fixture
def image():
    return normal(2, 5, D, seed=1)


def real_tokens(x, mask):
    """Each post's real tokens as lists of floats."""
    return [row[m].tolist() for row, m in zip(x, mask, strict=True)]


# --- the paper's fusion, and none


def test_pooling_is_the_mean_over_real_tokens(text):
    expected = [reference.mean(rows) for rows in real_tokens(text, TEXT_MASK)]
    assert_close(pool(text, TEXT_MASK), torch.tensor(expected, dtype=torch.float64))
    assert_close(pool(text, None), text.mean(1))
    assert torch.equal(pool(text[:, 0], None), text[:, 0])
    assert (pool(text, torch.zeros_like(TEXT_MASK)) == 0).all()  # never 0/0


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("width", [None, 1, 2, 4])
def test_fusion_is_equation_17(text, image, width, layers):
    torch.manual_seed(0)
    sfm = randomize(SimilarityAwareFusion(D, AttentionHeads(HEADS, width), layers))
    if width is not None:
        text, image = text[:, 0], image[:, 0]
        fused = sfm(text, image, None, None)
        posts = [([t], [v]) for t, v in zip(text.tolist(), image.tolist(), strict=True)]
    else:
        fused = sfm(text, image, *MASKS)
        posts = zip(real_tokens(text, TEXT_MASK), real_tokens(image, IMAGE_MASK), strict=True)
    w = reference.matrices(sfm)
    expected = [reference.fusion(w, t, v, HEADS, width, layers) for t, v in posts]
    assert_close(fused, torch.tensor(expected, dtype=torch.float64))


def test_without_the_module_the_pooled_features_are_added(text, image):
    fusion = FUSIONS["sum"](D, AttentionHeads(HEADS), 3)
    expected = pool(text, TEXT_MASK) + pool(image, IMAGE_MASK)
    assert torch.equal(fusion(text, image, *MASKS), expected)
    assert torch.equal(fusion(text[:, 0], image[:, 0], None, None), text[:, 0] + image[:, 0])
    assert not fusion.state_dict()


def test_an_unknown_name_lists_those_there_are_and_how_to_add_one(monkeypatch):
    settings = {**WIDTHS, "heads": HEADS, "width": D, "fusion": "mine"}
    with pytest.raises(SgmftError, match=r"no fusion module 'mine': use sfm, sum, .*FUSIONS\[name"):
        SGMFTConfig(**settings)
    taken = []
    monkeypatch.setitem(FUSIONS, "mine", lambda *given: taken.append(given) or nn.Identity())
    assert isinstance(SGMFT(SGMFTConfig(**settings)).fusion, nn.Identity)
    assert taken == [(D, AttentionHeads(HEADS, 1), 2)]


# --- the others, one post and one head at a time, with matrix products only


def asymmetric(module, x, image):
    w = module.state_dict()
    for i in range(len(module.blocks)):
        x = transformer_block(w, f"blocks.{i}", HEADS, x, image)
    return x.mean(0)


def merged(module, text, image):
    x, w = torch.cat([text + module.types[0], image + module.types[1]]), module.state_dict()
    for i in range(len(module.layers)):
        x = transformer_block(w, f"layers.{i}", HEADS, x)
    return x.mean(0)


def symmetric(module, text, image):
    w = module.state_dict()
    for i in range(len(module.blocks)):
        streams = {"text": (text, image), "image": (image, text)}
        text, image = (
            bridgetower_layer(w, f"blocks.{i}.{name}", HEADS, *pair)
            for name, pair in streams.items()
        )
    return text.mean(0) + image.mean(0)


EXPECTED = dict(zip(ATTENTION, (asymmetric, symmetric, merged), strict=True))


@modes
@pytest.mark.parametrize("layers", [1, 2, 4])
@modules
def test_a_module_computes_what_its_docstring_tells(text, image, name, layers, mode):
    """Torch computes a layer by another kernel in inference."""
    module = build(name, layers)
    with mode():
        fused = module(text, image, *MASKS)
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
    ours, sfm = (sum(p.numel() for p in module.parameters()) for module in (ours, sfm))
    assert ours == pytest.approx(sfm, rel=tolerance)


@modules
def test_the_order_of_regions_and_of_words_does_not_count(text, image, name):
    module, p, q = build(name, 4), [3, 1, 4, 0, 2], [2, 0, 3, 1]
    fused = module(text, image, *MASKS)
    assert_close(module(text, image[:, p], TEXT_MASK, IMAGE_MASK[:, p]), fused)
    assert_close(module(text[:, q], image, TEXT_MASK[:, q], IMAGE_MASK), fused)


@modules
def test_the_modalities_are_not_interchangeable(text, image, name):
    module = build(name)
    fused, swapped = module(text, image, *MASKS), (image, text, IMAGE_MASK, TEXT_MASK)
    assert not torch.isclose(fused, module(*swapped)).any()
    if name == "merge-attention":  # which tells them apart by the type embeddings alone
        with torch.no_grad():
            module.types.copy_(module.types.flip(0))
        assert_close(module(*swapped), fused)


@modes
@modules
def test_padding_does_not_leak(text, image, name, mode):
    module = build(name, 4)
    with mode():
        fused = module(text, image, *MASKS)
        text[~TEXT_MASK], image[~IMAGE_MASK] = 50.0, -50.0
        assert_close(module(text, image, *MASKS), fused)
        short = text[1:, :3], image[1:, :2], TEXT_MASK[1:, :3], IMAGE_MASK[1:, :2]
        assert_close(module(*short), fused[1:])


@modules
def test_dropout_works_in_training_only(text, image, name):
    module, inputs = build(name), (text, image, *MASKS)
    evaluated = module(*inputs)
    assert torch.equal(module(*inputs), evaluated)
    assert not torch.equal(module.train()(*inputs), module(*inputs))
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    assert_close(module(*inputs), evaluated)


@modules
def test_the_elements_view_is_refused(name):
    with pytest.raises(SgmftError, match=rf"{name} .*view=tokens"):
        FUSIONS[name](16, AttentionHeads(2, 1), 2)
    with pytest.raises(SgmftError, match="view=tokens"):
        SGMFT(SGMFTConfig(classes=3, text_width=16, image_width=16, fusion=name))


# --- single modules


def test_every_asymmetric_block_reads_the_image_as_it_came(text, image):
    module, before, read = build(ATTENTION[0], 6), image.clone(), []
    for block in module.blocks:
        block.register_forward_pre_hook(lambda _, args: read.append(args[1]))
    module(text, image, *MASKS)
    assert len(read) == 3 and all(x is image for x in read)
    assert torch.equal(image, before)


def test_the_layer_is_that_of_transformers(text, image):
    layer = randomize(CrossModalLayer(D, HEADS, 12))
    config = BridgeTowerTextConfig(
        hidden_size=D, num_attention_heads=HEADS, intermediate_size=12, attn_implementation="eager"
    )
    no_text, no_image = (torch.where(m, 0.0, -math.inf).double()[:, None, None] for m in MASKS)
    for ours, weights, x, y, no_x, no_y in zip(
        layer(text, image, *MASKS),
        (layer.text, layer.image),
        *((text, image), (image, text), (no_text, no_image), (no_image, no_text)),
        strict=True,
    ):
        theirs = BridgeTowerBertCrossLayer(config).double().eval()
        theirs.load_state_dict(weights.state_dict(), strict=True)
        assert_close(ours, theirs(x, y, attention_mask=no_x, encoder_attention_mask=no_y)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_masked_key_has_no_weight_at_all(dtype):
    mask = additive_mask(IMAGE_MASK, dtype)
    assert mask.shape == (2, 1, 1, 5) and mask.dtype == dtype
    weights = torch.softmax(torch.full((2, 1, 3, 5), -7.0, dtype=dtype) + mask, -1)
    assert (weights[1, ..., 2:] == 0).all() and (weights[1, ..., :2] == 0.5).all()
    assert (mask[0] == 0).all()


# --- in the SFM's place


@modules
@pytest.mark.parametrize("sim", [True, False])
def test_a_model_with_it_learns_and_is_saved(name, sim, tmp_path):
    settings = {"width": 16, "heads": 2, "view": "tokens", "classifier_widths": (12,)}
    config = SGMFTConfig(**WIDTHS, **settings, fusion=name, sim=sim)
    torch.manual_seed(0)
    (model, other), batch = (SGMFT(config).double().eval() for _ in range(2)), random_batch()
    labels, losses = torch.arange(4) % 3, []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
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
    save_model(model, tmp_path / "model.safetensors")
    assert not torch.equal(other(batch).logits, model(batch).logits)
    load_model(other, tmp_path / "model.safetensors", strict=True)
    assert torch.equal(other(batch).logits, model(batch).logits)
    pointers = [x.data_ptr() for x in model.fusion.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
