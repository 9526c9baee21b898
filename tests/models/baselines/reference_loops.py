"""What networks are compared with in float64: loops over lists of numbers, plain matrices."""

import math

import torch


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def add(x, y):
    return [a + b for a, b in zip(x, y, strict=True)]


def linear(w, name, x):
    """W x + b, of a list of numbers."""
    rows = zip(w[f"{name}.weight"], w[f"{name}.bias"], strict=True)
    return [dot(x, row) + shift for row, shift in rows]


def softmax(x):
    powers = [math.exp(a - max(x)) for a in x]
    return [a / sum(powers) for a in powers]


def cross_entropy(logits, labels, weight=None):
    """The mean over posts, weighted by class if there are weights."""
    weights = [1.0 if weight is None else weight[y] for y in labels]
    terms = zip(logits, labels, weights, strict=True)
    return sum(-math.log(softmax(row)[y]) * w for row, y, w in terms) / sum(weights)


def standardised(w, name, x):
    pairs = zip(x, w[f"{name}.mean"], w[f"{name}.deviation"], strict=True)
    return [(a - mean) / deviation for a, mean, deviation in pairs]


def lists(module):
    """Its weights and buffers as lists."""
    return {name: x.tolist() for name, x in module.state_dict().items()}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def matrix_linear(w, name, x):
    """X W^T + b, of a matrix."""
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def heads_of_attention(q, k, v, heads):
    """softmax(q k^T / sqrt(d)) v of each head, side by side; one post."""
    out = []
    for parts in zip(*(x.chunk(heads, 1) for x in (q, k, v)), strict=True):
        a, b, c = parts
        powers = (a @ b.T / math.sqrt(a.shape[1])).exp()
        out.append(powers / powers.sum(1, keepdim=True) @ c)
    return torch.cat(out, 1)
