"""Evidence, and the pools of experts: the formulae, and what fitting must come to."""

import math

import numpy as np
import pytest
from reference_pools import gated, mean_loss, numbers, product, similarities
from scipy.optimize import minimize

from sgmft.models.arrays import cross_entropy, log_softmax, softmax
from sgmft.models.experts import evidence
from sgmft.models.gated_experts import ProductPool, SimilarityGatedPool

K = 4
PRIOR = np.log([0.4, 0.3, 0.2, 0.1])
THREE = (1.0, 2.0, 1.0)  # how sure the experts on text, image and both are


def draw_evidence(n=40, seed=0, sure=THREE):
    """Evidence of one expert for each entry of `sure` (n, K), float64, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=np.exp(PRIOR))
    return [evidence_for(labels, a, 1.0, rng) for a in sure], labels


def evidence_for(labels, sure, noise, rng):
    """`sure` and `noise` are numbers, or one for each post (n, 1)."""
    normal = rng.standard_normal((len(labels), K))
    return log_softmax(PRIOR + sure * np.eye(K)[labels] + noise * normal) - PRIOR


def half_noise(n=400, seed=0):
    """Each post's text or image is right and sure, the other noise: evidence, labels, which."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=np.exp(PRIOR))
    by_text = rng.random(n) < 0.5
    good = by_text[:, None], ~by_text[:, None]
    found = [evidence_for(labels, 4.0 * g, np.where(g, 0.5, 2.0), rng) for g in good]
    return found, labels, by_text


def pool(guided=True, joint=True, seed=None, power="learned"):
    made = double(SimilarityGatedPool(guided, joint, power))
    if seed is not None:
        rng = np.random.default_rng(seed)
        drawn = {name: rng.standard_normal(x.shape) for name, x in made.state_dict().items()}
        made.load_state_dict(drawn | {"deviation": rng.random(3) + 0.5})
    return made


def double(made):
    """The same pool in float64."""
    made.load_state_dict({name: x.astype(np.float64) for name, x in made.state_dict().items()})
    return made


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def distance(made, start):
    fitted = [name for name in made.state_dict() if name in made.learned]
    return max(np.abs(getattr(made, x) - getattr(start, x)).max() for x in fitted)


def posts_of(experts):
    """Each post's evidence as lists of floats."""
    return list(zip(*(x.tolist() for x in experts), strict=True))


# --- evidence


def test_evidence_is_what_an_expert_adds_to_the_class_frequencies():
    close(evidence(np.tile(PRIOR, (3, 1)), PRIOR), np.zeros((3, K)))
    found = evidence(np.log([[0.1, 0.6, 0.2, 0.1]]), PRIOR)
    close(np.exp(found), [[0.1 / 0.4, 2.0, 1.0, 1.0]])


def test_no_evidence_rules_a_label_out():
    log_probs = np.array([[0.0, -100.0, -9.0, -np.inf]])
    least = math.log(1e-4)
    expected = np.array([[0.0, least, -9.0, least]])
    close(evidence(log_probs, np.zeros(K)), expected)
    close(evidence(log_probs, np.full(K, -100.0)), expected - least)


# --- products of experts


@pytest.mark.parametrize("experts", [1, 2, 3])
def test_a_product_is_the_formula(experts):
    given, _ = draw_evidence(sure=(1.0,) * experts)
    made = double(ProductPool(experts))
    equal = [product([1 / experts] * experts, x, PRIOR.tolist()) for x in posts_of(given)]
    close(made.forward(given, PRIOR), equal, 1e-6)
    powers = [0.3, 1.2, 2.0][:experts]
    made.log_weight = np.log(powers)
    close(made.forward(given, PRIOR), [product(powers, x, PRIOR.tolist()) for x in posts_of(given)])


def product_loss(w, given, labels):
    far = sum(math.log(len(w) * a) ** 2 for a in w) / len(labels)
    found = [product(w, x, PRIOR.tolist()) for x in posts_of(given)]
    return mean_loss(found, labels.tolist()) + far


@pytest.mark.parametrize("sure", [(2.0,), (3.0, 0.0), (0.5, 1.5, 1.0)])
def test_powers_are_the_most_likely_ones(sure):
    given, labels = draw_evidence(sure=sure)
    made = double(ProductPool(len(sure)))
    start = np.exp(made.log_weight).tolist()
    made.fit(given, PRIOR, labels)
    found = np.exp(made.log_weight)
    best = minimize(product_loss, start, (given, labels), bounds=[(1e-6, None)] * len(sure))
    close(found, best.x, 1e-3)
    before = product_loss(start, given, labels)
    assert product_loss(found.tolist(), given, labels) < before - 1e-3


def test_an_expert_counts_by_how_good_it_is():
    given, labels = draw_evidence(300, sure=(3.0, 0.0))
    made = double(ProductPool(2))
    made.fit(given, PRIOR, labels)
    right, wrong = np.exp(made.log_weight).tolist()
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
    logits, gate = made.forward(given, PRIOR)
    close(logits, [row for row, _ in rows])
    close(gate, [g for _, g in rows])
    if not joint:  # it is not read
        assert np.array_equal(made.forward([*given[:2], None], PRIOR).logits, logits)


def test_a_product_starts_as_the_rule_of_bayes_and_the_root_of_the_third():
    given = text, image, joint = draw_evidence()[0]
    logits, gate = pool(power=0).forward(given, PRIOR)
    close(logits, PRIOR + text + image + joint / 2, 1e-7)
    assert (gate == 0.5).all()
    close(pool(power=1e-6).forward(given, PRIOR).logits, logits, 1e-4)


@pytest.mark.parametrize("power", ["learned", 0, 1])
def test_no_evidence_leaves_the_class_frequencies(power):
    nothing = np.zeros((3, K))
    for logits in (
        pool(seed=1, power=power).forward([nothing] * 3, PRIOR).logits,
        double(ProductPool(2)).forward([nothing, nothing], PRIOR),
    ):
        close(softmax(logits), np.tile(np.exp(PRIOR), (3, 1)), 1e-7)


def test_modalities_that_agree_are_one_whatever_the_mean():
    (given,), _ = draw_evidence(sure=(1.0,))
    for power in ("learned", 0, 0.5, 1, 3):
        logits = pool(joint=False, power=power).forward([given, given, None], PRIOR).logits
        np.testing.assert_allclose(logits, PRIOR + 2 * given, atol=1e-5, rtol=0)


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
    made.fit(given, PRIOR, labels)
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
        made.fit([*given, None], PRIOR, labels)
    new, new_labels, by_text = half_noise(seed=1)
    (logits, gate), plain = (made.forward([*new, None], PRIOR) for made in (guided, constant))
    assert gate[by_text].mean() > 0.6 and gate[~by_text].mean() < 0.4
    assert np.ptp(plain.gate) == 0
    assert cross_entropy(logits, new_labels) < 0.6 * cross_entropy(plain.logits, new_labels)


@pytest.mark.parametrize("sure", [(3.0, 0.0), (0.0, 3.0)])
@pytest.mark.parametrize("guided", [True, False])
def test_a_modality_that_is_noise_throughout_is_turned_down(sure, guided):
    given, labels = draw_evidence(300, 1, sure=sure)
    made = pool(guided, joint=False)
    made.fit([*given, None], PRIOR, labels)
    gate = made.forward([*given, None], PRIOR).gate.mean()
    assert (gate > 0.75) if sure[0] else (gate < 0.25)


@pytest.mark.parametrize("guided", [True, False])
def test_exchanging_modalities_changes_the_gates_sign_and_nothing_else(guided):
    (text, image, joint), labels = draw_evidence(60, sure=(2.0, 0.7, 1.0))
    one, other = pool(guided), pool(guided)
    one.fit([text, image, joint], PRIOR, labels)
    other.fit([image, text, joint], PRIOR, labels)
    logits, gate = one.forward([text, image, joint], PRIOR)
    swapped, rest = other.forward([image, text, joint], PRIOR)
    np.testing.assert_allclose(swapped, logits, atol=1e-5, rtol=0)
    np.testing.assert_allclose(rest, 1 - gate, atol=1e-5, rtol=0)
    assert np.abs(gate - 0.5).max() > 0.05


def test_what_an_encoder_makes_of_both_is_one_expert_more():
    (*given, own), labels = draw_evidence(sure=(2.5, 0.5, 1.0, 2.0))
    made = double(SimilarityGatedPool(True, True, together=True))
    expected = pool().forward(given, PRIOR).logits + own / 2
    close(made.forward([*given, own], PRIOR).logits, expected, 1e-7)
    start = made.log_together
    made.fit([*given, own], PRIOR, labels)
    found = made.log_together

    def loss(x):
        made.log_together = np.squeeze(x)
        logits = made.forward([*given, own], PRIOR).logits
        return cross_entropy(logits, labels) + float(made.log_together - start) ** 2 / len(labels)

    close(found, minimize(loss, start).x, 1e-3)
    assert loss(found) < loss(start) - 1e-3


# --- both pools


def test_few_posts_leave_them_near_their_start():
    given, labels, _ = half_noise(2)
    (post,), label = draw_evidence(1, sure=(-1.0,))
    products, gates = [], []
    for count in (1, 10, 100):
        made = pool(joint=False)
        made.fit([*(np.tile(x, (count, 1)) for x in given), None], PRIOR, np.tile(labels, count))
        gates.append(distance(made, pool(joint=False)))
        made, rows = double(ProductPool(2)), np.tile(post, (count, 1))
        made.fit([rows, -rows], PRIOR, label.repeat(count))
        products.append(distance(made, ProductPool(2)))
    assert 0 < gates[0] < gates[1] < gates[2] and gates[0] < 0.75
    assert 0 < products[0] < products[1] < products[2] and products[0] < 1.0


@pytest.mark.parametrize("count", [1, 3])
def test_posts_that_are_all_the_same_leave_it_finite(count):
    given, labels = draw_evidence(1)
    made = pool()
    made.fit([np.tile(x, (count, 1)) for x in given], PRIOR, labels.repeat(count))
    assert all(np.isfinite(x).all() for x in made.forward(draw_evidence(seed=3)[0], PRIOR))
    assert all(np.isfinite(x).all() for x in made.state_dict().values())


def test_evidence_at_the_floor_is_no_trouble_for_single_precision():
    given, labels = draw_evidence(50)
    prior = PRIOR.astype(np.float32)
    sharp = [evidence(log_softmax(200 * x).astype(np.float32), prior) for x in given]
    made = SimilarityGatedPool(True, True)
    start = cross_entropy(made.forward(sharp, prior).logits, labels)
    made.fit(sharp, prior, labels)
    output = made.forward(sharp, prior)
    assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in output)
    assert cross_entropy(output.logits, labels) < start
