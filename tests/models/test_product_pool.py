"""Evidence, and a product of experts: the formulae, and what fitting must come to."""

import math

import pytest
import torch
from reference_pools import PRIOR, K, close, distance, mean_loss, opinions, product
from scipy.optimize import minimize

from sgmft.models.experts import evidence
from sgmft.models.gated_experts import ProductPool


def test_evidence_is_what_an_opinion_adds_to_the_class_frequencies():
    torch.testing.assert_close(evidence(PRIOR.expand(3, -1), PRIOR), torch.zeros(3, K).double())
    said = torch.tensor([[0.1, 0.6, 0.2, 0.1]]).double()
    expected = torch.tensor([[0.1 / 0.4, 2.0, 1.0, 1.0]]).double()
    torch.testing.assert_close(evidence(said.log(), PRIOR).exp(), expected)


def test_no_evidence_rules_a_label_out():
    said = torch.tensor([[0.0, -100.0, -9.0, -torch.inf]])
    least = math.log(1e-4)
    expected = torch.tensor([[0.0, least, -9.0, least]])
    torch.testing.assert_close(evidence(said, torch.zeros(K)), expected)
    torch.testing.assert_close(evidence(said, torch.full((K,), -100.0)), expected - least)


@pytest.mark.parametrize("experts", [1, 2, 3])
def test_a_product_is_the_formula(experts):
    said, _ = opinions(sure=(1.0,) * experts)
    made = ProductPool(experts).double()
    posts = list(zip(*(x.tolist() for x in said), strict=True))
    prior = PRIOR.tolist()
    equal = [product([1 / experts] * experts, list(post), prior) for post in posts]
    close(made(said, PRIOR).detach(), equal, 1e-6)
    with torch.no_grad():
        made.log_weight.copy_(torch.tensor([0.3, 1.2, 2.0][:experts]).log())
    powers = made.log_weight.exp().tolist()
    expected = [product(powers, list(post), prior) for post in posts]
    close(made(said, PRIOR).detach(), expected)


def product_loss(w, said, labels):
    posts = zip(*(x.tolist() for x in said), strict=True)
    far = sum(math.log(len(w) * a) ** 2 for a in w) / len(labels)
    found = [product(w, list(post), PRIOR.tolist()) for post in posts]
    return mean_loss(found, labels.tolist()) + far


@pytest.mark.parametrize("sure", [(2.0,), (3.0, 0.0), (0.5, 1.5, 1.0)])
def test_powers_are_the_most_likely_ones(sure):
    said, labels = opinions(sure=sure)
    made = ProductPool(len(sure)).double()
    start = made.log_weight.exp().tolist()
    made.fit(said, PRIOR, labels)
    found = made.log_weight.exp().tolist()
    best = minimize(product_loss, start, (said, labels), bounds=[(1e-6, None)] * len(sure))
    close(made.log_weight.exp().detach(), best.x.tolist(), 1e-3)
    assert product_loss(found, said, labels) < product_loss(start, said, labels) - 1e-3


def test_an_expert_counts_by_how_good_it_is():
    said, labels = opinions(300, sure=(3.0, 0.0))
    made = ProductPool(2).double()
    made.fit(said, PRIOR, labels)
    right, wrong = made.log_weight.exp().tolist()
    assert right > 0.8 and wrong < 0.2 * right


def test_few_posts_move_powers_less_than_many():
    (post,), label = opinions(1, sure=(-1.0,))
    moved = []
    for count in (1, 10, 100):
        made = ProductPool(2).double()
        made.fit([post.expand(count, -1), -post.expand(count, -1)], PRIOR, label.expand(count))
        moved.append(distance(made, ProductPool(2)))
    assert 0 < moved[0] < moved[1] < moved[2] and moved[0] < 1.0
