"""The pool guided by similarity: the formulae, and what fitting must come to."""

import numpy as np
import pytest
import torch
from reference_pools import (
    PRIOR,
    K,
    close,
    distance,
    gated,
    mean_loss,
    numbers,
    opinion,
    opinions,
    pool,
    similarities,
)
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from sgmft.models.experts import evidence
from sgmft.models.gated_experts import ProductPool, SimilarityGatedPool


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("power", ["learned", 0, 0.5, 1])
@pytest.mark.parametrize("seed", [None, 1])
def test_the_gated_pool_is_the_formula(guided, joint, seed, power):
    said, _ = opinions(sure=(1.0, 2.0, 1.0))
    made = pool(guided, joint, seed, power)
    w = numbers(made)
    assert ("slopes" in w) is guided and ("log_joint" in w) is joint
    assert ("log_power" in w) is (power == "learned")
    fixed = None if power == "learned" else power
    posts = zip(*(x.tolist() for x in said), strict=True)
    rows = [gated(w, *post, PRIOR.tolist(), fixed) for post in posts]
    logits, gate = (x.detach() for x in made(*said, PRIOR))
    close(logits, [row for row, _ in rows])
    close(gate, [g for _, g in rows])


def test_without_a_mean_of_its_own_it_starts_as_the_rule_of_bayes_and_the_root_of_the_third():
    text, image, joint = opinions(sure=(1.0, 2.0, 1.0))[0]
    logits, gate = pool(power=0)(text, image, joint, PRIOR)
    torch.testing.assert_close(logits, PRIOR + text + image + joint / 2, check_dtype=False)
    assert (gate == 0.5).all()


@pytest.mark.parametrize("power", ["learned", 0, 1])
def test_experts_that_say_nothing_leave_the_class_frequencies(power):
    nothing = torch.zeros(3, K, dtype=torch.float64)
    expected = PRIOR.exp().expand(3, -1)
    for logits in (
        pool(seed=1, power=power)(nothing, nothing, nothing, PRIOR).logits,
        ProductPool(2).double()([nothing, nothing], PRIOR),
    ):
        torch.testing.assert_close(logits.softmax(-1), expected)


def test_sides_that_agree_are_one_whatever_the_mean():
    (said,), _ = opinions(sure=(1.0,))
    expected = PRIOR + 2 * said
    for power in ("learned", 0, 0.5, 1, 3):
        logits = pool(joint=False, power=power)(said, said, None, PRIOR).logits
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_a_small_power_is_the_product():
    said, _ = opinions(sure=(1.0, 2.0, 1.0))
    product, almost = (pool(power=power)(*said, PRIOR).logits for power in (0, 1e-6))
    torch.testing.assert_close(almost, product, atol=1e-4, rtol=0)


def test_without_a_third_expert_none_is_read():
    (text, image, joint), _ = opinions(sure=(1.0, 2.0, 1.0))
    made = pool(joint=False, seed=1)
    assert torch.equal(*(made(text, image, x, PRIOR).logits for x in (joint, None)))


def gated_loss(w, start, said, labels):
    """Mean cross-entropy and the penalty; w has the numbers of `start`, some moved."""
    posts = zip(*(x.tolist() for x in said), strict=True)
    rows = [gated(w, *post, PRIOR.tolist())[0] for post in posts]
    far = 3 * sum(a * a for a in w.get("slopes", []))
    for name in {"balance", "log_power", "log_sharpness", "log_joint"} & {*w}:
        far += (w[name] - start[name]) ** 2
    return mean_loss(rows, labels.tolist()) + far / len(labels)


@pytest.mark.parametrize(("guided", "joint"), [(True, True), (False, True), (True, False)])
def test_its_parameters_are_the_most_likely_ones(guided, joint):
    said, labels = opinions(40, sure=(2.5, 0.5, 1.0))
    made = pool(guided, joint)
    start = numbers(made)
    made.fit(*said, PRIOR, labels)
    found = numbers(made)
    posts = zip(*(x.tolist() for x in said[:2]), strict=True)
    rows = np.array([similarities(*post, PRIOR.tolist()) for post in posts])
    close(made.mean, rows.mean(0).tolist(), 1e-6)
    close(made.deviation, rows.std(0, ddof=1).tolist(), 1e-6)
    fixed = {name: found[name] for name in ("mean", "deviation")}
    single = ["balance", "log_power", "log_sharpness"] + ["log_joint"] * joint

    def named(x):
        values = dict(zip(single, x, strict=False))
        return {**fixed, **values, **({"slopes": list(x[len(single) :])} if guided else {})}

    best = minimize(
        lambda x: gated_loss(named(x), start, said, labels),
        [start[name] for name in single] + [0.0] * 3 * guided,
    )
    for name, value in named(best.x).items():
        np.testing.assert_allclose(found[name], value, atol=2e-3, err_msg=name)
    before, after = (gated_loss({**w, **fixed}, start, said, labels) for w in (start, found))
    assert after < before - 1e-3


def half_noise(n=400, seed=0):
    """Each post's text or picture is right and sure, the other one noise: said, labels, which."""
    rng = torch.Generator().manual_seed(seed)
    labels = PRIOR.exp().multinomial(n, replacement=True, generator=rng)
    by_text = torch.rand(n, generator=rng) < 0.5
    good = by_text[:, None], ~by_text[:, None]
    said = [opinion(labels, 4.0 * g, torch.where(g, 0.5, 2.0), rng) for g in good]
    return said, labels, by_text


def test_the_gate_goes_to_the_side_that_knows():
    said, labels, _ = half_noise()
    guided, constant = pool(joint=False), pool(guided=False, joint=False)
    for made in (guided, constant):
        made.fit(*said, None, PRIOR, labels)
    (new_said, new_labels, new_by_text) = half_noise(seed=1)
    logits, gate = guided(*new_said, None, PRIOR)
    assert gate[new_by_text].mean() > 0.6 and gate[~new_by_text].mean() < 0.4
    plain = constant(*new_said, None, PRIOR)
    assert plain.gate.std() < 1e-12
    assert cross_entropy(logits, new_labels) < 0.6 * cross_entropy(plain.logits, new_labels)


@pytest.mark.parametrize("sure", [(3.0, 0.0), (0.0, 3.0)])
def test_a_side_that_is_noise_throughout_is_turned_down(sure):
    said, labels = opinions(300, sure=sure)
    for guided in (True, False):
        made = pool(guided, joint=False)
        made.fit(*said, None, PRIOR, labels)
        gate = made(*said, None, PRIOR).gate.mean()
        assert (gate > 0.75) if sure[0] else (gate < 0.25)


@pytest.mark.parametrize("guided", [True, False])
def test_changing_sides_changes_the_gates_sign_and_nothing_else(guided):
    (text, image, joint), labels = opinions(60, sure=(2.0, 0.7, 1.0))
    one, other = pool(guided), pool(guided)
    one.fit(text, image, joint, PRIOR, labels)
    other.fit(image, text, joint, PRIOR, labels)
    logits, gate = one(text, image, joint, PRIOR)
    swapped, rest = other(image, text, joint, PRIOR)
    torch.testing.assert_close(swapped, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(rest, 1 - gate, atol=1e-5, rtol=0)
    assert (gate - 0.5).abs().max() > 0.05


def test_few_posts_leave_it_near_its_start():
    said, labels, _ = half_noise(2)
    moved = []
    for count in (1, 10, 100):
        made = pool(joint=False)
        made.fit(*(x.repeat(count, 1) for x in said), None, PRIOR, labels.repeat(count))
        moved.append(distance(made, pool(joint=False)))
    assert 0 < moved[0] < moved[1] < moved[2] and moved[0] < 0.75


@pytest.mark.parametrize("count", [1, 3])
def test_posts_that_are_all_the_same_leave_it_finite(count):
    said, labels = opinions(1, sure=(1.0, 1.0, 1.0))
    made = pool()
    made.fit(*(x.expand(count, -1) for x in said), PRIOR, labels.expand(count))
    new, _ = opinions(sure=(1.0, 1.0, 1.0), seed=3)
    assert all(x.isfinite().all() for x in made(*new, PRIOR))
    assert all(x.isfinite().all() for x in made.state_dict().values())


def test_evidence_at_the_floor_is_no_trouble_for_single_precision():
    said, labels = opinions(50, sure=(1.0, 1.0, 1.0))
    prior = PRIOR.float()
    sharp = [evidence((200 * x).log_softmax(-1).float(), prior) for x in said]
    made = SimilarityGatedPool(True, True)
    start = cross_entropy(made(*sharp, prior).logits, labels)
    made.fit(*sharp, prior, labels)
    assert all(x.isfinite().all() for x in made(*sharp, prior))
    assert cross_entropy(made(*sharp, prior).logits, labels) < start


def test_no_gradient_is_left_behind_under_no_grad():
    said, labels = opinions(20, sure=(1.0, 1.0, 1.0))
    made = pool()
    with torch.no_grad():  # as networks are solved
        made.fit(*said, PRIOR, labels)
        assert not made(*said, PRIOR).logits.requires_grad
    assert distance(made, pool()) > 0
