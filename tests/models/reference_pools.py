"""The pools' formulae as loops over lists of floats."""

import math


def log_sum(x):
    top = max(x)
    return top + math.log(sum(math.exp(a - top) for a in x))


def product(w, experts, prior):
    """log p of one post: log p(y) + sum_k w_k e_k, normalised; `experts` are their evidence."""
    total = [
        x + sum(a * e[i] for a, e in zip(w, experts, strict=True)) for i, x in enumerate(prior)
    ]
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
    return {name: x.tolist() for name, x in module.state_dict().items()}


def mean_loss(rows, labels):
    return sum(log_sum(row) - row[k] for row, k in zip(rows, labels, strict=True)) / len(labels)
