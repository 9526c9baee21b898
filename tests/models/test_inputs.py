"""The way in: scales, and words whose features are narrower than a text's or as wide."""

import pytest
import torch

from sgmft.models.base import NetworkConfig
from sgmft.models.network import BimodalNetwork, ModalityInput, Normalizer
from token_batches import normal, vectors

SOURCE, WORD, D = 9, 4, 6
SCALE = {f"{kind}_scale.{name}" for kind in ("pooled", "token") for name in ("mean", "deviation")}
POOLED, TOKENS = 3 * normal(20, SOURCE, seed=1) + 2, 0.5 * normal(30, WORD, seed=2) - 1


def made(token_source=WORD, **settings):
    torch.manual_seed(0)
    settings = {"projected": True, "tokens": True, "scale": "standard", **settings}
    given = ModalityInput(SOURCE, D, token_source=token_source, **settings).double()
    given.fit(*map(vectors, (POOLED, TOKENS if token_source == WORD else POOLED)))
    return given


def by_hand(x, scale, layer):
    """One vector: standardised, then x W + b, with loops."""
    mean, deviation = scale.mean.tolist(), scale.deviation.tolist()
    x = [(a - m) / s for a, m, s in zip(x.tolist(), mean, deviation, strict=True)]
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [b + sum(w * a for w, a in zip(row, x, strict=True)) for row, b in rows]


def test_standard_scale_is_fitted_on_training_features():
    x = torch.randn(50, 12) * 3 + 5
    x[:, 0] = 2.0  # a constant feature
    scale = Normalizer(12, "standard")
    scale.fit(vectors(x))
    scaled = scale(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0)[1:], torch.ones(11), atol=1e-5, rtol=0)
    assert (scaled[:, 0] == 0).all()
    torch.testing.assert_close(scale.mean, x.mean(0))
    torch.testing.assert_close(scale.deviation[1:], x.std(0)[1:])


@pytest.mark.parametrize("kind", ["none", "unit"])
def test_other_scales_are_not_fitted(kind):
    x, scale = torch.randn(50, 12) * 3 + 5, Normalizer(12, kind)
    scale.fit(vectors(x))
    assert (scale.mean == 0).all() and (scale.deviation == 1).all()
    lengths = x.norm(dim=-1) if kind == "none" else torch.ones(50)
    torch.testing.assert_close(scale(x).norm(dim=-1), lengths)
    assert (scale(torch.zeros(1, 12)) == 0).all()  # unit length of nothing is not NaN


def test_words_and_texts_of_two_widths_have_a_scale_and_a_map_each():
    given = made()
    x, words = normal(3, SOURCE), normal(3, 5, WORD, seed=3)
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    present = torch.tensor([True, True, False])
    pooled, (tokens, there) = given.pooled(x, present), given.tokens(words, mask, present)
    assert pooled.shape == (3, D) and tokens.shape == (3, 5, D)
    for i in (0, 1):
        expected = by_hand(x[i], given.pooled_scale, given.project)
        torch.testing.assert_close(pooled[i].tolist(), expected)
        for j in range(5):
            expected = by_hand(words[i, j], given.token_scale, given.project_tokens)
            torch.testing.assert_close(tokens[i, j].tolist(), expected if mask[i, j] else [0.0] * D)
    assert torch.equal(pooled[2], given.null) and torch.equal(tokens[2, 0], given.null)
    assert there.sum(1).tolist() == [5, 2, 1]


def test_of_one_width_they_share_one_map():
    given, plain = made(SOURCE), made(0)
    names = {"null", "project.weight", "project.bias", *SCALE}
    assert set(given.state_dict()) == set(plain.state_dict()) == names
    assert all(torch.equal(given.state_dict()[name], x) for name, x in plain.state_dict().items())
    x, present = normal(4, SOURCE), torch.ones(4, dtype=torch.bool)
    tokens, _ = given.tokens(x[:, None], present[:, None], present)
    assert torch.equal(tokens[:, 0], given.pooled(x, present))


def test_without_tokens_there_is_no_map_for_them():
    names = {"null", "project.weight", "project.bias"}
    assert {*made(tokens=False).state_dict()} == names | {x for x in SCALE if x[0] == "p"}


@pytest.mark.parametrize(("token_source", "own"), [(WORD, "project_tokens"), (0, "project")])
def test_without_pooled_features_every_weight_is_used(token_source, own):
    given = made(token_source, pooled=False)
    present, mask = torch.tensor([True, False]), torch.ones(2, 3, dtype=torch.bool)
    given.tokens(normal(2, 3, token_source or SOURCE), mask, present)[0].sum().backward()
    with_gradient = {name for name, p in given.named_parameters() if p.grad is not None}
    assert with_gradient == dict(given.named_parameters()).keys()
    assert with_gradient == {"null", f"{own}.weight", f"{own}.bias"}
    with pytest.raises(ValueError, match="built without pooled"):
        given.pooled(normal(2, SOURCE), present)


def test_words_as_wide_as_d_keep_a_map_of_their_own_where_texts_need_none():
    given = ModalityInput(D, D, False, "none", True, token_source=WORD)
    assert isinstance(given.project, torch.nn.Identity)
    assert given.project_tokens.in_features == WORD


class Inputs(BimodalNetwork):
    def forward(self, batch):
        raise AssertionError("only its ways in are looked at")


def test_a_network_takes_the_words_at_their_width():
    network = Inputs(NetworkConfig(3, SOURCE, 7, word_width=WORD), D, tokens=True)
    assert network.text.project_tokens.in_features == WORD
    assert network.text.project.in_features == SOURCE
    assert network.image.project_tokens is None and network.image.project.in_features == 7
    words = normal(9, WORD).half()
    inputs = normal(8, SOURCE), normal(8, 7), words, normal(9, 7).half()
    network.prepare(*map(vectors, inputs))
    torch.testing.assert_close(network.text.token_scale.mean, words.double().mean(0).float())
    assert len(network.text.pooled_scale.mean) == SOURCE
