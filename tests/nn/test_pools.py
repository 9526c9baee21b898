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


# --- the formulae


def log_sum(x):
    top = max(x)
    return top + math.log(sum(math.exp(a - top) for a in x))


def product(w, said):
    """log p of one post: sum_k w_k e_k, normalised; said is a list of experts' evidence."""
    total = [sum(a * e[i] for a, e in zip(w, said, strict=True)) for i in range(len(said[0]))]
    return [a - log_sum(total) for a in total]


def similarities(text, image):
    """S^m of one post."""
    p_t, p_v = [math.exp(a) for a in text], [math.exp(a) for a in image]
    return [
        math.log(sum(a * b for a, b in zip(p, q, strict=True)))
        for p, q in ((p_t, p_t), (p_v, p_v), (p_t, p_v))
    ]


def gated(w, text, image, joint):
    """Logits and P^m of one post; w: mean, deviation, balance, and slopes, joint where there."""
    score = w["balance"]
    for s, m, d, u in zip(
        similarities(text, image), w["mean"], w["deviation"], w.get("slopes", [0] * 3), strict=True
    ):
        score += u * (s - m) / d
    gate = 1 / (1 + math.exp(-score))
    sharpness = math.exp(w["log_sharpness"])
    own = math.exp(w["log_joint"]) if "log_joint" in w else 0.0
    logits = [
        2 * sharpness * (gate * t + (1 - gate) * v) + own * j
        for t, v, j in zip(text, image, joint, strict=True)
    ]
    return logits, gate


def numbers(module):
    return {name: x.detach().double().tolist() for name, x in module.state_dict().items()}


def mean_loss(rows, labels):
    return sum(log_sum(row) - row[k] for row, k in zip(rows, labels, strict=True)) / len(labels)


# --- made-up evidence


def opinions(n=40, seed=0, sure=(1.0, 1.0), classes=K):
    """Labels, and log-probabilities of one expert for each entry of `sure`, float64."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=dice)
    said = []
    for a in sure:
        noise = torch.randn(n, classes, generator=dice, dtype=torch.float64)
        said.append((noise + a * torch.eye(classes, dtype=torch.float64)[labels]).log_softmax(-1))
    return said, labels


def pool(guided=True, joint=True, seed=None):
    made = SimilarityGatedPool(guided, joint).double()
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


def test_no_evidence_rules_a_label_out():
    said = torch.tensor([[0.0, -100.0, -9.0, -torch.inf]])
    expected = [[0.0, math.log(1e-4), -9.0, math.log(1e-4)]]
    torch.testing.assert_close(evidence(said), torch.tensor(expected))


# --- a product of experts


@pytest.mark.parametrize("experts", [1, 2, 3])
def test_a_product_is_the_formula(experts):
    said, _ = opinions(sure=(1.0,) * experts)
    made = ProductPool(experts).double()
    posts = list(zip(*(x.tolist() for x in said), strict=True))
    equal = [product([1 / experts] * experts, list(post)) for post in posts]
    close(made(said).detach(), equal, 1e-6)
    with torch.no_grad():
        made.log_weight.copy_(torch.tensor([0.3, 1.2, 2.0][:experts]).log())
    close(
        made(said).detach(), [product(made.log_weight.exp().tolist(), list(post)) for post in posts]
    )


def product_loss(w, said, labels):
    posts = zip(*(x.tolist() for x in said), strict=True)
    far = sum(math.log(len(w) * a) ** 2 for a in w) / len(labels)
    return mean_loss([product(w, list(post)) for post in posts], labels.tolist()) + far


@pytest.mark.parametrize("sure", [(2.0,), (3.0, 0.0), (0.5, 1.5, 1.0)])
def test_powers_are_the_most_likely_ones(sure):
    said, labels = opinions(sure=sure)
    made = ProductPool(len(sure)).double()
    start = made.log_weight.exp().tolist()
    made.fit(said, labels)
    found = made.log_weight.exp().tolist()
    best = minimize(product_loss, start, (said, labels), bounds=[(1e-6, None)] * len(sure))
    close(made.log_weight.exp().detach(), best.x.tolist(), 1e-3)
    assert product_loss(found, said, labels) < product_loss(start, said, labels) - 1e-3


def test_an_expert_counts_by_how_good_it_is():
    said, labels = opinions(300, sure=(3.0, 0.0))
    made = ProductPool(2).double()
    made.fit(said, labels)
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
        made.fit([post.expand(count, -1), -post.expand(count, -1)], label.expand(count))
        moved.append(distance(made, ProductPool(2)))
    assert 0 < moved[0] < moved[1] < moved[2] and moved[0] < 1.0


# --- the gated pool


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_gated_pool_is_the_formula(guided, joint, seed):
    said, _ = opinions(sure=(1.0, 2.0, 1.0))
    made = pool(guided, joint, seed)
    w = numbers(made)
    assert ("slopes" in w) is guided and ("log_joint" in w) is joint
    rows = [gated(w, *post) for post in zip(*(x.tolist() for x in said), strict=True)]
    logits, gate = (x.detach() for x in made(*said))
    close(logits, [row for row, _ in rows])
    close(gate, [g for _, g in rows])


def test_it_starts_as_the_two_sides_and_the_root_of_the_third():
    text, image, joint = opinions(sure=(1.0, 2.0, 1.0))[0]
    logits, gate = pool()(text, image, joint)
    torch.testing.assert_close(logits, text + image + joint / 2, check_dtype=False)
    assert (gate == 0.5).all()


def test_without_a_third_expert_none_is_read():
    (text, image, joint), _ = opinions(sure=(1.0, 2.0, 1.0))
    made = pool(joint=False, seed=1)
    assert torch.equal(made(text, image, joint).logits, made(text, image, None).logits)


def gated_loss(w, start, said, labels):
    """Mean cross-entropy and the penalty; w has the numbers of `start`, some moved."""
    rows = [gated(w, *post)[0] for post in zip(*(x.tolist() for x in said), strict=True)]
    far = 3 * sum(a * a for a in w.get("slopes", []))
    for name in {"balance", "log_sharpness", "log_joint"} & {*w}:
        far += (w[name] - start[name]) ** 2
    return mean_loss(rows, labels.tolist()) + far / len(labels)


@pytest.mark.parametrize(("guided", "joint"), [(True, True), (False, True), (True, False)])
def test_its_parameters_are_the_most_likely_ones(guided, joint):
    said, labels = opinions(40, sure=(2.5, 0.5, 1.0))
    made = pool(guided, joint)
    start = numbers(made)
    made.fit(*said, labels)
    found = numbers(made)
    rows = np.array(
        [similarities(*post) for post in zip(*(x.tolist() for x in said[:2]), strict=True)]
    )
    close(made.mean, rows.mean(0).tolist(), 1e-6)
    close(made.deviation, rows.std(0, ddof=1).tolist(), 1e-6)
    fixed = {name: found[name] for name in ("mean", "deviation")}
    single = ["balance", "log_sharpness"] + ["log_joint"] * joint

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


def half_noise(n=400, seed=0, classes=K):
    """Each post's text or picture is right and sure, the other one vague: said, labels, which."""
    dice = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=dice)
    by_text = torch.rand(n, generator=dice) < 0.5
    right = torch.eye(classes, dtype=torch.float64)[labels]

    def side(good):
        noise = torch.randn(n, classes, generator=dice, dtype=torch.float64)
        return torch.where(good[:, None], 2.5 * right + 0.7 * noise, noise).log_softmax(-1)

    return [side(by_text), side(~by_text)], labels, by_text


def test_the_gate_goes_to_the_side_that_knows():
    said, labels, _ = half_noise()
    guided, constant = pool(joint=False), pool(guided=False, joint=False)
    for made in (guided, constant):
        made.fit(*said, None, labels)
    (new_said, new_labels, new_by_text) = half_noise(seed=1)
    logits, gate = guided(*new_said, None)
    assert gate[new_by_text].mean() > 0.6 and gate[~new_by_text].mean() < 0.4
    plain = constant(*new_said, None)
    assert plain.gate.std() < 1e-12
    assert cross_entropy(logits, new_labels) < cross_entropy(plain.logits, new_labels) - 0.02


@pytest.mark.parametrize("sure", [(3.0, 0.0), (0.0, 3.0)])
def test_a_side_that_is_noise_throughout_is_turned_down(sure):
    said, labels = opinions(300, sure=sure)
    for guided in (True, False):
        made = pool(guided, joint=False)
        made.fit(*said, None, labels)
        gate = made(*said, None).gate.mean()
        assert (gate > 0.75) if sure[0] else (gate < 0.25)


@pytest.mark.parametrize("guided", [True, False])
def test_changing_sides_changes_the_gates_sign_and_nothing_else(guided):
    (text, image, joint), labels = opinions(60, sure=(2.0, 0.7, 1.0))
    one, other = pool(guided), pool(guided)
    one.fit(text, image, joint, labels)
    other.fit(image, text, joint, labels)
    logits, gate = one(text, image, joint)
    swapped, rest = other(image, text, joint)
    torch.testing.assert_close(swapped, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(rest, 1 - gate, atol=1e-5, rtol=0)
    assert (gate - 0.5).abs().max() > 0.05


def test_few_posts_leave_it_near_its_start():
    said, labels, _ = half_noise(2)
    moved = []
    for count in (1, 10, 100):
        made = pool(joint=False)
        made.fit(*(x.repeat(count, 1) for x in said), None, labels.repeat(count))
        moved.append(distance(made, pool(joint=False)))
    assert 0 < moved[0] < moved[1] < moved[2] and moved[0] < 0.5


@pytest.mark.parametrize("count", [1, 3])
def test_posts_that_are_all_the_same_leave_it_finite(count):
    said, labels = opinions(1, sure=(1.0, 1.0, 1.0))
    made = pool()
    made.fit(*(x.expand(count, -1) for x in said), labels.expand(count))
    new, _ = opinions(sure=(1.0, 1.0, 1.0), seed=3)
    assert all(x.isfinite().all() for x in made(*new))
    assert all(x.isfinite().all() for x in made.state_dict().values())


def test_evidence_at_the_floor_is_no_trouble_for_single_precision():
    said, labels = opinions(50, sure=(1.0, 1.0, 1.0))
    sharp = [evidence((200 * x).log_softmax(-1)).float() for x in said]
    made = SimilarityGatedPool(True, True)
    start = cross_entropy(made(*sharp).logits, labels)
    made.fit(*sharp, labels)
    assert all(x.isfinite().all() for x in made(*sharp))
    assert cross_entropy(made(*sharp).logits, labels) < start


def test_no_gradient_is_left_behind_under_no_grad():
    said, labels = opinions(20, sure=(1.0, 1.0, 1.0))
    made = pool()
    with torch.no_grad():  # as networks are solved
        made.fit(*said, labels)
        assert not made(*said).logits.requires_grad
    assert distance(made, pool()) > 0
