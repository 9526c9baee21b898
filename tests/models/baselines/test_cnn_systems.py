"""TextCNN, the low-rank product and the word average against loops over single numbers."""

import math

import pytest
import torch

from reference_loops import add, dot, linear, lists
from sgmft.errors import SgmftError
from sgmft.features.features import Batch
from sgmft.models.baselines.word_systems import (
    FeatureLevelCNN,
    LowRank,
    LowRankConfig,
    LowRankFusion,
    TextCNN,
    TextCNNConfig,
    WordAverage,
    WordAverageConfig,
)
from token_batches import assert_close, normal, vectors

LENGTHS = [6, 1, 4, 3, 0]  # against windows of 2, 3 and 5; the last post has no text
VOCABULARY = torch.arange(4.0).outer(torch.tensor([1.0, 20.0, 3.0]))
SIDES = {"classes": 3, "text_width": 3, "image_width": 4}
SMALL = {**SIDES, "vocabulary_size": 4, "embedding_width": 5, "dropout": 0.5}
CNN = {**SMALL, "windows": (2, 3, 5), "filters": 2}
NETWORKS = {
    "feature-level-cnn": (FeatureLevelCNN, TextCNNConfig(**CNN)),
    "low-rank": (LowRank, LowRankConfig(**CNN, rank=3, width=6)),
    "low-rank attributes": (
        LowRank,
        LowRankConfig(**CNN, rank=3, width=6, attributes_width=2),
    ),
    "word-average": (WordAverage, WordAverageConfig(**SMALL, width=6, classifier_widths=(5, 4))),
}


def close(a, b):
    assert_close(a.detach(), torch.tensor(b, dtype=torch.float64))


def randomised(module):
    torch.manual_seed(0)
    module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 0.5)
    return module


def made(name):
    kind, config = NETWORKS[name]
    network = randomised(kind(config))
    network.prepare(*map(vectors, (torch.zeros(2, 3), normal(9, 4), VOCABULARY)), None)
    return network


def posts():
    """Five posts; the second lacks pictures, the last has no text; junk where nothing is read."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 5, (5, 6), generator=generator)  # 4 is a word outside the vocabulary
    mask = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    tokens = torch.cat([VOCABULARY, torch.tensor([[200.0, 1.0, 9.0]])])[rows]
    has_image = torch.tensor([True, False, True, True, True])
    batch = Batch(normal(5, 3), normal(5, 4, seed=2), mask.any(1), has_image, tokens, mask)
    batch = batch._replace(attributes=normal(5, 2, seed=3))
    return batch, [row[:n] for row, n in zip(rows.tolist(), LENGTHS, strict=True)]


# --- the cards, one post and one number at a time ---


def classify(w, names, x):
    """Linear layers with ReLU between them."""
    *hidden, last = names
    for name in hidden:
        x = [max(a, 0.0) for a in linear(w, name, x)]
    return linear(w, last, x)


def slow_text_cnn(module, rows):
    """Kim's TextCNN of one text, a list of embeddings."""
    found = []
    for convolution in module.convolutions:
        weight, bias = convolution.weight.tolist(), convolution.bias.tolist()
        window, width = len(weight[0][0]), len(weight[0])
        padded = rows + [[0.0] * width] * (window - len(rows))
        for filter_, shift in zip(weight, bias, strict=True):
            best = 0.0  # ReLU
            for start in range(len(padded) - window + 1):
                total = shift
                for place in range(window):
                    for i in range(width):
                        total += filter_[i][place] * padded[start + place][i]
                best = max(best, total)
            found.append(best)
    return found


def slow_low_rank(w, rank, t, v, a):
    """Sum over r of (W_t^r [t; 1]) * (W_v^r [v; 1]), each W^r with its bias as the last column.

    With attributes each product has a third factor, W_a^r [a; 1].
    """
    width = len(w["text.bias"]) // rank
    h = [0.0] * width
    for r in range(rank):
        for d in range(width):
            row = r * width + d
            left = dot([*w["text.weight"][row], w["text.bias"][row]], [*t, 1.0])
            right = dot([*w["image.weight"][row], w["image.bias"][row]], [*v, 1.0])
            third = 1.0
            if "attributes.bias" in w:
                third = dot([*w["attributes.weight"][row], w["attributes.bias"][row]], [*a, 1.0])
            h[d] += left * right * third
    return h


def slow_network(network, rows, image, there, a):
    """Fused feature and logits of one post."""
    w, averaged = lists(network), isinstance(network, WordAverage)
    v = [a / math.sqrt(dot(image, image)) for a in image]
    v = linear(w, "image.project", v) if "image.project.weight" in w else v
    v = v if there else w["image.null"]
    embedded = [w["text.embeddings.embedding.weight"][row] for row in rows]
    if not rows:
        t = w["text.null"]
    elif averaged:
        mean = [sum(column) / len(rows) for column in zip(*embedded, strict=True)]
        t = linear(w, "text.pool.project", mean)
    else:
        t = slow_text_cnn(network.text.pool, embedded)
    if averaged:
        fused = add(t, v)
        return fused, classify(w, ("classifier.0", "classifier.3", "classifier.6"), fused)
    fused = t + v
    if isinstance(network, LowRank):
        fused = slow_low_rank(lists(network.fusion), network.config.rank, t, v, a)
    return fused, linear(w, "classifier", fused)


# --- whole networks ---


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_card(name):
    network = made(name)
    batch, rows = posts()
    output = network(batch)
    each = batch.image, batch.has_image, batch.attributes
    given = zip(rows, *(x.tolist() for x in each), strict=True)
    fused, logits = zip(*(slow_network(network, *post) for post in given), strict=True)
    close(output.fused, fused)
    close(output.logits, logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_words_matters_to_a_cnn_alone(name):
    network = made(name)
    tokens = torch.stack([VOCABULARY[[0, 1, 2, 3]], VOCABULARY[[3, 1, 0, 2]]])
    there = torch.ones(2, dtype=torch.bool)
    batch = Batch(
        normal(2, 3), normal(4).expand(2, -1), there, there, tokens, there[:, None].expand(-1, 4)
    )
    one, other = network(batch._replace(attributes=torch.ones(2, 2).double())).logits
    assert torch.allclose(one, other) == (name == "word-average")


@pytest.mark.parametrize("scale", ["none", "unit", "standard"])
def test_the_scale_of_pictures_is_a_setting(scale):
    torch.manual_seed(0)
    network = FeatureLevelCNN(TextCNNConfig(**CNN, scale=scale)).double()
    pictures = 3 * normal(9, 4) + 1
    network.prepare(*map(vectors, (torch.zeros(2, 3), pictures, VOCABULARY)), None)
    scaled = network.image.pooled_scale(pictures)
    expected = {
        "none": pictures,
        "unit": pictures / pictures.norm(dim=1, keepdim=True),
        "standard": (pictures - pictures.mean(0)) / pictures.std(0),
    }
    torch.testing.assert_close(scaled, expected[scale])


# --- TextCNN ---


def test_windows_that_touch_padding_never_win():
    cnn = randomised(TextCNN(2, (2,), 1))
    with torch.no_grad():
        cnn.convolutions[0].weight.fill_(-1.0)  # the less there is in a window, the more it gives
        cnn.convolutions[0].bias.fill_(10.0)
    words = torch.ones(1, 3, 2, dtype=torch.float64)
    padded = torch.cat([words, torch.zeros(1, 4, 2)], 1)
    mask = torch.arange(7)[None] < 3
    close(cnn(words, mask[:, :3]), [[6.0]])
    close(cnn(padded, mask), [[6.0]])
    one = torch.arange(7)[None] < 1
    close(cnn(padded * one[..., None], one), [[8.0]])  # padded to the window, and no further


# --- low rank ---


def test_low_rank_fusion_is_a_bilinear_form_of_that_rank():
    """The tensor behind one number of h has rank R, and h is linear in [t; 1] and in [v; 1]."""
    fusion = randomised(LowRankFusion(7, 6, 2, 3))
    every_t, every_v = (torch.cat([torch.zeros(1, n), torch.eye(n)]).double() for n in (7, 6))
    every_t, every_v = every_t.repeat_interleave(7, 0), every_v.repeat(8, 1)
    h = fusion(every_t, every_v)[:, 0].reshape(8, 7)
    assert torch.linalg.matrix_rank(h, rtol=1e-9) == 3


def test_low_rank_fusion_of_three_starts_with_the_variance_of_its_inputs():
    torch.manual_seed(0)
    fusion = LowRankFusion(300, 200, 2000, 4, 100).double()
    with torch.no_grad():
        h = fusion(*(normal(50, n, seed=n) for n in (300, 200, 100)))
        assert math.isclose(h.var(), 1.0, abs_tol=0.15)


def test_low_rank_fusion_starts_with_the_variance_of_its_inputs():
    torch.manual_seed(0)
    fusion = LowRankFusion(300, 200, 500, 4).double()
    nothing = torch.zeros(50, 300).double(), torch.zeros(50, 200).double()
    t, v = normal(50, 300), normal(50, 200, seed=1)
    with torch.no_grad():
        assert math.isclose(fusion(t, v).var(), 1.0, abs_tol=0.1)
        assert math.isclose(fusion(t, nothing[1]).var(), 0.5, abs_tol=0.1)
        assert math.isclose(fusion(nothing[0], v).var(), 0.5, abs_tol=0.1)


# --- settings ---


def test_the_layers_by_default():
    network = FeatureLevelCNN(TextCNNConfig(3, 3, 1280, vocabulary_size=10))
    shapes = [tuple(c.weight.shape) for c in network.text.pool.convolutions]
    assert shapes == [(128, 128, 3), (128, 128, 4), (128, 128, 5)]
    assert network.classifier.in_features == 2 * 384
    baseline = WordAverage(WordAverageConfig(3, 3, 1280, vocabulary_size=10)).classifier
    linear = [(m.in_features, m.out_features) for m in baseline if isinstance(m, torch.nn.Linear)]
    assert linear == [(256, 512), (512, 256), (256, 128), (128, 64), (64, 3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": ()}, "windows must be"),
        ({"text_width": 512}, "encoder cnn"),
        ({"vocabulary_size": 0}, "vocabulary_size"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SgmftError, match=message):
        TextCNNConfig(**{**SIDES, **settings})
