"""The pools' formulae as loops over lists of floats, and what fitting them must come to."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from sgmft.nn.experts import evidence
from sgmft.nn.pools import ProductPool, SimilarityGatedPool

K = 4
PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()


# --- the formulae


def log_sum(x):
    top = max(x)
    return top + math.log(sum(math.exp(a - top) for a in x))


def product(w, said, prior):
    """log p of one post: log p(y) + sum_k w_k e_k, normalised; said is experts' evidence."""
    total = [x + sum(a * e[i] for a, e in zip(w, said, strict=True)) for i, x in enumerate(prior)]
    return [a - log_sum(total) for a in total]


def similarities(text, image, prior):
    """S^m of one post."""
    p_t, p_v = ([math.exp(a + x) for a, x in zip(e, prior, strict=True)] for e in (text, image))
    return [
        math.log(sum(a * b for a, b in zip(p, q, strict=True)))
        for p, q in ((p_t, p_t), (p_v, p_v), (p_t, p_v))
    ]


def power_mean(a, gate, t, v):
    """log of the mean of power a of exp t and exp v."""
    if a == 0:
        return gate * t + (1 - gate) * v
    return math.log((gate * math.exp(t) ** a + (1 - gate) * math.exp(v) ** a) ** (1 / a))


def gated(w, text, image, joint, prior, power=None):
    """Logits and P^m of one post; w: mean, deviation, balance, and slopes, joint, power if any."""
    score, slopes = w["balance"], w.get("slopes", [0] * 3)
    similar = similarities(text, image, prior)
    for s, m, d, u in zip(similar, w["mean"], w["deviation"], slopes, strict=True):
        score += u * (s - m) / d
    gate = 1 / (1 + math.exp(-score))
    sharpness = math.exp(w["log_sharpness"])
    own = math.exp(w["log_joint"]) if "log_joint" in w else 0.0
    power = math.exp(w["log_power"]) if power is None else power
    logits = [
        x + 2 * sharpness * power_mean(power, gate, t, v) + own * j
        for x, t, v, j in zip(prior, text, image, joint, strict=True)
    ]
    return logits, gate


def numbers(module):
    return {name: x.detach().double().tolist() for name, x in module.state_dict().items()}


def mean_loss(rows, labels):
    return sum(log_sum(row) - row[k] for row, k in zip(rows, labels, strict=True)) / len(labels)


# --- made-up evidence


def opinions(n=40, seed=0, sure=(1.0, 1.0)):
    """Evidence of one expert for each entry of `sure` (n, K), float64, and labels."""
    dice = torch.Generator().manual_seed(seed)
    labels = PRIOR.exp().multinomial(n, replacement=True, generator=dice)
    return [opinion(labels, a, 1.0, dice) for a in sure], labels


def opinion(labels, sure, noise, dice):
    """`sure` and `noise` are numbers, or one for each post (n, 1)."""
    right = torch.eye(K, dtype=torch.float64)[labels]
    normal = torch.randn(len(labels), K, generator=dice, dtype=torch.float64)
    return (PRIOR + sure * right + noise * normal).log_softmax(-1) - PRIOR


def pool(guided=True, joint=True, seed=None, power="learned"):
    made = SimilarityGatedPool(guided, joint, power).double()
    if seed is not None:
        dice = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for x in (*made.parameters(), made.mean):
                x.copy_(torch.randn(x.shape, generator=dice))
            made.deviation.copy_(torch.rand(3, generator=dice) + 0.5)
    return made


def close(found, expected, tolerance=1e-10):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


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


# --- a product of experts


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


def distance(made, start):
    pairs = zip(made.parameters(), start.parameters(), strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


def test_few_posts_move_powers_less_than_many():
    (post,), label = opinions(1, sure=(-1.0,))
    moved = []
    for count in (1, 10, 100):
        made = ProductPool(2).double()
        made.fit([post.expand(count, -1), -post.expand(count, -1)], PRIOR, label.expand(count))
        moved.append(distance(made, ProductPool(2)))
    assert 0 < moved[0] < moved[1] < moved[2] and moved[0] < 1.0


# --- the gated pool


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
    dice = torch.Generator().manual_seed(seed)
    labels = PRIOR.exp().multinomial(n, replacement=True, generator=dice)
    by_text = torch.rand(n, generator=dice) < 0.5
    good = by_text[:, None], ~by_text[:, None]
    said = [opinion(labels, 4.0 * g, torch.where(g, 0.5, 2.0), dice) for g in good]
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
