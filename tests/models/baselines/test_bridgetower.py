"""BridgeTower: the network against plain matrix products, its levels and bridges, its settings."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import BridgeTowerTextConfig
from transformers.models.bridgetower.modeling_bridgetower import BridgeTowerTextLayer

from sgmft.models.baselines.bridgetower import METHOD, BridgeTower, BridgeTowerConfig
from token_batches import assert_close, random_batch, randomize

SMALL = BridgeTowerConfig(
    classes=3, text_width=6, image_width=5, width=8, heads=2, hidden_ratio=1.5, max_images=2
)


def made(config, seed=0):
    torch.manual_seed(seed)
    return randomize(BridgeTower(config), seed)


# --- the card, one post and one head at a time, with matrix products only ---


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def attend(w, name, heads, x, y):
    """LN(x + attention to y)."""
    q, k, v = (
        linear(w, f"{name}.self.{part}", z) for part, z in (("query", x), ("key", y), ("value", y))
    )
    width, out = x.shape[1] // heads, []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        powers = (q[:, part] @ k[:, part].T / math.sqrt(width)).exp()
        out.append(powers / powers.sum(1, keepdim=True) @ v[:, part])
    out = linear(w, f"{name}.output.dense", torch.cat(out, 1))
    return layer_norm(w, f"{name}.output.LayerNorm", x + out)


def feed_forward(w, name, x):
    hidden = gelu(linear(w, f"{name}.intermediate.dense", x))
    out = linear(w, f"{name}.output.dense", hidden)
    return layer_norm(w, f"{name}.output.LayerNorm", x + out)


def unimodal(w, name, heads, x):
    return feed_forward(w, name, attend(w, f"{name}.attention", heads, x, x))


def crossmodal(w, name, heads, x, y):
    x = attend(w, f"{name}.attention", heads, x, x)
    return feed_forward(w, name, attend(w, f"{name}.crossattention", heads, x, y))


def first(w, name, tokens, index=None):
    """T_1: the class token, then real tokens in the network's width, or the null token."""
    if len(tokens):
        scale = f"{name}.token_scale"
        x = (tokens - w[f"{scale}.mean"]) / w[f"{scale}.deviation"]
        x = linear(w, f"{name}.project", x)
        x = x if index is None else x + w[f"{name}.index.weight"][index.clamp(max=1)]
    else:
        x = w[f"{name}.null"][None]
    return torch.cat([w[f"{name}_tower.class_token"][None], x])


def slow_bridgetower(w, config, words, regions, index):
    """cls and logits of one post."""
    T, V = [first(w, "text", words)], [first(w, "image", regions, index)]
    for k in range(config.layers - 1):
        T.append(unimodal(w, f"text_tower.layers.{k}", config.heads, T[-1]))
        V.append(unimodal(w, f"image_tower.layers.{k}", config.heads, V[-1]))
    T = [x + w["text_tower.type_embedding"] for x in T]
    V = [x + w["image_tower.type_embedding"] for x in V]
    x, y = layer_norm(w, "text_tower.norm", T[0]), layer_norm(w, "image_tower.norm", V[0])
    for k in range(config.layers):
        if k:
            x = layer_norm(w, f"text_tower.bridges.{k - 1}.LayerNorm", T[k] + x)
            y = layer_norm(w, f"image_tower.bridges.{k - 1}.LayerNorm", V[k] + y)
        x, y = (
            crossmodal(w, f"cross_modal.{k}.text", config.heads, x, y),
            crossmodal(w, f"cross_modal.{k}.image", config.heads, y, x),
        )
    cls = torch.cat(
        [
            linear(w, "text_tower.pooler.dense", x[0]).tanh(),
            linear(w, "image_tower.pooler.dense", y[0]).tanh(),
        ]
    )
    hidden = gelu(layer_norm(w, "classifier.1", linear(w, "classifier.0", cls)))
    return cls, linear(w, "classifier.3", hidden)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_network_is_the_card(layers, mode):
    config = replace(SMALL, layers=layers)
    model, batch = made(config), random_batch()
    with mode():
        out = model(batch)
    assert out.fused.shape == (4, 16) and out.logits.shape == (4, 3)
    w = {name: x.detach() for name, x in model.state_dict().items()}
    for i in range(4):
        words = batch.text_tokens[i, batch.text_mask[i]]
        real = batch.image_mask[i]
        regions, index = batch.image_tokens[i, real], batch.image_index[i, real]
        cls, logits = slow_bridgetower(w, config, words, regions, index)
        assert_close(out.fused[i], cls)
        assert_close(out.logits[i], logits)


def test_a_towers_layer_is_that_of_transformers():
    model = made(SMALL)
    config = BridgeTowerTextConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=12, attn_implementation="eager"
    )
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    added = torch.where(mask, 0.0, -math.inf).double()[:, None, None]
    for tower in (model.text_tower, model.image_tower):
        for k in (2, 3):
            theirs = BridgeTowerTextLayer(config).double().eval()
            theirs.load_state_dict(tower.layers[k - 2].state_dict(), strict=True)
            expected = theirs(x, added)
            expected = expected if isinstance(expected, torch.Tensor) else expected[0]
            assert_close(tower.climb(k, x, mask), expected)


# --- levels and bridges ---


def test_three_levels_by_default_and_a_bridge_to_all_but_the_first():
    config = BridgeTowerConfig(classes=7, text_width=512, image_width=1280)
    assert (config.heads, config.layers) == (8, 3)
    assert (config.hidden_ratio, config.dropout) == (4.0, 0.1)
    for layers in (1, 3, 6):
        model = BridgeTower(replace(SMALL, layers=layers))
        assert len(model.cross_modal) == layers
        for tower in (model.text_tower, model.image_tower):
            assert len(tower.layers) == len(tower.bridges) == layers - 1


@pytest.mark.parametrize("name", ["text_tower", "image_tower"])
@pytest.mark.parametrize("level", [0, 1])
def test_every_bridge_carries_what_its_tower_says(name, level):
    model, batch = made(SMALL), random_batch()
    logits = model(batch).logits
    bridge = getattr(model, name).bridges[level]
    bridge.register_forward_pre_hook(lambda _, args: (torch.zeros_like(args[0]), *args[1:]))
    assert not torch.isclose(logits, model(batch).logits).any()


@pytest.mark.parametrize("name", ["text", "image"])
def test_every_bridge_carries_what_the_level_below_says(name):
    model, batch = made(SMALL), random_batch()
    logits = model(batch).logits
    bridge = getattr(model, f"{name}_tower").bridges[1]
    bridge.register_forward_pre_hook(
        lambda _, args: (args[0], torch.zeros_like(args[1]), *args[2:])
    )
    assert not torch.isclose(logits, model(batch).logits).any()


def test_towers_are_uni_modal():
    """What a tower says does not depend on the other side."""
    model, batch = made(SMALL), random_batch()
    said = []
    for tower in (model.text_tower, model.image_tower):
        for layer in tower.layers:
            layer.register_forward_pre_hook(lambda _, args: said.append(args[0]))
    model(batch)
    model(batch._replace(image_tokens=batch.image_tokens + 1))
    before, after = said[:4], said[4:]  # text, image, text, image
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1]) and not torch.equal(before[3], after[3])


# --- settings ---


def test_transformers_is_imported_only_by_who_builds_it():
    code = (
        "import sys, sgmft.models.baselines.bridgetower, sgmft.models.fusions; "
        "sys.exit('transformers.models.bridgetower.modeling_bridgetower' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_method_says_what_it_is():
    assert (METHOD.name, METHOD.title, METHOD.tokens) == ("bridgetower", "BridgeTower", True)
    assert METHOD.source == "Xu et al. 2023"
    for words in ("random initialisation", "three levels", "cached final-layer features"):
        assert words in METHOD.note
    assert set(METHOD.setting_kinds()) == {
        "width",
        "heads",
        "layers",
        "hidden_ratio",
        "dropout",
        "scale",
        "max_images",
    }
