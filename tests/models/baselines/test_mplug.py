"""mPLUG: the network against plain matrix products, its connected layers, its settings."""

import math
from dataclasses import replace

import pytest
import torch

from sgmft.models.baselines.mplug import METHOD, MPLUG, MPLUGConfig
from token_batches import random_batch, randomize

SMALL = MPLUGConfig(
    classes=3, text_width=6, image_width=5, width=8, heads=2, hidden_ratio=1.5, max_images=2
)


def made(config, seed=0):
    torch.manual_seed(seed)
    return randomize(MPLUG(config), seed)


# --- the card, one post and one head at a time, with matrix products only ---


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w, name, heads, x, y):
    D = x.shape[1]
    rows, shift = w[f"{name}.in_proj_weight"], w[f"{name}.in_proj_bias"]
    q, k, v = (
        z @ rows[i * D : (i + 1) * D].T + shift[i * D : (i + 1) * D]
        for i, z in enumerate((x, y, y))
    )
    out = []
    for h in range(heads):
        part = slice(h * D // heads, (h + 1) * D // heads)
        powers = (q[:, part] @ k[:, part].T / math.sqrt(D // heads)).exp()
        out.append(powers / powers.sum(1, keepdim=True) @ v[:, part])
    return torch.cat(out, 1) @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def feed_forward(w, name, x):
    x = x @ w[f"{name}.linear1.weight"].T + w[f"{name}.linear1.bias"]
    x = x / 2 * (1 + torch.erf(x / math.sqrt(2)))
    return x @ w[f"{name}.linear2.weight"].T + w[f"{name}.linear2.bias"]


def block(w, name, heads, x, image=None):
    x = layer_norm(w, f"{name}.norm1", x + attention(w, f"{name}.self_attn", heads, x, x))
    if image is None:
        return layer_norm(w, f"{name}.norm2", x + feed_forward(w, name, x))
    cross = attention(w, f"{name}.multihead_attn", heads, x, image)
    x = layer_norm(w, f"{name}.norm2", x + cross)
    return layer_norm(w, f"{name}.norm3", x + feed_forward(w, name, x))


def side(w, name, tokens, index=None):
    """Real tokens in the network's width; the null token where there are none."""
    if not len(tokens):
        return w[f"{name}.null"][None]
    scale = f"{name}.token_scale"
    x = (tokens - w[f"{scale}.mean"]) / w[f"{scale}.deviation"]
    x = x @ w[f"{name}.project.weight"].T + w[f"{name}.project.bias"]
    return x if index is None else x + w[f"{name}.index.weight"][index.clamp(max=1)]


def slow_mplug(w, config, connected, words, regions, index):
    """x[:, 0] after all layers, and the logits, of one post."""
    x = torch.cat([w["class_token"][None], side(w, "text", words)])
    image = side(w, "image", regions, index)
    for i in range(config.layers):
        if i in connected:
            both = block(w, f"layers.{i}", config.heads, torch.cat([image, x]))
            image, x = image + both[: len(image)], both[len(image) :]
        else:
            x = block(w, f"layers.{i}", config.heads, x, image)
    return x[0], w["classifier.weight"] @ x[0] + w["classifier.bias"]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("layers", "stride", "connected"), [(2, 1, {1}), (6, 3, {3}), (5, 2, {2, 4}), (3, 3, set())]
)
def test_the_network_is_the_card(layers, stride, connected, mode):
    config = replace(SMALL, layers=layers, stride=stride)
    model, batch = made(config), random_batch()
    with mode():
        out = model(batch)
    w = {name: x.detach() for name, x in model.state_dict().items()}
    for i in range(4):
        words = batch.text_tokens[i, batch.text_mask[i]]
        real = batch.image_mask[i]
        regions, index = batch.image_tokens[i, real], batch.image_index[i, real]
        fused, logits = slow_mplug(w, config, connected, words, regions, index)
        torch.testing.assert_close(out.fused[i], fused, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out.logits[i], logits, rtol=1e-10, atol=1e-10)


# --- where layers connect ---


@pytest.mark.parametrize(
    ("layers", "stride", "connected"),
    [(6, 3, (3,)), (12, 3, (3, 6, 9)), (2, 1, (1,)), (4, 1, (1, 2, 3)), (6, 6, ()), (1, 1, ())],
)
def test_layers_connect_at_multiples_of_the_stride_but_the_first(layers, stride, connected):
    assert replace(SMALL, layers=layers, stride=stride).connected_layers == connected


def test_the_published_shape_is_the_default():
    config = MPLUGConfig(classes=7, text_width=512, image_width=1280)
    assert (config.layers, config.stride, config.connected_layers) == (6, 3, (3,))
    assert (config.width, config.heads, config.hidden_ratio) == (128, 8, 4.0)


def test_the_image_changes_in_the_connected_layer_only():
    model, batch = made(SMALL), random_batch()
    seen = {}

    def note(i):
        def hook(module, args):
            seen[i] = args

        return hook

    for i, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(note(i))
    model(batch)
    image = {i: args[1] for i, args in seen.items() if len(args) == 2}
    assert sorted(image) == [0, 1, 2, 4, 5]
    (both,) = seen[3]  # image and text at once
    assert torch.equal(both[:, :6], image[0])
    assert both.shape[1] == 6 + 1 + 4
    assert image[0].data_ptr() == image[1].data_ptr() == image[2].data_ptr()
    assert torch.equal(image[4], image[5])
    assert not torch.isclose(image[4], image[0])[batch.image_mask].all(-1).any()


def test_the_method_says_what_it_is():
    assert (METHOD.name, METHOD.title, METHOD.tokens) == ("mplug", "mPLUG", True)
    assert "random initialisation" in METHOD.note
    assert set(METHOD.setting_kinds()) == {
        "width",
        "heads",
        "layers",
        "stride",
        "hidden_ratio",
        "dropout",
        "scale",
        "max_images",
    }
