import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import slow
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.nn import SGMFT, Batch, ModelConfig
from sgmft.nn.model import own_width

SMALL = ModelConfig(
    classes=3,
    text_width=12,
    image_width=10,
    width=16,
    heads=2,
    hidden_ratio=2.0,
    classifier_widths=(12, 10, 8, 6),
    max_images=3,
)
WORDS, REGIONS = [5, 1, 4, 2, 3], [4, 6, 2, 8, 2]  # two regions a picture
HAS_TEXT, HAS_IMAGE = [True, True, False, True, False], [True, True, True, False, False]
NAMES = {"view", "gate", "guided", "fusion"}
VIEWS = ["elements", "tokens"]
views = pytest.mark.parametrize("view", VIEWS)

CONFIGS = [
    replace(SMALL, view=view, gate=gate, guided=guided)
    for view, gate, guided in product(VIEWS, ("softmax", "sigmoid"), ("text", "image"))
] + [
    replace(SMALL, view=view, **changes)
    for view in VIEWS
    for changes in (
        {"sim": False},
        {"fusion": "sum"},
        {"sim": False, "fusion": "sum"},
        {"scale": "unit", "temperature": 20.0},
        {"scale": "standard", "temperature": "learned", "initial_temperature": 3.0},
        {"fusion_layers": 1, "element_width": 2},
        {"element_width": 4, "guided": "image"},
        {"shared_space": True, "text_width": 16, "image_width": 16, "word_width": 16},
        {"word_width": 7, "scale": "standard"},
        {"word_width": 7, "sim": False},
    )
]


def name_of(config):
    changed = {k: v for k, v in vars(config).items() if v != getattr(SMALL, k) or k == "view"}
    return "-".join(str(v) if k in NAMES else f"{k}={v}" for k, v in changed.items())


configs = pytest.mark.parametrize("config", CONFIGS, ids=name_of)


def random_batch(config, missing=True, seed=0, dtype=torch.float64):
    """Five posts of unequal length with random numbers in padding and in missing sides."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    def mask(lengths, present):
        return torch.arange(max(lengths)) < (torch.tensor(lengths) * present)[:, None]

    present = [
        torch.tensor(x) if missing else torch.tensor([True] * 5) for x in (HAS_TEXT, HAS_IMAGE)
    ]
    pooled = normal(5, config.text_width), normal(5, config.image_width)
    if config.view == "elements":
        return Batch(*pooled, *present)
    return Batch(
        *pooled,
        *present,
        normal(5, max(WORDS), config.word_width),
        mask(WORDS, present[0]),
        normal(5, max(REGIONS), config.image_width),
        mask(REGIONS, present[1]),
        (torch.arange(max(REGIONS)) // 2).expand(5, -1),
    )


def randomised(config, seed=0):
    """A model in float64, eval mode, whose every parameter and buffer is drawn."""
    torch.manual_seed(seed)
    model = SGMFT(config).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * (0.1 if "log_value" in name else 0.3))
        for name, b in model.named_buffers():
            b.copy_(torch.rand_like(b) + 0.5 if "deviation" in name else torch.randn_like(b))
    return model


def fresh(config, seed=0):
    torch.manual_seed(seed)
    return SGMFT(config)


def post(batch, i):
    """One post as `slow.sgmft` takes it: real tokens only."""

    def side(pooled, has, tokens, mask):
        if not has[i]:
            return None, None
        return pooled[i].tolist(), None if tokens is None else tokens[i][mask[i]].tolist()

    text, words = side(batch.text, batch.has_text, batch.text_tokens, batch.text_mask)
    image, regions = side(batch.image, batch.has_image, batch.image_tokens, batch.image_mask)
    index = (
        None if batch.image_index is None else batch.image_index[i][batch.image_mask[i]].tolist()
    )
    return {"text": text, "words": words, "image": image, "regions": regions, "index": index}


def take(batch, rows):
    """Posts of a batch, cut to the longest among them."""
    parts = Batch._make(None if x is None else x[rows] for x in batch)
    if parts.text_mask is None:
        return parts
    n, m = (max(1, int(mask.sum(1).max())) for mask in (parts.text_mask, parts.image_mask))
    return parts._replace(
        text_tokens=parts.text_tokens[:, :n],
        text_mask=parts.text_mask[:, :n],
        image_tokens=parts.image_tokens[:, :m],
        image_mask=parts.image_mask[:, :m],
        image_index=parts.image_index[:, :m],
    )


def same(a, b, atol=1e-10):
    torch.testing.assert_close(a.logits, b.logits, rtol=0, atol=atol)
    torch.testing.assert_close(a.fused, b.fused, rtol=0, atol=atol)
    if a.guidance is not None:
        for x, y in zip(a.guidance, b.guidance, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


# --- the whole model against loops ---


@configs
def test_the_model_is_the_papers_equations(config):
    model, batch = randomised(config), random_batch(config)
    with torch.no_grad():
        out = model(batch)
    w = slow.matrices(model)
    for i in range(5):
        *expected, guidance = slow.sgmft(w, config, post(batch, i))
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


# --- what must not matter ---


@configs
def test_batch_neighbours_change_nothing(config):
    model, batch = randomised(config), random_batch(config)
    together = model(batch)
    for i in range(5):
        alone = model(take(batch, [i]))
        torch.testing.assert_close(alone.logits[0], together.logits[i], rtol=0, atol=1e-10)
        if alone.guidance is not None:
            for x, y in zip(alone.guidance, together.guidance, strict=True):
                torch.testing.assert_close(x[0], y[i], rtol=0, atol=1e-10)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(
        model(take(batch, order)).logits, together.logits[order], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("changes", [{}, {"sim": False}, {"fusion": "sum"}, {"guided": "image"}])
def test_padding_changes_nothing(changes):
    model = randomised(replace(SMALL, view="tokens", **changes))
    batch = random_batch(model.config)

    def longer(x, count):
        extra = torch.zeros_like(x[:, :1]).repeat_interleave(count, 1)
        if x.is_floating_point():
            extra = torch.randn_like(extra) * 100
        return torch.cat([x, extra], 1)

    names = [("text_tokens", "text_mask"), ("image_tokens", "image_mask", "image_index")]
    for group in names:
        padded = batch._replace(**{name: longer(getattr(batch, name), 3) for name in group})
        same(model(padded), model(batch))


def test_the_order_of_words_and_regions_does_not_matter():
    model = randomised(replace(SMALL, view="tokens"))
    batch = take(random_batch(model.config, missing=False), [0, 1, 3])
    words = torch.tensor([3, 1, 4, 0, 2])
    shuffled = batch._replace(
        text_tokens=batch.text_tokens[:, words], text_mask=batch.text_mask[:, words]
    )
    same(model(shuffled), model(batch))
    within = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])  # two regions a picture
    swapped = batch._replace(
        image_tokens=batch.image_tokens[:, within], image_mask=batch.image_mask[:, within]
    )
    same(model(swapped), model(batch))


def test_which_picture_a_region_belongs_to_can_matter():
    model = randomised(replace(SMALL, view="tokens"))
    batch = take(random_batch(model.config, missing=False), [3])  # four pictures
    moved = batch._replace(image_index=torch.tensor([[0, 1, 1, 0, 2, 2, 3, 3]]))
    assert (model(batch).logits - model(moved).logits).abs().max() > 1e-4
    # pictures beyond `max_images` share the last index
    merged = batch._replace(image_index=batch.image_index.clamp(max=2))
    assert torch.equal(model(batch).logits, model(merged).logits)
    with torch.no_grad():
        model.image.index.weight.zero_()  # as before training
    same(model(batch), model(moved))


def test_a_new_model_does_not_tell_pictures_apart():
    assert (fresh(replace(SMALL, view="tokens")).image.index.weight == 0).all()


@configs
def test_what_stands_in_for_a_missing_side_is_not_read(config):
    model, batch = randomised(config), random_batch(config)
    before = model(batch)
    batch.text[~batch.has_text] = 1e3
    batch.image[~batch.has_image] = -1e3
    if batch.text_tokens is not None:
        batch.text_tokens[~batch.has_text] = 1e3
        batch.image_tokens[~batch.has_image] = -1e3
        batch.text_mask[~batch.has_text] = True
        batch.image_mask[~batch.has_image] = True
    same(model(batch), before, 0)


def test_a_text_without_words_has_the_null_token():
    """The text is there and pooled, but no word of it was kept."""
    model = randomised(replace(SMALL, view="tokens"))
    batch = take(random_batch(model.config, missing=False), [0, 1])
    batch.text_mask[0] = False
    out = model(batch)
    w = slow.matrices(model)
    expected = torch.tensor(slow.sgmft(w, model.config, post(batch, 0))[0], dtype=torch.float64)
    torch.testing.assert_close(out.logits[0], expected, rtol=0, atol=1e-10)


@views
@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_never_nan_whatever_is_missing(view, gate):
    config = replace(SMALL, view=view, gate=gate, scale="unit", temperature="learned")
    model = fresh(config)
    base = random_batch(config, missing=False, dtype=torch.float32)
    for text, image in product([True, False], repeat=2):
        batch = base._replace(
            has_text=torch.full((5,), text),
            has_image=torch.full((5,), image),
            text=base.text * text,  # zeros where missing, as `Features` has it
            image=base.image * image,
        )
        model.zero_grad()
        out = model(batch)
        model.loss(out, torch.arange(5) % 3, cross_entropy).backward()
        for value in (out.logits, out.fused, *out.guidance):
            assert value.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


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


# --- learning ---


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
    expected = sum(-math.log(slow.softmax(row)[label]) for row, label in rows) / 5
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
    config = ModelConfig(
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


# --- the config ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"view": "both"}, "view='both' is not known: use elements or tokens."),
        ({"gate": "tanh"}, "gate='tanh' is not known: use softmax or sigmoid."),
        ({"guided": "both"}, "guided='both' is not known: use text or image."),
        ({"scale": "l2"}, "scale='l2' is not known: use none or unit or standard."),
        ({"heads": 3}, "width 16 cannot be cut into 3 heads of elements 1 wide"),
        ({"heads": 3, "view": "tokens"}, "width 16 cannot be cut into 3 heads: choose a multiple"),
        ({"element_width": 3}, "choose a multiple of 6."),
        ({"heads": 0}, "heads must be at least 1, not 0."),
        ({"classes": 0}, "classes must be at least 1, not 0."),
        ({"width": -16}, "width must be at least 1, not -16."),
        ({"text_width": 0}, "text_width must be at least 1, not 0."),
        ({"fusion_layers": 0}, "fusion_layers must be at least 1, not 0."),
        ({"max_images": 0}, "max_images must be at least 1, not 0."),
        ({"classifier_widths": (8, 0)}, "classifier_widths must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive or 'learned', not 0.0."),
        ({"temperature": -1}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"temperature": "hot"}, "temperature must be positive or 'learned', not hot."),
        ({"initial_temperature": 0.0}, "initial_temperature must be positive, not 0.0."),
        ({"hidden_ratio": -1.0}, "hidden_ratio must be positive, not -1.0."),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, not 1."),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1"),
    ],
    ids=lambda x: None if isinstance(x, str) else str(x),
)
def test_a_wrong_setting_is_told_in_a_sentence(changes, words):
    with pytest.raises(SgmftError) as error:
        replace(SMALL, **changes)
    assert words in str(error.value) and str(error.value).endswith(".")


def test_defaults_are_the_papers():
    config = ModelConfig(classes=6, text_width=1024, image_width=1024, shared_space=True)
    assert (config.width, config.heads, config.view, config.element_width) == (
        1024,
        8,
        "elements",
        1,
    )
    assert (config.gate, config.temperature, config.guided) == ("softmax", 1.0, "text")
    assert (config.sim, config.fusion, config.fusion_layers) == (True, "sfm", 2)
    assert (config.scale, config.projected) == ("none", False)
    small = ModelConfig(classes=6, text_width=16, image_width=16, shared_space=True)
    model = SGMFT(small)
    assert sum(isinstance(m, nn.Linear) for m in model.classifier) == 5
    assert model.text_ffn.w1.out_features == 64


@pytest.mark.parametrize(
    ("widths", "shared", "width"),
    [((768, 768), True, 768), ((1536, 2560), False, 512), ((64, 64), False, 512)],
)
def test_the_width_is_the_shared_spaces_or_512(widths, shared, width):
    config = ModelConfig(3, *widths, shared_space=shared)
    assert config.width == own_width(*widths, shared) == width
    assert config.projected is not shared
    assert ModelConfig(3, *widths, shared_space=shared, width=16).width == 16


def test_an_unknown_fusion_module_is_told_when_the_model_is_built():
    with pytest.raises(SgmftError, match="no fusion module 'magic': use sfm, sum"):
        SGMFT(replace(SMALL, fusion="magic"))
