"""The paper's equations (arXiv 2405.05760, section 3) as loops over lists of floats.

One post at a time, without padding or masks: a vector is a list, a matrix a list of rows, and
weights multiply from the right as printed (x W). Nothing of the package is called. A feature is a
list of token vectors; in the elements view it is a list of one vector, the pooled one.
"""

import math

from reference_loops import add, dot, softmax

# --- pieces ---


def times(x, W, b=None):
    """x W + b for one vector."""
    assert len(x) == len(W)
    out = [0.0] * len(W[0]) if b is None else list(b)
    for i, row in enumerate(W):
        for j, weight in enumerate(row):
            out[j] += x[i] * weight
    return out


def mix(weights, rows):
    """The sum of rows, each times its weight."""
    row = [0.0] * len(rows[0])
    for weight, value in zip(weights, rows, strict=True):
        row = [r + weight * a for r, a in zip(row, value, strict=True)]
    return row


def relu(x):
    return [a if a > 0 else 0.0 for a in x]


def layer_norm(x, gain, shift):
    mean = sum(x) / len(x)
    variance = sum((a - mean) ** 2 for a in x) / len(x)
    return [
        (a - mean) / math.sqrt(variance + 1e-5) * g + s
        for a, g, s in zip(x, gain, shift, strict=True)
    ]


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def entropy(p):
    return -sum(a * math.log(a) for a in p if a > 0)


# --- equations 1 to 5 ---


def gate(t, v, tau, kind):
    """P^m."""
    similarity = [tau * a * b for a, b in zip(t, v, strict=True)]
    if kind == "softmax":
        return softmax(similarity)
    return [1 / (1 + math.exp(-s)) for s in similarity]


def element_probabilities(queries, keys, tau):
    """P^e: one row for each query."""
    return [softmax([tau * dot(q, k) for k in keys]) for q in queries]


def column(x):
    """A vector as D elements of one number."""
    return [[a] for a in x]


# --- equations 6 to 13 ---


def head(Q, K, V):
    """Equations 8 and 9."""
    return [mix(softmax([dot(q, k) / math.sqrt(len(k)) for k in K]), V) for q in Q]


def cut(X, index, heads, element_width):
    """One head's sequence: D/h numbers of each token, or D/(h w) elements of the one vector."""
    size = len(X[0]) // heads
    rows = [x[index * size : (index + 1) * size] for x in X]
    if element_width is None:
        return rows
    (row,) = rows
    return [row[i : i + element_width] for i in range(0, size, element_width)]


def concat(Q, K, V, heads, element_width):
    """All heads, concatenated."""
    out = [[] for _ in Q]
    for index in range(heads):
        result = head(*(cut(X, index, heads, element_width) for X in (Q, K, V)))
        if element_width is None:
            for row, part in zip(out, result, strict=True):
                row += part
        else:
            for element in result:
                out[0] += element
    return out


def projections(w, prefix, X):
    """Equations 6 and 7."""
    return tuple(
        [times(x, w[f"{prefix}.{name}.weight"]) for x in X] for name in ("query", "key", "value")
    )


def cross_heads(text, image, heads, element_width):
    """AttentionHeads of eq. 9 for (text, image), before W^c; text and image are (Q, K, V)."""
    (q_t, k_t, v_t), (q_i, k_i, v_i) = text, image
    if element_width is None:  # each asks with its own queries and reads the other side
        return (
            concat(q_t, k_i, v_i, heads, None),
            concat(q_i, k_t, v_t, heads, None),
        )
    return (  # as printed
        concat(q_i, k_t, v_t, heads, element_width),
        concat(q_t, k_i, v_i, heads, element_width),
    )


def interpolation_attention(w, text, image, p, heads, element_width):
    """Equations 6 to 13 for both modalities; w are an InterpolationAttention's matrices."""
    qkv = projections(w, "text", text), projections(w, "image", image)
    cross = cross_heads(*qkv, heads, element_width)
    out = []
    for name, x, (Q, K, V), other in zip(("text", "image"), (text, image), qkv, cross, strict=True):
        SA = [times(a, w[f"{name}_self.weight"]) for a in concat(Q, K, V, heads, element_width)]
        CA = [times(a, w[f"{name}_cross.weight"]) for a in other]
        rows = []
        for ca, sa, f in zip(CA, SA, x, strict=True):
            mixed = [c * g + s * (1 - g) for c, s, g in zip(ca, sa, p, strict=True)]
            norm = w[f"{name}_norm.weight"], w[f"{name}_norm.bias"]
            rows.append(layer_norm(add(mixed, f), *norm))
        out.append(rows)
    return tuple(out)


# --- equations 14 to 16 ---


def interaction(queries, keys, values, tau):
    """Equation 14 on lists of rows; one-number rows in the elements view (n x 1 as printed)."""
    return [mix(weights, values) for weights in element_probabilities(queries, keys, tau)]


def feed_forward(w, X, inter=None):
    """Equations 15 and 16; without `inter` the conventional block."""
    out = []
    for i, x in enumerate(X):
        hidden = times(x, w["w1.weight"], w["w1.bias"])
        if inter is not None:
            hidden = add(hidden, times(inter[i], w["w3.weight"]))
        ffn = times(relu(hidden), w["w2.weight"], w["w2.bias"])
        out.append(layer_norm(add(ffn, x), w["norm.weight"], w["norm.bias"]))
    return out


# --- equations 17 and 18 ---


def fusion(w, text, image, heads, element_width, layers):
    """Equation 17: M_fuse."""
    for layer in range(layers):
        name = f"layers.{layer}"
        qkv = projections(w, f"{name}.text", text), projections(w, f"{name}.image", image)
        cross_t, cross_i = cross_heads(*qkv, heads, element_width)
        text = [times(x, w[f"{name}.text_cross.weight"]) for x in cross_t]
        image = [times(x, w[f"{name}.image_cross.weight"]) for x in cross_i]
    return add(mean(text), mean(image))


def classifier(w, x, layers=5):
    """Equation 18 before its softmax; dropout layers count in the names (0, 3, 6, 9, 12)."""
    for i in range(layers):
        x = times(x, w[f"{3 * i}.weight"], w[f"{3 * i}.bias"])
        if i + 1 < layers:
            x = relu(x)
    return x


# --- the whole ---


def matrices(module):
    """A module's weights by name: matrices as (in, out), so that they multiply from the right."""
    return {
        name: (value.T if name.endswith("weight") and value.dim() == 2 else value)
        .detach()
        .double()
        .tolist()
        for name, value in module.state_dict().items()
    }


def part(w, name):
    """The matrices of one submodule."""
    return {k.removeprefix(f"{name}."): v for k, v in w.items() if k.startswith(f"{name}.")}


def rescale(w, name, x, scale):
    if scale == "unit":
        return [a / math.sqrt(dot(x, x)) for a in x]
    if scale == "standard":
        mu, sigma = w[f"{name}.mean"], w[f"{name}.deviation"]
        return [(a - m) / s for a, m, s in zip(x, mu, sigma, strict=True)]
    return x


def project(w, x, name="project"):
    return times(x, w[f"{name}.weight"], w[f"{name}.bias"]) if f"{name}.weight" in w else x


def side(w, c, pooled, tokens, pictures=None):
    """A modality's pooled vector and its token vectors as the equations take them."""
    null = w["null"]
    if pooled is None:
        return null, [null]
    if c.view == "elements":
        vector = project(w, rescale(w, "pooled_scale", pooled, c.scale))
        return vector, [vector]
    own = "project_tokens" if "project_tokens.weight" in w else "project"  # widths may differ
    vector = project(w, rescale(w, "pooled_scale", pooled, c.scale)) if c.sim else None
    rows = [project(w, rescale(w, "token_scale", x, c.scale), own) for x in tokens]
    if pictures is not None:
        index = list(zip(*w["index.weight"], strict=True))  # `matrices` transposed it
        rows = [
            add(x, index[min(k, c.max_images - 1)]) for x, k in zip(rows, pictures, strict=True)
        ]
    return vector, rows or [null]


def sgmft(w, c, post):
    """Logits, M_fuse and (entropy of P^m, of P^e) of one post by all equations.

    w: `matrices` of the model; c: its config, read only. post: a dict of text, words, image,
    regions, index, where a missing side is None.
    """
    t, text = side(part(w, "text"), c, post["text"], post["words"])
    v, image = side(part(w, "image"), c, post["image"], post["regions"], post["index"])
    width = None if c.view == "tokens" else c.element_width
    guidance = None
    if c.sim:
        tau = math.exp(w["temperature.log_value"])
        p = gate(t, v, tau, c.gate)
        x_t, x_i = interpolation_attention(part(w, "attention"), text, image, p, c.heads, width)
        asks, other, values = (text, image, x_i) if c.guided == "text" else (image, text, x_t)
        if width is not None:
            asks, other, values = column(asks[0]), column(other[0]), column(values[0])
        inter = interaction(asks, other, values, tau)
        guidance = (gate_entropy(p, c.gate), element_entropy(asks, other, tau))
        if width is not None:
            inter = [[a for (a,) in inter]]
        text = feed_forward(part(w, "text_ffn"), x_t, inter if c.guided == "text" else None)
        image = feed_forward(part(w, "image_ffn"), x_i, inter if c.guided == "image" else None)
    if c.fusion == "sum":
        fused = add(mean(text), mean(image))
    else:
        fused = fusion(part(w, "fusion"), text, image, c.heads, width, c.fusion_layers)
    logits = classifier(part(w, "classifier"), fused, len(c.classifier_widths) + 1)
    return logits, fused, guidance


def gate_entropy(p, kind):
    if kind == "softmax":
        return entropy(p) / math.log(len(p))
    return sum(entropy([a, 1 - a]) for a in p) / len(p) / math.log(2)


def element_entropy(queries, keys, tau):
    if len(keys) == 1:
        return 1.0
    rows = element_probabilities(queries, keys, tau)
    return sum(entropy(row) for row in rows) / len(rows) / math.log(len(keys))
