import math

import pytest
import torch

from sgmft.errors import SgmftError
from sgmft.models.attention import AttentionHeads
from sgmft.models.fusions import FUSIONS, AsymmetricCoAttention
from sgmft.models.sgmft import SGMFT, SGMFTConfig
from token_batches import (
    HEADS,
    IMAGE_MASK,
    TEXT_MASK,
    D,
    assert_close,
    count_parameters,
    randomize,
    words_and_regions,
)


def made(layers=2):
    torch.manual_seed(0)
    return randomize(AsymmetricCoAttention(D, AttentionHeads(HEADS), layers))


# --- one post and one head at a time ---


def attention(m, x, y):
    width = D // HEADS
    q, k, v = (
        z @ m.in_proj_weight[i * D : (i + 1) * D].T + m.in_proj_bias[i * D : (i + 1) * D]
        for i, z in enumerate((x, y, y))
    )
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
def slow(module, x, image):
    for m in module.blocks:
        x = norm(m.norm1, x + attention(m.self_attn, x, x))
        x = norm(m.norm2, x + attention(m.multihead_attn, x, image))
        x = norm(m.norm3, x + feed_forward(m, x))
    return x.mean(0)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_text_attends_to_itself_and_then_to_the_image(layers, mode):
    module, (text, image) = made(layers), words_and_regions()
    with mode():
        fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    for i in range(2):
        assert_close(fused[i], slow(module, text[i, TEXT_MASK[i]], image[i, IMAGE_MASK[i]]))


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_a_block_for_every_two_layers(layers, blocks):
    assert len(made(layers).blocks) == blocks


@pytest.mark.parametrize("layers", [2, 4, 6])
def test_it_is_as_large_as_the_sfm(layers):
    ours = count_parameters(AsymmetricCoAttention(64, AttentionHeads(8), layers))
    assert ours == pytest.approx(
        count_parameters(FUSIONS["sfm"](64, AttentionHeads(8), layers)), rel=0.1
    )


def test_every_block_reads_the_image_as_it_came():
    module, (text, image) = made(6), words_and_regions()
    before, read = image.clone(), []
    for block in module.blocks:
        block.register_forward_pre_hook(lambda _, args: read.append(args[1]))
    module(text, image, TEXT_MASK, IMAGE_MASK)
    assert len(read) == 3
    assert all(x is image for x in read)
    assert torch.equal(image, before)


def test_the_order_of_regions_and_of_words_does_not_count():
    module, (text, image) = made(4), words_and_regions()
    fused = module(text, image, TEXT_MASK, IMAGE_MASK)
    p = [3, 1, 4, 0, 2]
    assert_close(module(text, image[:, p], TEXT_MASK, IMAGE_MASK[:, p]), fused)
    p = [2, 0, 3, 1]
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


def test_the_elements_view_is_refused():
    with pytest.raises(SgmftError, match=r"asymmetric-co-attention .*view=tokens"):
        FUSIONS["asymmetric-co-attention"](16, AttentionHeads(2, 1), 2)
    with pytest.raises(SgmftError, match="view=tokens"):
        SGMFT(
            SGMFTConfig(classes=3, text_width=16, image_width=16, fusion="asymmetric-co-attention")
        )
