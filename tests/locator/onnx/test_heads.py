"""Every method's network as a graph answers as the network does, posts of any length among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.baselines.test_every_method import SMALL, SYSTEMS, features, fresh, task
from sgmft.errors import SgmftError
from sgmft.features.features import Features
from sgmft.features.post_features import PostFeatures
from sgmft.locator.onnx.export import write_head
from sgmft.locator.onnx.locator import HEAD_OUTPUTS, head_inputs
from sgmft.models.experts import NgramExpert
from sgmft.models.layers import _bisect, lookup
from sgmft.utils.onnx_session import Session
from sgmft.utils.onnx_writer import write_graph

TEMPERATURE = 1.7
LAYERS = {"mplug": 3, "bridgetower": 1}  # instead of 6 and 3, which take long to write


def rows_of(found: Features) -> list[PostFeatures]:
    """The same posts as the runtime gets them."""
    rows = []
    for i in range(len(found)):
        words, regions, grams = (
            part.take([i]).pad()[0][0] for part in (found.words, found.regions, found.ngrams)
        )
        pictures = len(regions) // found.regions_per_image
        image = found.image[i].numpy()[None].repeat(max(1, pictures), 0)
        text, seen = bool(found.has_text[i]), bool(found.has_image[i])
        rows.append(
            PostFeatures(
                found.text[i].numpy() if text else None,
                words if text else None,
                image if seen else None,
                regions if seen else None,
                grams if text else None,
            )
        )
    return rows


@pytest.mark.parametrize(
    "name",
    [
        name if name.startswith(("sgmft", "gated")) else pytest.param(name, marks=pytest.mark.slow)
        for name in SYSTEMS
    ],
)
def test_a_graph_answers_as_its_network(name, tmp_path, monkeypatch):
    if name in LAYERS:
        monkeypatch.setitem(SMALL, "layers", LAYERS[name])
    network, info = fresh(name).eval(), task(name).info
    method, preset = SYSTEMS[name]
    tokens = method.uses_tokens(method.preset(preset))
    write_head(network, TEMPERATURE, info, tokens, tmp_path / "head.onnx")
    graph = Session(tmp_path / "head.onnx")
    for posts in (1, 9):
        found = features(name, posts, seed=posts)
        with torch.inference_mode():
            output = network(found.batch(torch.arange(posts), network.uses_ngrams))
        probs, guidance = graph.run(HEAD_OUTPUTS, head_inputs(rows_of(found), info, tokens))
        wanted = (output.logits / TEMPERATURE).softmax(-1).numpy()
        np.testing.assert_allclose(probs, wanted, atol=2e-6)
        if output.guidance is None:
            assert np.isnan(guidance).all()
        else:
            np.testing.assert_allclose(guidance, torch.stack(output.guidance, 1), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 100])
def test_the_search_that_can_be_exported_finds_the_same(size):
    rng = torch.Generator().manual_seed(size)
    vocabulary = torch.randperm(3 * size, generator=rng)[:size].sort().values
    asked = torch.arange(-2, 3 * size + 2).reshape(1, -1)
    place, known = lookup(vocabulary, asked)
    other = _bisect(vocabulary, asked)
    assert torch.equal(known, torch.isin(asked, vocabulary))
    assert torch.equal(vocabulary[other] == asked, known)
    assert torch.equal(other[known], place[known])


def test_counted_ngrams_weigh_as_ngrams_that_are_not():
    expert = NgramExpert(0, 2)
    grams = torch.tensor([[4, 4, 9, 5], [9, 4, 2, -1], [5, 5, 5, 2], [-1] * 4], dtype=torch.int32)
    expert.fit_inputs(grams)
    torch.nn.init.normal_(expert.weight)
    different = torch.tensor([[4, 9, 5], [9, 4, 2], [5, 2, -1], [-1] * 3], dtype=torch.int32)
    counts = torch.tensor([[2, 1, 1], [1, 1, 1], [3, 1, 0], [0] * 3])
    torch.testing.assert_close(expert.counted(different, counts), expert(grams))
    unseen = torch.tensor([[7, 8]], dtype=torch.int32)
    torch.testing.assert_close(expert.counted(unseen, torch.ones_like(unseen)), expert(unseen))


def test_weights_may_stand_beside_their_graph(tmp_path):
    linear = torch.nn.Linear(40, 30)
    given = {"x": (torch.rand(5, 40), 1)}
    write_graph(linear, given, ["y"], tmp_path / "linear.onnx", apart=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["linear.onnx", "linear.onnx.data"]
    (found,) = Session(tmp_path / "linear.onnx").run(["y"], {"x": given["x"][0].numpy()})
    np.testing.assert_allclose(found, linear(given["x"][0]).detach(), atol=1e-6)


def test_what_onnx_cannot_do_is_said_in_a_sentence(tmp_path):
    class Undecided(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(SgmftError, match=r"cannot be written as ONNX: ."):
        write_graph(Undecided(), {"x": (torch.rand(5, 2), 1)}, ["y"], tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
