"""SG-MFT: the whole model against loops, what must matter, and the way in."""

from dataclasses import replace

import pytest
import reference_sgmft as reference
import torch
from small_model import SMALL, configs, fresh, post, random_batch, randomised, views
from torch import nn

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch

# --- the whole model against loops ---


@configs
def test_the_model_is_the_papers_equations(config):
    model, batch = randomised(config), random_batch(config)
    with torch.no_grad():
        out = model(batch)
    w = reference.matrices(model)
    for i in range(5):
        *expected, guidance = reference.sgmft(w, config, post(batch, i))
        for got, numbers in zip((out.logits, out.fused), expected, strict=True):
            numbers = torch.tensor(numbers, dtype=torch.float64)
            torch.testing.assert_close(got[i], numbers, rtol=1e-10, atol=1e-10)
        if guidance is None:
            assert out.guidance is None
        else:
            assert out.guidance.gate[i].item() == pytest.approx(guidance[0], abs=1e-6)
            assert out.guidance.elements[i].item() == pytest.approx(guidance[1], abs=1e-6)
    assert out.logits.shape == (5, 3) and out.fused.shape == (5, 16)


@views
def test_float32_agrees_with_float64(view):
    model = randomised(replace(SMALL, view=view))
    batch = random_batch(model.config)
    double = model(batch).logits
    single = model.float()(
        Batch._make(x.float() if x is not None and x.is_floating_point() else x for x in batch)
    ).logits
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


# --- what must matter ---


@configs
def test_every_side_matters(config):
    model, batch = randomised(config), random_batch(config, missing=False)
    before, other = model(batch).logits, random_batch(config, missing=False, seed=1)
    sides = (("text", "text_tokens"), ("image", "image_tokens"))
    for names in sides:
        after = model(batch._replace(**{name: getattr(other, name) for name in names})).logits
        assert ((before - after).abs().amax(-1) > 1e-5).all()
    absent = model(batch._replace(has_text=torch.zeros(5, dtype=torch.bool))).logits
    assert ((before - absent).abs().amax(-1) > 1e-5).all()


@views
def test_each_side_reaches_the_others_branch(view):
    """Through the gate and the cross-attention; of tokens alone through cross-attention."""
    model = randomised(replace(SMALL, view=view))
    seen = []
    model.attention.register_forward_hook(lambda module, args, out: seen.append(out))
    batch, other = (random_batch(model.config, missing=False, seed=s) for s in (0, 1))
    names = ("text", "image") if view == "elements" else ("text_tokens", "image_tokens")
    model(batch)
    for name in names:
        model(batch._replace(**{name: getattr(other, name)}))
    real = (slice(None), 0)  # every post has a first token
    for after in seen[1:]:
        for x, y in zip(seen[0], after, strict=True):
            changed = (x - y).abs().amax(-1)
            assert ((changed if view == "elements" else changed[real]) > 1e-4).all()


@views
@pytest.mark.parametrize("guided", ["text", "image"])
def test_only_the_guided_block_takes_x_inter(view, guided):
    model = fresh(replace(SMALL, view=view, guided=guided))
    assert (model.text_ffn.w3 is not None) == (guided == "text")
    assert (model.image_ffn.w3 is not None) == (guided == "image")


def test_the_classifiers_softmax_is_left_out():
    out = randomised(SMALL)(random_batch(SMALL)).logits
    assert (out < 0).any() and not torch.allclose(out.sum(-1), torch.ones(5).double())


def test_modules_left_out_have_no_parameters():
    names = {n.split(".")[0] for n, _ in fresh(replace(SMALL, sim=False)).named_parameters()}
    assert names == {"text", "image", "fusion", "classifier"}
    names = {n.split(".")[0] for n, _ in fresh(replace(SMALL, fusion="sum")).named_parameters()}
    assert names == {"text", "image", "temperature", "attention", "text_ffn", "image_ffn"} | {
        "classifier"
    }


def test_no_projection_where_the_space_is_shared_and_widths_agree():
    equal = {"text_width": 16, "image_width": 16}
    for changes, projected in (
        ({"shared_space": True, **equal}, False),
        ({"shared_space": False, **equal}, True),
        ({"shared_space": True, "text_width": 16}, True),
        ({"shared_space": True, "text_width": 32, "image_width": 32}, True),
    ):
        config = replace(SMALL, **changes)
        assert config.projected is projected
        assert isinstance(fresh(config).text.project, nn.Linear) is projected


# --- the way in ---


def test_standard_scale_is_fitted_on_training_features():
    model = fresh(replace(SMALL, scale="standard"))
    x = torch.randn(50, 12) * 3 + 5
    x[:, 0] = 2.0  # a constant feature
    model.text.pooled_scale.fit(x)
    scaled = model.text.pooled_scale(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0)[1:], torch.ones(11), atol=1e-5, rtol=0)
    assert (scaled[:, 0] == 0).all()
    assert "text.pooled_scale.mean" in model.state_dict()  # saved with the model


def test_both_scales_of_a_side_are_fitted():
    side = fresh(replace(SMALL, scale="standard", view="tokens")).text
    pooled, tokens = torch.randn(50, 12) * 3 + 5, torch.randn(80, 12) * 2 - 1
    side.fit(pooled, tokens)
    for scale, x in ((side.pooled_scale, pooled), (side.token_scale, tokens)):
        torch.testing.assert_close(scale.mean, x.mean(0))
        torch.testing.assert_close(scale.deviation, x.std(0))
    side = fresh(replace(SMALL, scale="standard")).text
    side.fit(pooled, None)
    torch.testing.assert_close(side.pooled_scale.mean, pooled.mean(0))


@pytest.mark.parametrize("scale", ["none", "unit"])
def test_other_scales_are_not_fitted(scale):
    normalizer = fresh(replace(SMALL, scale=scale)).text.pooled_scale
    x = torch.randn(50, 12) * 3 + 5
    normalizer.fit(x)
    assert (normalizer.mean == 0).all() and (normalizer.deviation == 1).all()
    lengths = normalizer(x).norm(dim=-1)
    torch.testing.assert_close(lengths, x.norm(dim=-1) if scale == "none" else torch.ones(50))
    assert (normalizer(torch.zeros(1, 12)) == 0).all()  # unit length of nothing is not NaN


def test_a_tokens_model_says_that_it_needs_tokens():
    model = fresh(replace(SMALL, view="tokens"))
    with pytest.raises(SgmftError, match="encode the posts again with tokens"):
        model(random_batch(SMALL, dtype=torch.float32))


def test_an_elements_model_ignores_tokens():
    batch = random_batch(replace(SMALL, view="tokens"))
    model = randomised(SMALL)
    assert torch.equal(model(batch).logits, model(Batch(*batch[:4])).logits)
