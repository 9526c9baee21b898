import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.attention import AttentionHeads
from sgmft.models.fusions import FUSIONS, MergeAttention
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

ATTENTION = ["asymmetric-co-attention", "merge-attention"]


def made(layers=2):
    torch.manual_seed(0)
    return randomize(MergeAttention(D, AttentionHeads(HEADS), layers))


# --- one post and one head at a time ---


def attention(m, x):
    width = D // HEADS
    q, k, v = (x @ m.in_proj_weight.T + m.in_proj_bias).split(D, 1)
    heads = []
    for part in (slice(h * width, (h + 1) * width) for h in range(HEADS)):
        powers = (q[:, part] @ k[:, part].T / math.sqrt(width)).exp()
        heads.append(powers / powers.sum(1, keepdim=True) @ v[:, part])
    return torch.cat(heads, 1) @ m.out_proj.weight.T + m.out_proj.bias


def norm(m, x):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * m.weight + m.bias


def feed_forward(m, x):
    x = x @ m.linear1.weight.T + m.linear1.bias
    return x / 2 * (1 + torch.erf(x / math.sqrt(2))) @ m.linear2.weight.T + m.linear2.bias


@torch.no_grad()
def slow(module, text, image):
    x = torch.cat([text + module.types[0], image + module.types[1]])
    for m in module.layers:
        x = norm(m.norm1, x + attention(m.self_attn, x))
        x = norm(m.norm2, x + feed_forward(m, x))
    return x.mean(0)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_words_and_regions_are_one_sequence(layers, mode):
    module, (text, image) = made(layers), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    assert len(module.layers) == layers
    for i in range(2):
        assert_close(fused[i], slow(module, text[i, TEXT_MASK[i]], image[i, IMAGE_MASK[i]]))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_it_is_as_large_as_the_sfm(layers):
    ours = count_parameters(MergeAttention(64, AttentionHeads(8), layers))
    assert ours == pytest.approx(
        count_parameters(FUSIONS["sfm"](64, AttentionHeads(8), layers)), rel=0.1
    )


def test_the_order_within_a_side_does_not_count():
    module, (text, image) = made(), words_and_regions()
    fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    p = [2, 0, 3, 1]
    assert_close(module(text[:, p], image, TEXT_MASK[:, p], IMAGE_MASK), fused)
    p = [3, 1, 4, 0, 2]
    assert_close(module(text, image[:, p], TEXT_MASK, IMAGE_MASK[:, p]), fused)


def test_a_layer_moves_with_its_tokens():
    layer, x, p = made().layers[0], normal(2, 5, D), [3, 1, 4, 0, 2]
    out = layer(x, src_key_padding_mask=~IMAGE_MASK)
    moved = layer(x[:, p], src_key_padding_mask=~IMAGE_MASK[:, p])
    assert_close(moved, out[:, p])


def test_the_type_embeddings_alone_tell_the_sides_apart():
    module, (text, image) = made(), words_and_regions()
    fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    assert not torch.isclose(module(image, text, IMAGE_MASK, TEXT_MASK), fused).any()
    with torch.no_grad():
        module.types.copy_(module.types.flip(0))
    assert_close(module(image, text, IMAGE_MASK, TEXT_MASK), fused)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_padding_does_not_leak(mode):
    module, (text, image) = made(), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
        text, image = text.clone(), image.clone()
        text[~TEXT_MASK], image[~IMAGE_MASK] = 50.0, -50.0
        assert_close(module(text, image, TEXT_MASK, IMAGE_MASK), fused)
        assert_close(
            module(text[1:, :3], image[1:, :2], TEXT_MASK[1:, :3], IMAGE_MASK[1:, :2]), fused[1:]
        )


def test_training_without_dropout_computes_what_evaluation_does():
    """Torch computes a layer by another kernel in evaluation."""
    module, (text, image) = made(), words_and_regions()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if isinstance(part, torch.nn.MultiheadAttention):
            part.dropout = 0.0
    with torch.inference_mode():
        evaluated = module(text, image, TEXT_MASK, IMAGE_MASK)
    assert_close(module.train()(text, image, TEXT_MASK, IMAGE_MASK), evaluated)


def test_the_elements_view_is_refused():
    with pytest.raises(SgmftError, match=r"merge-attention .*view=tokens"):
        FUSIONS["merge-attention"](16, AttentionHeads(2, 1), 2)


# --- in the SFM's place ---


@pytest.mark.parametrize("fusion", ATTENTION)
@pytest.mark.parametrize("sim", [True, False])
def test_a_model_with_it_learns(fusion, sim):
    torch.manual_seed(0)
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
        dropout=0.0,
    )
    model = SGMFT(config).double()
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
    labels = torch.arange(6) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = None
    for _ in range(5):
        loss = model.loss(model(batch), labels, cross_entropy)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        for name, p in model.fusion.named_parameters():
            assert p.grad is not None and p.grad.abs().max() > 0, name
        optimizer.step()
    assert model.loss(model(batch), labels, cross_entropy) < first
