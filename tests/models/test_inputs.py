"""The way in where a word's features are narrower than a text's, and where they are as wide."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_model, save_model

from sgmft.models.base import BimodalNetwork, ModalityInput, NetworkConfig
from sgmft.models.sgmft import SGMFT, SGMFTConfig

SOURCE, WORD, D = 9, 4, 6
SCALE = {f"{kind}_scale.{name}" for kind in ("pooled", "token") for name in ("mean", "deviation")}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(token_source=WORD, scale="standard", **settings):
    torch.manual_seed(0)
    settings = {"projected": True, "tokens": True, **settings}
    side = ModalityInput(SOURCE, D, scale=scale, token_source=token_source, **settings).double()
    if side.token_scale is not None:
        words = normal(30, len(side.token_scale.mean), seed=2)
        side.fit(3 * normal(20, SOURCE, seed=1) + 2, 0.5 * words - 1)
    return side


def by_hand(x, scale, layer):
    """One vector: standardised, then x W + b, with loops."""
    mean, deviation = scale.mean.tolist(), scale.deviation.tolist()
    x = [(a - m) / s for a, m, s in zip(x.tolist(), mean, deviation, strict=True)]
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [
        b + sum(w * a for w, a in zip(row, x, strict=True))
        for row, b in zip(weight, bias, strict=True)
    ]


def test_words_and_texts_of_two_widths_have_a_scale_and_a_map_each():
    side = made()
    x, words = normal(3, SOURCE), normal(3, 5, WORD, seed=3)
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    present = torch.tensor([True, True, False])
    pooled, (tokens, there) = side.pooled(x, present), side.tokens(words, mask, present)
    assert pooled.shape == (3, D) and tokens.shape == (3, 5, D)
    for i in (0, 1):
        expected = by_hand(x[i], side.pooled_scale, side.project)
        torch.testing.assert_close(pooled[i].tolist(), expected)
        for j in range(5):
            expected = by_hand(words[i, j], side.token_scale, side.project_tokens)
            torch.testing.assert_close(tokens[i, j].tolist(), expected if mask[i, j] else [0.0] * D)
    assert torch.equal(pooled[2], side.null) and torch.equal(tokens[2, 0], side.null)
    assert there.sum(1).tolist() == [5, 2, 1]


def test_of_one_width_they_share_one_map():
    side, plain = made(SOURCE), made(0)
    names = {"null", "project.weight", "project.bias", *SCALE}
    assert set(side.state_dict()) == set(plain.state_dict()) == names
    for name, x in plain.state_dict().items():
        assert torch.equal(side.state_dict()[name], x)
    x, present = normal(4, SOURCE), torch.ones(4, dtype=torch.bool)
    side.token_scale = side.pooled_scale
    tokens, _ = side.tokens(x[:, None], torch.ones(4, 1, dtype=torch.bool), present)
    assert torch.equal(tokens[:, 0], side.pooled(x, present))


def test_without_tokens_there_is_no_map_for_them():
    names = set(made(tokens=False).state_dict())
    assert names == {"null", "project.weight", "project.bias"} | {
        name for name in SCALE if name.startswith("pooled")
    }


@pytest.mark.parametrize(("token_source", "own"), [(WORD, "project_tokens"), (0, "project")])
def test_without_pooled_features_every_weight_is_used(token_source, own):
    side = made(token_source, pooled=False)
    present, mask = torch.tensor([True, False]), torch.ones(2, 3, dtype=torch.bool)
    side.tokens(normal(2, 3, token_source or SOURCE), mask, present)[0].sum().backward()
    with_gradient = {name for name, p in side.named_parameters() if p.grad is not None}
    assert with_gradient == dict(side.named_parameters()).keys()
    assert with_gradient == {"null", f"{own}.weight", f"{own}.bias"}
    with pytest.raises(ValueError, match="built without pooled"):
        side.pooled(normal(2, SOURCE), present)


def test_words_as_wide_as_d_keep_a_map_of_their_own_where_texts_need_none():
    torch.manual_seed(0)
    side = ModalityInput(D, D, False, "none", True, token_source=WORD)
    assert isinstance(side.project, torch.nn.Identity) and side.project_tokens.in_features == WORD


class Sides(BimodalNetwork):
    def forward(self, batch):
        raise AssertionError("only its ways in are looked at")


def test_a_two_sided_network_takes_the_words_at_their_width():
    network = Sides(NetworkConfig(3, SOURCE, 7, word_width=WORD), D, tokens=True)
    assert network.text.project_tokens.in_features == WORD
    assert network.text.project.in_features == SOURCE
    assert network.image.project_tokens is None and network.image.project.in_features == 7
    network.prepare(normal(8, SOURCE), normal(8, 7), normal(9, WORD).half(), normal(9, 7).half())
    torch.testing.assert_close(
        network.text.token_scale.mean, normal(9, WORD).half().double().mean(0).float()
    )
    assert len(network.text.pooled_scale.mean) == SOURCE


def test_a_width_of_words_is_saved_with_the_model(tmp_path):
    settings = {"width": 16, "heads": 2, "view": "tokens", "classifier_widths": (8,)}
    torch.manual_seed(0)
    model = SGMFT(SGMFTConfig(3, SOURCE, 7, word_width=WORD, **settings))
    config = SGMFTConfig(**json.loads(json.dumps(asdict(model.config))))
    assert config == model.config and config.word_width == WORD
    save_model(model, str(tmp_path / "m.safetensors"))
    again = SGMFT(config)
    load_model(again, str(tmp_path / "m.safetensors"), strict=True)
    for name, x in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], x)
    assert SGMFTConfig(3, SOURCE, 7).word_width == SOURCE
