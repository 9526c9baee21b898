import pytest
import reference_sgmft as reference
import torch

from sgmft.models.attention import AttentionHeads, CrossAttention, InterpolationAttention

D, HEADS = 16, 2
WORDS, REGIONS = [5, 3, 1], [7, 2, 4]
views = pytest.mark.parametrize("width", [None, 1, 2, 4, 8], ids=lambda w: f"w={w}")


def randomised(module, seed=0):
    """In float64 with every parameter drawn, so that no bias is 0 and no gain is 1."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module


def features(width, seed=0):
    """Text, image, and their masks; padding holds random numbers."""
    torch.manual_seed(seed)
    if width is not None:
        return *torch.randn(2, 3, D, dtype=torch.float64), None, None
    out = [torch.randn(3, max(n), D, dtype=torch.float64) for n in (WORDS, REGIONS)]
    masks = [torch.arange(max(n)) < torch.tensor(n)[:, None] for n in (WORDS, REGIONS)]
    return *out, *masks


def rows(x, mask, b):
    """A post's real tokens, or its one pooled vector, as lists."""
    return [x[b].tolist()] if mask is None else x[b][mask[b]].tolist()


def check(x, mask, b, expected):
    got = x[b][None] if mask is None else x[b][mask[b]]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@views
def test_split_and_merge_are_inverse(width):
    text, *_ = features(width)
    heads = AttentionHeads(HEADS, width)
    cut = heads.split(text)
    assert cut.shape == (
        (3, HEADS, 5, D // HEADS) if width is None else (3, HEADS, D // HEADS // width, width)
    )
    assert torch.equal(heads.merge(cut), text)


@views
def test_heads_are_equations_8_and_9(width):
    q, k, _, mask = features(width)
    v = torch.randn_like(k)
    out = AttentionHeads(HEADS, width).attend(q, k, v, mask)
    for b in range(3):
        query = rows(q, None if mask is None else torch.ones(3, 5, dtype=torch.bool), b)
        expected = reference.concat(query, rows(k, mask, b), rows(v, mask, b), HEADS, width)
        check(out, None if mask is None else torch.ones(3, 5, dtype=torch.bool), b, expected)


@views
def test_interpolation_attention_is_equations_6_to_13(width):
    block = randomised(InterpolationAttention(D, AttentionHeads(HEADS, width)))
    text, image, *masks = features(width)
    gate = torch.rand(3, D, dtype=torch.float64)
    out = block(text, image, gate, *masks)
    w = reference.matrices(block)
    for b in range(3):
        sides = [rows(x, m, b) for x, m in zip((text, image), masks, strict=True)]
        expected = reference.interpolation_attention(w, *sides, gate[b].tolist(), HEADS, width)
        for x, m, e in zip(out, masks, expected, strict=True):
            check(x, m, b, e)


@views
def test_cross_attention_is_equation_11(width):
    block = randomised(CrossAttention(D, AttentionHeads(HEADS, width)))
    text, image, *masks = features(width)
    out = block(text, image, *masks)
    w = reference.matrices(block)
    for b in range(3):
        sides = [rows(x, m, b) for x, m in zip((text, image), masks, strict=True)]
        qkv = [
            reference.projections(w, n, x) for n, x in zip(("text", "image"), sides, strict=True)
        ]
        crossed = reference.cross_heads(*qkv, HEADS, width)
        for name, x, m, c in zip(("text", "image"), out, masks, crossed, strict=True):
            check(x, m, b, [reference.times(row, w[f"{name}_cross.weight"]) for row in c])


@pytest.mark.parametrize("width", [None, 1, 2])
@pytest.mark.parametrize("cross", [False, True])
def test_each_side_hears_the_other_exactly_through_cross_attention(width, cross):
    text, image, *masks = features(width)
    other_text, other_image, *_ = features(width, seed=1)
    gate = torch.full((3, D), 0.3, dtype=torch.float64)
    if cross:
        block = randomised(CrossAttention(D, AttentionHeads(HEADS, width)))
        of = block
    else:
        block = randomised(InterpolationAttention(D, AttentionHeads(HEADS, width)))

        def of(t, v, *m, gate=gate):
            return block(t, v, gate, *m)

    before = of(text, image, *masks)
    after_text, after_image = of(other_text, image, *masks), of(text, other_image, *masks)
    assert ((before[1] - after_text[1]).abs().amax(-1) > 1e-4).all()
    assert ((before[0] - after_image[0]).abs().amax(-1) > 1e-4).all()
    if not cross:  # with the gate shut, all is self-attention
        shut = torch.zeros_like(gate)
        alone = of(text, image, *masks, gate=shut)
        with_other_text = of(other_text, image, *masks, gate=shut)
        with_other_image = of(text, other_image, *masks, gate=shut)
        assert torch.equal(alone[1], with_other_text[1])
        assert torch.equal(alone[0], with_other_image[0])
        assert not torch.equal(alone[0], with_other_text[0])


def test_with_the_gate_open_all_is_cross_attention():
    block = randomised(InterpolationAttention(D, AttentionHeads(HEADS)))
    text, image, *masks = features(None)
    gate = torch.ones(3, D, dtype=torch.float64)
    before = block(text, image, gate, *masks)
    with torch.no_grad():
        block.text_self.weight.zero_()
        block.image_self.weight.zero_()
    for x, y in zip(before, block(text, image, gate, *masks), strict=True):
        assert torch.equal(x, y)


def test_the_gate_acts_feature_by_feature():
    """Before the norm: a feature with an open gate is the cross-attention's, others the self's."""
    block = randomised(InterpolationAttention(D, AttentionHeads(HEADS, 1)))
    block.text_norm, block.image_norm = torch.nn.Identity(), torch.nn.Identity()
    text, image, *_ = features(1)
    gates = torch.stack([torch.zeros(D), torch.ones(D), torch.arange(D) % 2]).double()
    shut, opened, mixed = (block(text, image, g.expand(3, D)) for g in gates)
    for side in range(2):
        assert torch.equal(mixed[side][:, ::2], shut[side][:, ::2])
        assert torch.equal(mixed[side][:, 1::2], opened[side][:, 1::2])


def test_padding_changes_nothing():
    block = randomised(InterpolationAttention(D, AttentionHeads(HEADS)))
    text, image, text_mask, image_mask = features(None)
    gate = torch.rand(3, D, dtype=torch.float64)
    before = block(text, image, gate, text_mask, image_mask)
    text[~text_mask], image[~image_mask] = 50, -50
    after = block(text, image, gate, text_mask, image_mask)
    for x, y, m in zip(before, after, (text_mask, image_mask), strict=True):
        assert torch.equal(x[m], y[m])
    unmasked = block(text, image, gate)
    assert not torch.allclose(unmasked[0][text_mask], before[0][text_mask])


def test_dropout_is_in_training_only():
    torch.manual_seed(0)
    text, image, *masks = (x if x.dtype == torch.bool else x.float() for x in features(None))
    gate = torch.rand(3, D)
    block = InterpolationAttention(D, AttentionHeads(HEADS), dropout=0.5)
    first, second = block(text, image, gate, *masks), block(text, image, gate, *masks)
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])
    block.eval()
    first, second = block(text, image, gate, *masks), block(text, image, gate, *masks)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
