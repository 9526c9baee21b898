"""The default network: what it computes, what it learns from two sides, and its settings."""

import numpy as np
import pytest
import torch
from gated_experts_posts import DT, DV, SETTINGS, K, logits, made, only, probabilities, rows, solved
from gated_experts_posts import _fewer_penalties as _fewer_penalties
from gated_experts_posts import network as network
from reference_pools import gated, numbers, product
from torch.nn.functional import cross_entropy

from sgmft.errors import SgmftError
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig
from sgmft.models.registry import get_method

FLOOR = np.log(1e-4)

# --- what is computed


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_experts_are_pooled_by_the_formulae(settings):
    batch, labels = made()
    network = solved(batch, labels, **settings)
    new, _ = made(30, seed=1)
    with torch.no_grad():
        both = torch.cat([new.text, new.image], -1)
        prior = network.prior.double().numpy()
        e = {
            name: kind(x).double().clamp(min=FLOOR).numpy() - prior
            for name, kind, x in (
                ("text", network.text, new.text),
                ("image", network.image, new.image),
                ("lexical", network.lexical, new.ngrams),
                ("joint", network.joint, both),
            )
            if kind is not None
        }
        output = network(new)
    for i in range(30):
        said = [e[name][i] for name in ("text", "lexical") if name in e]
        text = product(network.text_pool.log_weight.exp().tolist(), said, prior)
        image = product(network.image_pool.log_weight.exp().tolist(), [e["image"][i]], prior)
        joint = e["joint"][i] if "joint" in e else np.zeros(K)
        sides = [*(np.maximum(x, FLOOR) - prior for x in (text, image)), joint]
        pooled, gate = gated(numbers(network.pool), *sides, prior, settings.get("power"))
        has = bool(new.has_text[i]), bool(new.has_image[i])
        expected, gate = {
            (True, True): (pooled, gate),
            (True, False): (text, 1.0),
            (False, True): (image, 0.0),
            (False, False): (network.prior.tolist(), 0.0),
        }[has]
        np.testing.assert_allclose(output.logits[i], expected, atol=1e-4)
        np.testing.assert_allclose(output.parts["gate"][i], gate, atol=1e-5)
        doubt = 0 if gate in (0, 1) else -gate * np.log2(gate) - (1 - gate) * np.log2(1 - gate)
        np.testing.assert_allclose(output.guidance.gate[i], doubt, atol=1e-5)
        seen = zip((*has, all(has)), sides, strict=True)
        fused = np.concatenate([x if there else np.zeros(K) for there, x in seen])
        np.testing.assert_allclose(output.fused[i], fused, atol=1e-4)
    assert output.guidance.elements.isnan().all()


def test_the_prior_are_the_logarithms_of_the_class_frequencies(network):
    _, labels = made()
    expected = torch.bincount(labels) / len(labels)
    torch.testing.assert_close(network.prior.exp(), expected)


# --- what is learned


def test_two_sides_are_better_than_one():
    batch, labels = made(240, missing=False)
    new, truth = made(300, seed=1, missing=False)
    network = solved(batch, labels)
    right = {
        sides: float((logits(network, only(new, *sides)).argmax(-1) == truth).float().mean())
        for sides in ((True, True), (True, False), (False, True))
    }
    assert right[True, True] > 0.85
    assert max(right[True, False], right[False, True]) < right[True, True] - 0.15
    assert min(right.values()) > 0.5


def test_a_gate_that_follows_similarity_beats_one_that_does_not():
    batch, labels = made(300, missing=False)
    new, truth = made(600, seed=1, missing=False)
    losses, gates = [], []
    for gate in ("similarity", "constant"):
        network = solved(batch, labels, gate=gate, joint=False)
        with torch.no_grad():
            output = network(new)
        losses.append(float(cross_entropy(output.logits, truth)))
        gates.append(output.parts["gate"])
    assert losses[0] < 0.9 * losses[1]
    assert gates[0].std() > 0.05 and gates[1].std() < 1e-6


def test_n_grams_count_where_they_say_something():
    batch, labels = made(missing=False)
    told = 100 + labels[:, None].int()  # each label has its word
    batch = batch._replace(ngrams=torch.where(batch.ngrams < 100, batch.ngrams, told))
    new, truth = made(90, seed=1, missing=False)
    new = new._replace(ngrams=torch.cat([new.ngrams % 100, 100 + truth[:, None].int()], 1))
    right = []
    for lexical in (True, False):
        network = solved(batch, labels, lexical=lexical)
        assert network.uses_ngrams is lexical
        found = logits(network, only(new, True, False)).argmax(-1)
        right.append(float((found == truth).float().mean()))
    assert right[0] > right[1] + 0.1


def test_what_it_says_of_training_posts_comes_from_experts_that_had_not_seen_them():
    batch, labels = made(300, missing=False)
    noise = torch.randint(0, K, (300,), generator=torch.Generator().manual_seed(5))
    frequencies = torch.bincount(noise) / 300
    chance = -(frequencies * frequencies.log()).sum()
    for y, learned in ((noise, False), (labels, True)):
        torch.manual_seed(0)
        network = GatedExperts(GatedExpertsConfig(K, DT, DV))
        held_out = cross_entropy(said := network.solve(batch, y), y)
        assert said.shape == (300, K)
        if learned:
            assert cross_entropy(logits(network, batch), y) < held_out < chance - 0.3
        else:
            assert held_out > chance - 0.03


def test_the_order_of_the_posts_does_not_matter(monkeypatch):
    batch, labels = made()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(2))
    fold = torch.arange(120) % 5
    new, _ = made(40, seed=1)
    monkeypatch.setattr("sgmft.models.logistic.TOLERANCE", 1e-7)
    found = []
    for chosen in (torch.arange(120), order):
        folds = fold[chosen]
        monkeypatch.setattr("sgmft.models.gated_experts.draw_folds", lambda *_, folds=folds: folds)
        found.append(probabilities(solved(rows(batch, chosen), labels[chosen]), new))
    torch.testing.assert_close(*found, atol=0.01, rtol=0)


def test_the_seed_decides_all(network):
    batch, labels = made()
    assert torch.equal(logits(solved(batch, labels), batch), logits(network, batch))


# --- settings


def test_features_without_n_grams_are_refused(network):
    batch, labels = made()
    bare = batch._replace(ngrams=None)
    for call in (lambda: network(bare), lambda: solved(bare, labels)):
        with pytest.raises(SgmftError, match=r"n-grams.*encode the posts again"):
            call()
    assert logits(solved(bare, labels, lexical=False), bare).isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"folds": 1}, "folds must be at least 2, not 1"),
        ({"folds": 0}, "folds must be at least 1, not 0"),
        ({"gate": "softmax"}, "gate='softmax' is not known: use similarity or constant"),
        ({"power": -0.5}, "power must be 'learned' or at least 0, not -0.5"),
        ({"power": float("nan")}, "power must be 'learned' or at least 0, not nan"),
        ({"text_width": 0}, "text_width must be at least 1"),
    ],
)
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(SgmftError, match=told):
        GatedExpertsConfig(**{"classes": K, "text_width": DT, "image_width": DV, **wrong})


def test_settings_by_name():
    method = get_method("gated-experts")
    typed = {"gate": "constant", "joint": "false", "lexical": "False", "folds": "3", "power": "0.5"}
    preset = method.preset("default", {**typed, "seed": "4"})
    given = {"gate": "constant", "joint": False, "lexical": False, "folds": 3, "power": 0.5}
    assert preset.model == given
    assert preset.train.seed == 4
    assert {*method.setting_kinds()} == {"gate", "power", "joint", "lexical", "folds"}
    for key in ("epochs", "vocabulary_size", "heads", "strength"):
        with pytest.raises(SgmftError, match=rf"no setting '{key}': use gate, power, joint"):
            method.preset("default", {key: "3"})
    for key, value in (("gate", "softmax"), ("joint", "maybe"), ("folds", "many"), ("folds", "1")):
        with pytest.raises(SgmftError, match=key):
            method.preset("default", {key: value})
