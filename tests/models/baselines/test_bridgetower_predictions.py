"""What a BridgeTower prediction depends on, in training, in evaluation and after loading."""

from dataclasses import replace

import pytest
import torch
from bridges import SMALL, made
from safetensors.torch import load_model, save_model
from torch.nn.functional import cross_entropy

from sgmft.features.batch import Batch
from token_batches import assert_close, random_batch


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_padding_missing_sides_and_other_posts_do_not_count(mode):
    model, batch = made(SMALL), random_batch()
    longer = batch._replace(
        text_tokens=torch.cat([batch.text_tokens, torch.full((4, 3, 6), 9.0)], 1),
        text_mask=torch.cat([batch.text_mask, torch.zeros(4, 3, dtype=torch.bool)], 1),
        image_tokens=torch.cat([batch.image_tokens, torch.full((4, 2, 5), -9.0)], 1),
        image_mask=torch.cat([batch.image_mask, torch.zeros(4, 2, dtype=torch.bool)], 1),
        image_index=torch.cat([batch.image_index, torch.ones(4, 2, dtype=torch.long)], 1),
    )
    longer.text_tokens[~longer.text_mask], longer.image_tokens[~longer.image_mask] = 99.0, -99.0
    with mode():
        expected = model(batch).logits
        assert_close(model(longer).logits, expected)
        for i in range(4):
            assert_close(
                model(Batch._make(None if x is None else x[i : i + 1] for x in longer)).logits,
                expected[i : i + 1],
            )


def test_order_of_words_and_of_a_pictures_regions_does_not_count():
    model, batch = made(SMALL), random_batch()
    words, regions = [2, 0, 3, 1], [5, 3, 0, 4, 1, 2]
    moved = batch._replace(
        text_tokens=batch.text_tokens[:, words],
        text_mask=batch.text_mask[:, words],
        image_tokens=batch.image_tokens[:, regions],
        image_mask=batch.image_mask[:, regions],
        image_index=batch.image_index[:, regions],
    )
    assert_close(model(moved).logits[:2], model(batch).logits[:2])  # posts with both sides


def test_both_sides_count():
    model, batch = made(SMALL), random_batch()
    logits = model(batch).logits
    for name in ("text_tokens", "image_tokens"):
        changed = model(batch._replace(**{name: getattr(batch, name) + 1})).logits
        assert not torch.isclose(logits[:2], changed[:2]).any()


def test_dropout_works_in_training_only():
    model, batch = made(replace(SMALL, dropout=0.5)), random_batch()
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            assert part.p == 0.5


def test_training_without_dropout_computes_what_evaluation_does():
    model, batch = made(replace(SMALL, dropout=0.0)), random_batch()
    evaluated = model(batch).logits
    assert_close(model.train()(batch).logits, evaluated)


def test_gradients_reach_both_towers_and_all_levels():
    model, batch = made(SMALL), random_batch()
    model.loss(model(batch), torch.tensor([0, 1, 2, 0]), cross_entropy).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        if "key.bias" not in name:  # a softmax does not see what all keys share
            assert p.grad.abs().max() > 1e-12, name


def test_it_is_saved_and_loaded(tmp_path):
    model, other, batch = made(SMALL), made(SMALL, seed=1), random_batch()
    pointers = [x.data_ptr() for x in model.state_dict().values() if x.numel()]
    assert len(set(pointers)) == len(pointers)
    save_model(model, tmp_path / "model.safetensors")
    load_model(other, tmp_path / "model.safetensors", strict=True)
    assert torch.equal(other(batch).logits, model(batch).logits)
