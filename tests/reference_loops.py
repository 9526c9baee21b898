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


def modality_input(w, name, x, present):
    """What comes in of one modality of a post: scaled and projected, or the null vector."""
    x = standardised(w, f"{name}.pooled_scale", x)
    return linear(w, f"{name}.project", x) if present else w[f"{name}.null"]


def two_layers(w, name, x):
    """A hidden layer with ReLU, and a linear one."""
    return linear(w, f"{name}.3", [max(a, 0.0) for a in linear(w, f"{name}.0", x)])


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


def stacked_attention(w, name, heads, x, y):
    """`nn.MultiheadAttention`, whose projections of Q, K and V are one matrix."""
    rows, shift = w[f"{name}.in_proj_weight"].chunk(3), w[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (z @ W.T + b for z, W, b in zip((x, y, y), rows, shift, strict=True))
    return matrix_linear(w, f"{name}.out_proj", heads_of_attention(q, k, v, heads))


def transformer_block(w, name, heads, x, image=None):
    """Self-attention, cross-attention if there is an image, and feed-forward, each normalised."""

    def feed_forward(x):
        return matrix_linear(w, f"{name}.linear2", gelu(matrix_linear(w, f"{name}.linear1", x)))

    x = layer_norm(w, f"{name}.norm1", x + stacked_attention(w, f"{name}.self_attn", heads, x, x))
    if image is None:
        return layer_norm(w, f"{name}.norm2", x + feed_forward(x))
    cross = stacked_attention(w, f"{name}.multihead_attn", heads, x, image)
    x = layer_norm(w, f"{name}.norm2", x + cross)
    return layer_norm(w, f"{name}.norm3", x + feed_forward(x))


def attend(w, name, heads, x, y):
    """LN(x + attention to y)."""
    parts = (("query", x), ("key", y), ("value", y))
    out = heads_of_attention(
        *(matrix_linear(w, f"{name}.self.{part}", z) for part, z in parts), heads
    )
    out = matrix_linear(w, f"{name}.output.dense", out)
    return layer_norm(w, f"{name}.output.LayerNorm", x + out)


def bridgetower_layer(w, name, heads, x, y=None):
    """A uni-modal layer, or with y a cross-modal one."""
    x = attend(w, f"{name}.attention", heads, x, x)
    x = x if y is None else attend(w, f"{name}.crossattention", heads, x, y)
    hidden = gelu(matrix_linear(w, f"{name}.intermediate.dense", x))
    out = matrix_linear(w, f"{name}.output.dense", hidden)
    return layer_norm(w, f"{name}.output.LayerNorm", x + out)


def soft_cross_entropy(logits, targets, weights=None):
    """The mean over posts of the mean of -log p by the targets, posts weighted if there are any."""
    weights = [1.0] * len(logits) if weights is None else weights
    each = [
        -sum(t * math.log(p) for t, p in zip(target, softmax(row), strict=True))
        for row, target in zip(logits, targets, strict=True)
    ]
    return sum(a * w for a, w in zip(each, weights, strict=True)) / sum(weights)


def dawid_skene(answers, truth, classes, rounds):
    """EM over lists; answers and truths are classes, or -1. Probabilities, confusions, objectives.

    The objective is the log-likelihood of answers and known labels, and of the prior's counts.
    """
    people, each = range(len(answers[0])), range(classes)
    before = [[0.5 if k == x else 0.5 / (classes - 1) for x in each] for k in each]
    probs, objectives = [], []
    for row, true in zip(answers, truth, strict=True):
        votes = [sum(x == k for x in row) for k in each]
        known = [float(true == k) for k in each]
        probs.append(known if true >= 0 else [v / max(1, sum(votes)) for v in votes])
    for _ in range(rounds):
        prior = [1 + sum(p[k] for p in probs) for k in each]
        prior = [x / sum(prior) for x in prior]
        confusion = []
        for a in people:
            counts = [list(row) for row in before]
            for p, row in zip(probs, answers, strict=True):
                for k in each:
                    if row[a] >= 0:
                        counts[k][row[a]] += p[k]
            confusion.append([[x / sum(row) for x in row] for row in counts])
        objective = sum(math.log(x) for x in prior)
        for matrix in confusion:
            objective += sum(before[k][x] * math.log(matrix[k][x]) for k in each for x in each)
        probs = []
        for row, true in zip(answers, truth, strict=True):
            likely = list(prior)
            for a in people:
                if row[a] >= 0:
                    likely = [x * confusion[a][k][row[a]] for k, x in enumerate(likely)]
            if true >= 0:
                likely = [x * (k == true) for k, x in enumerate(likely)]
            objective += math.log(sum(likely))
            probs.append([x / sum(likely) for x in likely])
        objectives.append(objective)
    return probs, confusion, objectives
