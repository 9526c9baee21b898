"""What must not matter to SG-MFT: padding, order, other posts, and what is missing."""

from dataclasses import replace
from itertools import product

import pytest
import reference_sgmft as reference
import torch
from small_model import SMALL, configs, fresh, post, random_batch, randomised, views
from torch.nn.functional import cross_entropy

from sgmft.features.batch import Batch


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
    w = reference.matrices(model)
    expected = torch.tensor(
        reference.sgmft(w, model.config, post(batch, 0))[0], dtype=torch.float64
    )
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
