"""Evidence, and the pools of experts: the formulae, and what fitting must come to."""

import math

import numpy as np
import pytest
import torch
from reference_pools import gated, mean_loss, numbers, product, similarities
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from sgmft.models.experts import evidence
from sgmft.models.gated_experts import ProductPool, SimilarityGatedPool

K = 4
PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
THREE = (1.0, 2.0, 1.0)  # how sure the experts on text, image and both are


def draw_evidence(n=40, seed=0, sure=THREE):
    """Evidence of one expert for each entry of `sure` (n, K), float64, and labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = PRIOR.exp().multinomial(n, replacement=True, generator=rng)
    return [evidence_for(labels, a, 1.0, rng) for a in sure], labels


def evidence_for(labels, sure, noise, rng):
    """`sure` and `noise` are numbers, or one for each post (n, 1)."""
    right = torch.eye(K, dtype=torch.float64)[labels]
    normal = torch.randn(len(labels), K, generator=rng, dtype=torch.float64)
    return (PRIOR + sure * right + noise * normal).log_softmax(-1) - PRIOR


def half_noise(n=400, seed=0):
    """Each post's text or image is right and sure, the other noise: evidence, labels, which."""
    rng = torch.Generator().manual_seed(seed)
    labels = PRIOR.exp().multinomial(n, replacement=True, generator=rng)
    by_text = torch.rand(n, generator=rng) < 0.5
    good = by_text[:, None], ~by_text[:, None]
    found = [evidence_for(labels, 4.0 * g, torch.where(g, 0.5, 2.0), rng) for g in good]
    return found, labels, by_text


def pool(guided=True, joint=True, seed=None, power="learned"):
    made = SimilarityGatedPool(guided, joint, power).double()
    if seed is not None:
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for x in (*made.parameters(), made.mean):
                x.copy_(torch.randn(x.shape, generator=rng))
            made.deviation.copy_(torch.rand(3, generator=rng) + 0.5)
    return made


def close(found, expected, tolerance=1e-10):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.detach(), expected, rtol=tolerance, atol=tolerance)


def distance(made, start):
    pairs = zip(made.parameters(), start.parameters(), strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


def posts_of(experts):
    """Each post's evidence as lists of floats."""
    return list(zip(*(x.tolist() for x in experts), strict=True))


# --- evidence


def test_evidence_is_what_an_expert_adds_to_the_class_frequencies():
    close(evidence(PRIOR.expand(3, -1), PRIOR), torch.zeros(3, K))
    probabilities = torch.tensor([[0.1, 0.6, 0.2, 0.1]]).double()
    close(evidence(probabilities.log(), PRIOR).exp(), [[0.1 / 0.4, 2.0, 1.0, 1.0]], 1e-7)


def test_no_evidence_rules_a_label_out():
    log_probs = torch.tensor([[0.0, -100.0, -9.0, -torch.inf]])
    least = math.log(1e-4)
    expected = torch.tensor([[0.0, least, -9.0, least]])
    torch.testing.assert_close(evidence(log_probs, torch.zeros(K)), expected)
    torch.testing.assert_close(evidence(log_probs, torch.full((K,), -100.0)), expected - least)


# --- products of experts


@pytest.mark.parametrize("experts", [1, 2, 3])
def test_a_product_is_the_formula(experts):
    given, _ = draw_evidence(sure=(1.0,) * experts)
    made = ProductPool(experts).double()
    equal = [product([1 / experts] * experts, x, PRIOR.tolist()) for x in posts_of(given)]
    close(made(given, PRIOR), equal, 1e-6)
    with torch.no_grad():
        made.log_weight.copy_(torch.tensor([0.3, 1.2, 2.0][:experts]).log())
    powers = made.log_weight.exp().tolist()
    close(made(given, PRIOR), [product(powers, x, PRIOR.tolist()) for x in posts_of(given)])


def product_loss(w, given, labels):
    far = sum(math.log(len(w) * a) ** 2 for a in w) / len(labels)
    found = [product(w, x, PRIOR.tolist()) for x in posts_of(given)]
    return mean_loss(found, labels.tolist()) + far


@pytest.mark.parametrize("sure", [(2.0,), (3.0, 0.0), (0.5, 1.5, 1.0)])
def test_powers_are_the_most_likely_ones(sure):
    given, labels = draw_evidence(sure=sure)
    made = ProductPool(len(sure)).double()
    start = made.log_weight.exp().tolist()
    made.fit(given, PRIOR, labels)
    found = made.log_weight.exp()
    best = minimize(product_loss, start, (given, labels), bounds=[(1e-6, None)] * len(sure))
    close(found, best.x, 1e-3)
    before = product_loss(start, given, labels)
    assert product_loss(found.tolist(), given, labels) < before - 1e-3


def test_an_expert_counts_by_how_good_it_is():
    given, labels = draw_evidence(300, sure=(3.0, 0.0))
    made = ProductPool(2).double()
    made.fit(given, PRIOR, labels)
    right, wrong = made.log_weight.exp().tolist()
    assert right > 0.8 and wrong < 0.2 * right


# --- the pool guided by similarity


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("power", ["learned", 0, 0.5, 1])
@pytest.mark.parametrize("seed", [None, 1])
def test_the_gated_pool_is_the_formula(guided, joint, seed, power):
    given, _ = draw_evidence()
    made = pool(guided, joint, seed, power)
    w = numbers(made)
    assert ("slopes" in w) is guided and ("log_joint" in w) is joint
    assert ("log_power" in w) is (power == "learned")
    fixed = None if power == "learned" else power
    rows = [gated(w, *post, PRIOR.tolist(), fixed) for post in posts_of(given)]
    logits, gate = made(*given, PRIOR)
    close(logits, [row for row, _ in rows])
    close(gate, [g for _, g in rows])
    if not joint:  # it is not read
        assert torch.equal(made(*given[:2], None, PRIOR).logits, logits)


def test_a_product_starts_as_the_rule_of_bayes_and_the_root_of_the_third():
    given = text, image, joint = draw_evidence()[0]
    logits, gate = pool(power=0)(*given, PRIOR)
    torch.testing.assert_close(logits, PRIOR + text + image + joint / 2, check_dtype=False)
    assert (gate == 0.5).all()
    close(pool(power=1e-6)(*given, PRIOR).logits, logits.detach(), 1e-4)


@pytest.mark.parametrize("power", ["learned", 0, 1])
def test_no_evidence_leaves_the_class_frequencies(power):
    nothing = torch.zeros(3, K, dtype=torch.float64)
    for logits in (
        pool(seed=1, power=power)(nothing, nothing, nothing, PRIOR).logits,
        ProductPool(2).double()([nothing, nothing], PRIOR),
    ):
        close(logits.softmax(-1), PRIOR.exp().expand(3, -1), 1e-7)


def test_modalities_that_agree_are_one_whatever_the_mean():
    (given,), _ = draw_evidence(sure=(1.0,))
    for power in ("learned", 0, 0.5, 1, 3):
        logits = pool(joint=False, power=power)(given, given, None, PRIOR).logits
        torch.testing.assert_close(logits, PRIOR + 2 * given, atol=1e-5, rtol=0)


def gated_loss(w, start, given, labels):
    """Mean cross-entropy and the penalty; w has the numbers of `start`, some moved."""
    rows = [gated(w, *post, PRIOR.tolist())[0] for post in posts_of(given)]
    far = 3 * sum(a * a for a in w.get("slopes", []))
    for name in {"balance", "log_power", "log_sharpness", "log_joint"} & {*w}:
        far += (w[name] - start[name]) ** 2
    return mean_loss(rows, labels.tolist()) + far / len(labels)


@pytest.mark.parametrize(("guided", "joint"), [(True, True), (False, True), (True, False)])
def test_its_parameters_are_the_most_likely_ones(guided, joint):
    given, labels = draw_evidence(sure=(2.5, 0.5, 1.0))
    made = pool(guided, joint)
    start = numbers(made)
    made.fit(*given, PRIOR, labels)
    found = numbers(made)
    rows = np.array([similarities(*post, PRIOR.tolist()) for post in posts_of(given[:2])])
    close(made.mean, rows.mean(0), 1e-6)
    close(made.deviation, rows.std(0, ddof=1), 1e-6)
    fixed = {name: found[name] for name in ("mean", "deviation")}
    single = ["balance", "log_power", "log_sharpness"] + ["log_joint"] * joint

    def named(x):
        values = dict(zip(single, x, strict=False))
        return {**fixed, **values, **({"slopes": list(x[len(single) :])} if guided else {})}

    best = minimize(
        lambda x: gated_loss(named(x), start, given, labels),
        [start[name] for name in single] + [0.0] * 3 * guided,
    )
    for name, value in named(best.x).items():
        np.testing.assert_allclose(found[name], value, atol=2e-3, err_msg=name)
    before, after = (gated_loss({**w, **fixed}, start, given, labels) for w in (start, found))
    assert after < before - 1e-3


def test_the_gate_goes_to_the_modality_that_knows():
    given, labels, _ = half_noise()
    guided, constant = pool(joint=False), pool(guided=False, joint=False)
    for made in (guided, constant):
        made.fit(*given, None, PRIOR, labels)
    new, new_labels, by_text = half_noise(seed=1)
    (logits, gate), plain = (made(*new, None, PRIOR) for made in (guided, constant))
    assert gate[by_text].mean() > 0.6 and gate[~by_text].mean() < 0.4
    assert plain.gate.std() < 1e-12
    assert cross_entropy(logits, new_labels) < 0.6 * cross_entropy(plain.logits, new_labels)


@pytest.mark.parametrize("sure", [(3.0, 0.0), (0.0, 3.0)])
@pytest.mark.parametrize("guided", [True, False])
def test_a_modality_that_is_noise_throughout_is_turned_down(sure, guided):
    given, labels = draw_evidence(300, sure=sure)
    made = pool(guided, joint=False)
    made.fit(*given, None, PRIOR, labels)
    gate = made(*given, None, PRIOR).gate.mean()
    assert (gate > 0.75) if sure[0] else (gate < 0.25)


@pytest.mark.parametrize("guided", [True, False])
def test_exchanging_modalities_changes_the_gates_sign_and_nothing_else(guided):
    (text, image, joint), labels = draw_evidence(60, sure=(2.0, 0.7, 1.0))
    one, other = pool(guided), pool(guided)
    one.fit(text, image, joint, PRIOR, labels)
    other.fit(image, text, joint, PRIOR, labels)
    logits, gate = one(text, image, joint, PRIOR)
    swapped, rest = other(image, text, joint, PRIOR)
    torch.testing.assert_close(swapped, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(rest, 1 - gate, atol=1e-5, rtol=0)
    assert (gate - 0.5).abs().max() > 0.05


# --- both pools


def test_few_posts_leave_them_near_their_start():
    given, labels, _ = half_noise(2)
    (post,), label = draw_evidence(1, sure=(-1.0,))
    products, gates = [], []
    for count in (1, 10, 100):
        made = pool(joint=False)
        made.fit(*(x.repeat(count, 1) for x in given), None, PRIOR, labels.repeat(count))
        gates.append(distance(made, pool(joint=False)))
        made, rows = ProductPool(2).double(), post.expand(count, -1)
        made.fit([rows, -rows], PRIOR, label.expand(count))
        products.append(distance(made, ProductPool(2)))
    assert 0 < gates[0] < gates[1] < gates[2] and gates[0] < 0.75
    assert 0 < products[0] < products[1] < products[2] and products[0] < 1.0


@pytest.mark.parametrize("count", [1, 3])
def test_posts_that_are_all_the_same_leave_it_finite(count):
    given, labels = draw_evidence(1)
    made = pool()
    made.fit(*(x.expand(count, -1) for x in given), PRIOR, labels.expand(count))
    assert all(x.isfinite().all() for x in made(*draw_evidence(seed=3)[0], PRIOR))
    assert all(x.isfinite().all() for x in made.state_dict().values())


def test_evidence_at_the_floor_is_no_trouble_for_single_precision():
    given, labels = draw_evidence(50)
    prior = PRIOR.float()
    sharp = [evidence((200 * x).log_softmax(-1).float(), prior) for x in given]
    made = SimilarityGatedPool(True, True)
    start = cross_entropy(made(*sharp, prior).logits, labels)
    with torch.no_grad():  # as networks are solved
        made.fit(*sharp, prior, labels)
        output = made(*sharp, prior)
    assert all(x.isfinite().all() and not x.requires_grad for x in output)
    assert cross_entropy(output.logits, labels) < start
