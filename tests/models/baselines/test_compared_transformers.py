"""mPLUG and BridgeTower against plain matrix products, and what their predictions depend on."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from reference_loops import (
    bridgetower_layer,
    gelu,
    layer_norm,
    matrix_linear as linear,
    transformer_block,
)
from sgmft.models.baselines.compared_transformers import (
    MPLUG,
    BridgeTower,
    BridgeTowerConfig,
    MPLUGConfig,
)
from token_batches import WIDTHS, assert_close, random_batch, randomize

SIZES = {"width": 8, "heads": 2, "hidden_ratio": 1.5, "max_images": 2}
SYSTEMS = {
    MPLUG: MPLUGConfig(**WIDTHS, **SIZES),
    BridgeTower: BridgeTowerConfig(**WIDTHS, **SIZES),
}
systems = pytest.mark.parametrize("system", SYSTEMS)
modes = pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])


def build(system, **changes):
    torch.manual_seed(0)
    return randomize(system(replace(SYSTEMS[system], **changes)))


# --- the cards, one post and one head at a time, with matrix products only


def tokens_of(w, name, tokens, index=None):
    """Real tokens in the network's width; the null token where there are none."""
    if not len(tokens):
        return w[f"{name}.null"][None]
    x = (tokens - w[f"{name}.token_scale.mean"]) / w[f"{name}.token_scale.deviation"]
    x = linear(w, f"{name}.project", x)
    return x if index is None else x + w[f"{name}.index.weight"][index.clamp(max=1)]


def slow_mplug(w, config, words, regions, index):
    """x[:, 0] after all layers, and the logits, of one post."""
    x = torch.cat([w["class_token"][None], tokens_of(w, "text", words)])
    image = tokens_of(w, "image", regions, index)
    for i in range(config.layers):
        if i and i % config.stride == 0:
            both = transformer_block(w, f"layers.{i}", config.heads, torch.cat([image, x]))
            image, x = image + both[: len(image)], both[len(image) :]
        else:
            x = transformer_block(w, f"layers.{i}", config.heads, x, image)
    return x[0], linear(w, "classifier", x[0])


def slow_bridgetower(w, config, words, regions, index):
    """cls and logits of one post."""
    towers = {}
    for name, tokens in (("text", (words,)), ("image", (regions, index))):
        levels = [torch.cat([w[f"{name}_tower.class_token"][None], tokens_of(w, name, *tokens)])]
        for k in range(config.layers - 1):
            layer = f"{name}_tower.layers.{k}"
            levels.append(bridgetower_layer(w, layer, config.heads, levels[-1]))
        towers[name] = [x + w[f"{name}_tower.type_embedding"] for x in levels]
    streams = {name: layer_norm(w, f"{name}_tower.norm", T[0]) for name, T in towers.items()}
    for k in range(config.layers):
        if k:
            streams = {
                name: layer_norm(w, f"{name}_tower.bridges.{k - 1}.LayerNorm", towers[name][k] + x)
                for name, x in streams.items()
            }
        x, y = streams.values()
        streams = {
            name: bridgetower_layer(w, f"cross_modal.{k}.{name}", config.heads, *pair)
            for name, pair in (("text", (x, y)), ("image", (y, x)))
        }
    pooled = [linear(w, f"{name}_tower.pooler.dense", x[0]).tanh() for name, x in streams.items()]
    cls = torch.cat(pooled)
    hidden = gelu(layer_norm(w, "classifier.1", linear(w, "classifier.0", cls)))
    return cls, linear(w, "classifier.3", hidden)


def check(model, slow, mode):
    batch = random_batch()
    with mode():
        out = model(batch)
    w = {name: x.detach() for name, x in model.state_dict().items()}
    for i in range(4):
        real = batch.image_mask[i]
        regions = batch.image_tokens[i, real], batch.image_index[i, real]
        expected = slow(w, model.config, batch.text_tokens[i, batch.text_mask[i]], *regions)
        assert_close(out.fused[i], expected[0])
        assert_close(out.logits[i], expected[1])


@modes
@pytest.mark.parametrize("layers, stride", [(2, 1), (6, 3), (5, 2), (3, 3)])
def test_mplug_is_the_card(layers, stride, mode):
    check(build(MPLUG, layers=layers, stride=stride), slow_mplug, mode)


@modes
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_bridgetower_is_the_card(layers, mode):
    check(build(BridgeTower, layers=layers), slow_bridgetower, mode)


@pytest.mark.parametrize(
    ("layers", "stride", "connected"),
    [(6, 3, (3,)), (12, 3, (3, 6, 9)), (2, 1, (1,)), (4, 1, (1, 2, 3)), (6, 6, ()), (1, 1, ())],
)
def test_mplugs_layers_connect_at_multiples_of_the_stride_but_the_first(layers, stride, connected):
    config = replace(SYSTEMS[MPLUG], layers=layers, stride=stride)
    assert config.connected_layers == connected


def test_transformers_is_imported_only_by_who_builds_it():
    code = (
        "import sys, sgmft.models.baselines.compared_transformers, sgmft.models.fusions; "
        "sys.exit('transformers.models.bridgetower.modeling_bridgetower' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- both


@systems
def test_order_of_words_and_of_an_images_regions_does_not_count(system):
    model, batch = build(system), random_batch()
    words, regions = [2, 0, 3, 1], [5, 3, 0, 4, 1, 2]
    moved = batch._replace(
        text_tokens=batch.text_tokens[:, words],
        text_mask=batch.text_mask[:, words],
        image_tokens=batch.image_tokens[:, regions],
        image_mask=batch.image_mask[:, regions],
        image_index=batch.image_index[:, regions],
    )
    assert_close(model(moved).logits[:2], model(batch).logits[:2])  # posts with both modalities


@systems
def test_dropout_is_everywhere_and_training_without_it_computes_what_evaluation_does(system):
    rates = {x.p for x in build(system, dropout=0.5).modules() if isinstance(x, torch.nn.Dropout)}
    assert rates == {0.5}
    model, batch = build(system, dropout=0.0), random_batch()
    with torch.inference_mode():
        evaluated = model(batch).logits
    assert_close(model.train()(batch).logits, evaluated)
