"""The pools' formulae as loops over lists of floats, and made-up evidence."""

import math

import torch

from sgmft.models.gated_experts import SimilarityGatedPool

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
    rng = torch.Generator().manual_seed(seed)
    labels = PRIOR.exp().multinomial(n, replacement=True, generator=rng)
    return [opinion(labels, a, 1.0, rng) for a in sure], labels


def opinion(labels, sure, noise, rng):
    """`sure` and `noise` are numbers, or one for each post (n, 1)."""
    right = torch.eye(K, dtype=torch.float64)[labels]
    normal = torch.randn(len(labels), K, generator=rng, dtype=torch.float64)
    return (PRIOR + sure * right + noise * normal).log_softmax(-1) - PRIOR


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
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def distance(made, start):
    pairs = zip(made.parameters(), start.parameters(), strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)
