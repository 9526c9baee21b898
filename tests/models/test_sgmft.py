"""SG-MFT: the whole model against loops, its settings, what must and must not matter, learning."""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import reference_sgmft as reference
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.features.features import Batch
from sgmft.models.sgmft import SGMFT, SGMFTConfig, shared_width
from token_batches import assert_close, randomize

SMALL = SGMFTConfig(
    classes=3,
    text_width=12,
    image_width=10,
    width=16,
    heads=2,
    hidden_ratio=2.0,
    classifier_widths=(12, 10, 8, 6),
    max_images=3,
)
TOKENS = replace(SMALL, view="tokens")
WORDS, REGIONS = torch.tensor([5, 1, 4, 2, 3]), torch.tensor([4, 6, 2, 8, 2])  # two an image
HAS_TEXT = torch.tensor([True, True, False, True, False])
HAS_IMAGE = torch.tensor([True, True, True, False, False])
VARIANTS = [{"gate": g, "guided": m} for g, m in product(("softmax", "sigmoid"), ("text", "image"))]
VARIANTS += [
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
    {"key_width": "head", "element_width": 2},
]
views = pytest.mark.parametrize("config", [SMALL, TOKENS], ids=lambda config: config.view)
configs = pytest.mark.parametrize(
    "config",
    [pytest.param(replace(c, **x), id=f"{c.view} {x}") for x in VARIANTS for c in (SMALL, TOKENS)],
)


def random_batch(config, missing=True, seed=0, dtype=torch.float64):
    """Five posts of unequal length with random numbers in padding and in missing modalities."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    everywhere = torch.ones(5, dtype=torch.bool)
    has_text, has_image = (HAS_TEXT, HAS_IMAGE) if missing else (everywhere, everywhere)
    pooled = normal(5, config.text_width), normal(5, config.image_width), has_text, has_image
    if config.view == "elements":
        return Batch(*pooled)
    return Batch(
        *pooled,
        normal(5, 5, config.word_width),
        torch.arange(5) < (WORDS * has_text)[:, None],
        normal(5, 8, config.image_width),
        torch.arange(8) < (REGIONS * has_image)[:, None],
        (torch.arange(8) // 2).expand(5, -1),
    )


def fresh(config, seed=0):
    torch.manual_seed(seed)
    return SGMFT(config)


def drawn(config):
    """A model in float64 for evaluation, whose every parameter and buffer is drawn."""
    return randomize(fresh(config))


def post(batch, i):
    """One post as `reference.sgmft` takes it: real tokens only."""

    def part(has, x, mask=None):
        return (
            None if x is None or not has[i] else (x[i] if mask is None else x[i][mask[i]]).tolist()
        )

    return {
        "text": part(batch.has_text, batch.text),
        "words": part(batch.has_text, batch.text_tokens, batch.text_mask),
        "image": part(batch.has_image, batch.image),
        "regions": part(batch.has_image, batch.image_tokens, batch.image_mask),
        "index": part(batch.has_image, batch.image_index, batch.image_mask),
    }


def take(batch, rows):
    """Posts of a batch, cut to the longest among them."""
    parts = Batch._make(None if x is None else x[rows] for x in batch)
    if parts.text_mask is None:
        return parts
    n, m = (max(1, int(mask.sum(1).max())) for mask in (parts.text_mask, parts.image_mask))
    text = {name: getattr(parts, name)[:, :n] for name in ("text_tokens", "text_mask")}
    image = ("image_tokens", "image_mask", "image_index")
    return parts._replace(**text, **{name: getattr(parts, name)[:, :m] for name in image})


def same(a, b, atol=1e-10):
    pairs = [(a.logits, b.logits, atol), (a.fused, b.fused, atol)]
    if a.guidance is not None:
        pairs += [(x, y, 1e-6) for x, y in zip(a.guidance, b.guidance, strict=True)]
    for x, y, tolerance in pairs:
        torch.testing.assert_close(x, y, rtol=0, atol=tolerance)


# --- the whole model against loops


@configs
def test_the_model_is_the_papers_equations(config, monkeypatch):
    if config.key_width == "head":  # d_K is D/h in both views
        root = math.sqrt(config.width / config.heads)

        def head(Q, K, V):
            weights = ([reference.dot(q, k) / root for k in K] for q in Q)
            return [reference.mix(reference.softmax(x), V) for x in weights]

        monkeypatch.setattr(reference, "head", head)
    model, batch = drawn(config), random_batch(config)
    with torch.no_grad():
        out = model(batch)
    w = reference.matrices(model)
    for i in range(5):
        *expected, guidance = reference.sgmft(w, config, post(batch, i))
        for found, numbers in zip((out.logits, out.fused), expected, strict=True):
            assert_close(found[i], torch.tensor(numbers, dtype=torch.float64))
        found = None if out.guidance is None else tuple(float(x[i]) for x in out.guidance)
        assert found == (guidance and pytest.approx(guidance, abs=1e-6))


@views
def test_float32_agrees_with_float64(config):
    model, batch = drawn(config), random_batch(config)
    double = model(batch).logits
    floats = (x.float() if x is not None and x.is_floating_point() else x for x in batch)
    single = model.float()(Batch._make(floats)).logits
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@configs
def test_every_modality_matters(config):
    model, batch = drawn(config), random_batch(config, missing=False)
    other = random_batch(config, missing=False, seed=1)
    for changes in (
        {"text": other.text, "text_tokens": other.text_tokens},
        {"image": other.image, "image_tokens": other.image_tokens},
        {"has_text": ~batch.has_text},
    ):
        moved = (model(batch).fused - model(batch._replace(**changes)).fused).abs()
        assert (moved.amax(-1) > 1e-5).all()


# --- settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": "l2"}, "scale='l2' is not known: use none or unit or standard."),
        ({"fusion": "magic"}, "no fusion module 'magic': use sfm, sum"),
        ({"heads": 3}, "width 16 cannot be cut into 3 heads of elements 1 wide"),
        ({"heads": 3, "view": "tokens"}, "width 16 cannot be cut into 3 heads: choose a multiple"),
        ({"element_width": 3}, "choose a multiple of 6."),
        *(({x: -1}, f"{x} must be at least 1, not -1.") for x in ("classes", "text_width")),
        ({"temperature": 0.0}, "temperature must be positive or 'learned', not 0.0."),
        ({"temperature": -1}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive"),
        ({"temperature": "hot"}, "temperature must be positive or 'learned', not hot."),
        ({"initial_temperature": 0.0}, "initial_temperature must be positive, not 0.0."),
    ],
    ids=lambda x: None if isinstance(x, str) else str(x),
)
def test_a_wrong_setting_is_told_in_a_sentence(changes, words):
    with pytest.raises(SgmftError) as error:
        replace(SMALL, **changes)
    assert words in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("widths", "shared", "width"),
    [((768, 768), True, 768), ((1536, 2560), False, 512), ((64, 64), False, 512)],
)
def test_the_width_is_the_shared_spaces_or_512(widths, shared, width):
    config = SGMFTConfig(3, *widths, shared_space=shared)
    assert config.width == shared_width(*widths, shared) == width
    assert config.projected is not shared
    assert SGMFTConfig(3, *widths, shared_space=shared, width=16).width == 16
    assert config.word_width == widths[0]


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


# --- what must not matter, beside what test_every_method has


def test_the_order_of_words_and_regions_does_not_matter():
    model = drawn(TOKENS)
    batch = take(random_batch(TOKENS, missing=False), [0, 1, 3])
    words, within = [3, 1, 4, 0, 2], [1, 0, 3, 2, 5, 4, 7, 6]  # two regions an image
    shuffled = batch._replace(
        text_tokens=batch.text_tokens[:, words],
        text_mask=batch.text_mask[:, words],
        image_tokens=batch.image_tokens[:, within],
        image_mask=batch.image_mask[:, within],
    )
    same(model(shuffled), model(batch))


def test_which_image_a_region_belongs_to_matters_once_it_is_learned():
    assert (fresh(TOKENS).image.index.weight == 0).all()
    model = drawn(TOKENS)
    batch = take(random_batch(TOKENS, missing=False), [3])  # four images
    moved = batch._replace(image_index=torch.tensor([[0, 1, 1, 0, 2, 2, 3, 3]]))
    assert (model(batch).logits - model(moved).logits).abs().max() > 1e-4
    # images beyond `max_images` share the last index
    merged = batch._replace(image_index=batch.image_index.clamp(max=2))
    assert torch.equal(model(batch).logits, model(merged).logits)
    with torch.no_grad():
        model.image.index.weight.zero_()  # as before training
    same(model(batch), model(moved))


def test_a_text_without_words_has_the_null_token():
    """The text is there and pooled, but no word of it was kept."""
    model = drawn(TOKENS)
    batch = take(random_batch(TOKENS, missing=False), [0, 1])
    batch.text_mask[0] = False
    expected, *_ = reference.sgmft(reference.matrices(model), TOKENS, post(batch, 0))
    assert_close(model(batch).logits[0], torch.tensor(expected, dtype=torch.float64))


@views
@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_never_nan_whatever_is_missing(config, gate):
    model = fresh(replace(config, gate=gate, scale="unit", temperature="learned"))
    base = random_batch(config, missing=False, dtype=torch.float32)
    for text, image in product([True, False], repeat=2):
        batch = base._replace(
            has_text=base.has_text & text,
            has_image=base.has_image & image,
            text=base.text * text,  # zeros where missing, as `Features` has it
            image=base.image * image,
        )
        model.zero_grad()
        out = model(batch)
        model.loss(out, torch.arange(5) % 3, cross_entropy).backward()
        for value in (out.logits, out.fused, *out.guidance):
            assert value.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_an_elements_model_ignores_tokens():
    model, batch = drawn(SMALL), random_batch(TOKENS)
    assert torch.equal(model(batch).logits, model(Batch(*batch[:4])).logits)


# --- learning


def without_gradient(model, batch):
    """Parameters that learn nothing from this batch."""
    model.zero_grad()
    model.loss(model(batch), torch.arange(5) % 3, cross_entropy).backward()
    return {n for n, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()}


def learner(config):
    return fresh(replace(config, dropout=0.0)).double()


@views
def test_the_loss_is_equation_19(config):
    out, labels = drawn(config)(random_batch(config)), torch.arange(5) % 3
    rows = zip(out.logits.tolist(), labels.tolist(), strict=True)
    expected = sum(-math.log(reference.softmax(row)[label]) for row, label in rows) / 5
    assert fresh(config).loss(out, labels, cross_entropy).item() == pytest.approx(expected)
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    found = fresh(config).loss(out, labels, partial(cross_entropy, weight=weight))
    assert found.item() == pytest.approx(cross_entropy(out.logits, labels, weight).item())


@configs
def test_gradients_reach_every_parameter(config):
    """And so there is none that is not used, where modules are left out."""
    model = learner(config)
    fixed = {"temperature.log_value"} if config.sim and config.temperature != "learned" else set()
    assert without_gradient(model, random_batch(config)) == fixed
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == fixed


@views
def test_null_vectors_learn_from_missing_modalities_only(config):
    model, fixed = learner(config), {"temperature.log_value"}
    complete = random_batch(config, missing=False)
    assert without_gradient(model, complete) == {"text.null", "image.null"} | fixed
    no_text = complete._replace(has_text=HAS_TEXT)
    assert without_gradient(model, no_text) == {"image.null"} | fixed


def test_index_vectors_learn_from_the_images_they_stand_for():
    model, batch = learner(TOKENS), random_batch(TOKENS, missing=False)
    single = batch._replace(image_index=torch.zeros_like(batch.image_index))
    for images, learned in ((batch, [True, True, True]), (single, [True, False, False])):
        without_gradient(model, images)
        assert (model.image.index.weight.grad != 0).any(1).tolist() == learned


@pytest.mark.parametrize("changes", [{}, {"gate": "sigmoid", "element_width": 4}], ids=str)
def test_a_hundred_steps_overfit_32_random_posts(changes):
    torch.manual_seed(0)
    settings = {"width": 32, "heads": 4, "classifier_widths": (64, 32, 32, 16), "dropout": 0.0}
    model, here = SGMFT(SGMFTConfig(4, 24, 24, **settings, **changes)), torch.arange(32) % 8
    batch = Batch(torch.randn(32, 24), torch.randn(32, 24), here != 0, here != 1)
    labels = torch.randint(4, (32,))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        loss = model.loss(model(batch), labels, cross_entropy)
        if loss < 0.05:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = model.eval()(batch).logits
    assert torch.equal(out.argmax(-1), labels) and cross_entropy(out, labels) < 0.1
