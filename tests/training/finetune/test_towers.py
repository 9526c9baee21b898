"""Towers in training: the encoder's features, what moves, and steps in parts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from image_files import scene
from sgmft.features.batch import Batch
from sgmft.features.encode import EncodedPosts, encode_all
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.features import LabelledFeatures
from sgmft.models.base import Network, NetworkConfig, Output
from sgmft.models.presets import TrainConfig
from sgmft.training.finetune.network import RawPosts, Tuned
from sgmft.training.finetune.settings import Tuning
from sgmft.training.finetune.towers import augmentation, open_towers
from sgmft.training.trainer import train

PLAIN = Tuning(augment=False, rank=2, encoder_learning_rate=1e-2)
FULL = replace(PLAIN, kind="full")


class Linear(Network):
    """Reads everything an encoder gives."""

    def __init__(self) -> None:
        super().__init__(NetworkConfig(3, 24, 24, True))
        torch.manual_seed(5)
        self.maps = torch.nn.ModuleList(torch.nn.Linear(24, 3) for _ in range(4))

    def forward(self, batch: Batch) -> Output:
        words = (batch.text_tokens * batch.text_mask[..., None]).sum(1)
        regions = (batch.image_tokens * batch.image_mask[..., None]).sum(1)
        sides = (batch.text, batch.image, words / 9, regions / 16)
        logits = sum(layer(x) for layer, x in zip(self.maps, sides, strict=True))
        return Output(logits, batch.text)


@pytest.fixture(scope="module")
def encoded(clip, clip_posts) -> tuple[Any, EncodedPosts]:
    encoder = load_encoder(clip, dtype="float32")
    return encoder, encode_all(clip_posts, encoder, tokens=True)


def made(clip: str, encoded: Any, tuning: Tuning) -> tuple[Tuned, RawPosts]:
    torch.manual_seed(0)
    encoder, known = encoded
    towers = open_towers({"name": clip}, tuning, "cpu")
    model = Tuned(Linear(), towers, True, encoder.info.fingerprint)
    raw = RawPosts(known.posts, known.keys, known.features, encoder.info, model.towers.tokenize)
    return model, raw


@pytest.mark.parametrize("tuning", [PLAIN, FULL])
def test_before_the_first_step_features_are_the_frozen_encoders(clip, encoded, tuning):
    model, raw = made(clip, encoded, tuning)
    rows = torch.tensor([3, 0, 9, 17, 26, 2, 35])  # without text, with two pictures, with none
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            found = model.encode(raw.batch(rows, ngrams=True))
        expected = encoded[1].features.batch(rows, ngrams=True)
        for name in ("text", "image"):
            has = getattr(expected, f"has_{name}")
            torch.testing.assert_close(getattr(found, name)[has], getattr(expected, name)[has])
        for name in ("text_tokens", "image_tokens"):  # kept as float16
            one, other = getattr(found, name), getattr(expected, name)
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
        for name in ("has_text", "has_image", "text_mask", "image_mask", "image_index", "ngrams"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_a_post_does_not_depend_on_the_posts_beside_it(clip, encoded):
    model, raw = made(clip, encoded, PLAIN)
    model.eval()
    with torch.no_grad():
        together = model(raw.batch(None)).logits
        alone = [model(raw.batch(torch.tensor([i]))).logits for i in range(len(raw))]
    torch.testing.assert_close(together, torch.cat(alone))


def moved(clip: str, encoded: Any, tuning: Tuning) -> tuple[Tuned, set[str]]:
    """A model after a few steps, and the weights of its towers that are others than before."""
    model, raw = made(clip, encoded, tuning)
    before = {name: x.detach().clone() for name, x in model.towers.named_parameters()}
    labels = torch.arange(len(raw)) % 3
    config = TrainConfig(epochs=2, batch_size=12, learning_rate=1e-2)
    history = train(model, LabelledFeatures(raw, labels), None, config, device="cpu")
    assert history[1].loss < history[0].loss
    after = dict(model.towers.named_parameters())
    return model, {name for name, x in before.items() if not torch.equal(x, after[name])}


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        ({}, ("attention.self", "attention.output", "self_attn")),
        ({"maps": "all", "last": 1}, ("layer.1.", "layers.1.")),
    ],
)
def test_lora_moves_its_matrices_alone(clip, encoded, change, inside):
    model, names = moved(clip, encoded, replace(PLAIN, **change))
    assert names and all("lora_" in name for name in names)
    assert all(any(part in name for part in inside) for name in names)
    sides = {side for side in ("text_model", "vision_model") for n in names if side in n}
    assert len(sides) == 2
    kept = {n for n in model.state_dict() if not n.startswith("head.")}
    assert all("lora_" in name for name in kept), "a checkpoint holds what moves"
    assert len(kept) == (24 if change else 32), "two for each map"


def test_full_moves_everything_that_is_used(clip, encoded):
    model, names = moved(clip, encoded, FULL)
    still = {name for name, _ in model.towers.named_parameters()} - names
    unused = ("logit_scale", "position_embeddings", "token_type_embeddings", "k_proj.bias")
    assert all(
        name.endswith((*unused, "key.bias")) or any(u in name for u in unused) for name in still
    )


def test_the_last_layers_and_what_is_behind_them_move(clip, encoded):
    _, names = moved(clip, encoded, replace(FULL, last=1))
    assert all(
        any(x in n for x in ("layer.1.", "layers.1.", "projection", "post_layernorm"))
        for n in names
    )
    assert any("layer.1." in n for n in names) and any("layers.1." in n for n in names)


def gradients(clip: str, encoded: Any, tuning: Tuning) -> dict[str, torch.Tensor]:
    model, raw = made(clip, encoded, tuning)
    model.train()
    logits = model(raw.batch(None)).logits
    torch.nn.functional.cross_entropy(logits, torch.arange(36) % 3).backward()
    return {n: x.grad for n, x in model.named_parameters() if x.grad is not None}


@pytest.mark.parametrize("change", [{"micro_batch": 5}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("tuning", [PLAIN, FULL])
def test_a_step_in_parts_has_the_gradient_of_the_whole(clip, encoded, tuning, change):
    expected = gradients(clip, encoded, tuning)
    found = gradients(clip, encoded, replace(tuning, **change))
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-3, atol=1e-5, msg=name)


def test_bfloat16_is_close(clip, encoded):
    plain, raw = made(clip, encoded, PLAIN)
    low, _ = made(clip, encoded, replace(PLAIN, precision="bfloat16"))
    with torch.no_grad():
        one, other = (m.eval().encode(raw.batch(None)) for m in (plain, low))
    for name in ("text", "image"):
        x, y = getattr(one, name), getattr(other, name)
        assert y.dtype == torch.float32
        has = x.abs().sum(1) > 0
        assert torch.cosine_similarity(x[has], y[has]).min() > 0.995
    assert {x.dtype for x in low.towers.parameters() if x.requires_grad} == {torch.float32}


def test_augmented_pictures_become_different_ones_and_the_seed_decides_which():
    pictures = torch.from_numpy(np.stack([np.asarray(scene((84, 84)))] * 6))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augmentation(84)(pictures))
    found, again, other = drawn
    assert torch.equal(found, again) and not torch.equal(found, other)
    assert found.shape == pictures.shape and found.dtype == torch.uint8
    assert len({x.numpy().tobytes() for x in found}) == len(found), "each in its own way"
    assert 2 < (found.float() - pictures.float()).abs().mean() < 100
    assert len(augmentation(84)(pictures[:0])) == 0
