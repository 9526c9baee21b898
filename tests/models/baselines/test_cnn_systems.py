"""TextCNN, the low-rank product and the word average against loops over single numbers."""

import math

import pytest
import torch

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.baselines.feature_level_cnn import FeatureLevelCNN, TextCNN, TextCNNConfig
from sgmft.models.baselines.low_rank import LowRank, LowRankConfig, LowRankFusion
from sgmft.models.baselines.word_average import WordAverage, WordAverageConfig

LENGTHS = [6, 1, 4, 3, 0]  # against windows of 2, 3 and 5; the last post has no text
VOCABULARY = torch.arange(4.0).outer(torch.tensor([1.0, 20.0, 3.0]))
SIDES = {"classes": 3, "text_width": 3, "image_width": 4}
SMALL = {**SIDES, "vocabulary_size": 4, "embedding_width": 5, "dropout": 0.5}
CNN = {**SMALL, "windows": (2, 3, 5), "filters": 2}
NETWORKS = {
    "feature-level-cnn": (FeatureLevelCNN, TextCNNConfig(**CNN)),
    "low-rank": (LowRank, LowRankConfig(**CNN, rank=3, width=6)),
    "word-average": (WordAverage, WordAverageConfig(**SMALL, width=6, classifier_widths=(5, 4))),
}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b):
    expected = torch.tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a.detach(), expected, rtol=1e-10, atol=1e-10)


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
    network.prepare(torch.zeros(2, 3), normal(9, 4), VOCABULARY, None)
    return network


def posts():
    """Five posts; the second lacks pictures, the last has no text; junk where nothing is read."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 5, (5, 6), generator=generator)  # 4 is a word outside the vocabulary
    mask = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    tokens = torch.cat([VOCABULARY, torch.tensor([[200.0, 1.0, 9.0]])])[rows]
    has_image = torch.tensor([True, False, True, True, True])
    batch = Batch(normal(5, 3), normal(5, 4, seed=2), mask.any(1), has_image, tokens, mask)
    return batch, [row[:n] for row, n in zip(rows.tolist(), LENGTHS, strict=True)]


# --- the cards, one post and one number at a time ---


def dot(x, y):
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += a * b
    return total


def linear(layer, x):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [dot(row, x) + shift for row, shift in zip(weight, bias, strict=True)]


def classify(layers, x):
    """Linear layers with ReLU between them."""
    (*hidden, last) = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    for layer in hidden:
        x = [max(a, 0.0) for a in linear(layer, x)]
    return linear(last, x)


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


def slow_low_rank(w, rank, t, v):
    """Sum over r of (W_t^r [t; 1]) * (W_v^r [v; 1]), each W^r with its bias as the last column."""
    width = len(w["text.bias"]) // rank
    h = [0.0] * width
    for r in range(rank):
        for d in range(width):
            row = r * width + d
            left = dot([*w["text.weight"][row], w["text.bias"][row]], [*t, 1.0])
            right = dot([*w["image.weight"][row], w["image.bias"][row]], [*v, 1.0])
            h[d] += left * right
    return h


def slow_image(network, x, there):
    side = network.image
    if not there:
        return side.null.tolist()
    unit = [a / math.sqrt(dot(x, x)) for a in x]
    return linear(side.project, unit) if isinstance(side.project, torch.nn.Linear) else unit


def slow_text(network, rows):
    if not rows:
        return network.text.null.tolist()
    embedded = [network.text.embeddings.embedding.weight[row].tolist() for row in rows]
    if isinstance(network, WordAverage):
        mean = [sum(column) / len(rows) for column in zip(*embedded, strict=True)]
        return linear(network.text.pool.project, mean)
    return slow_text_cnn(network.text.pool, embedded)


def slow_network(network, rows, image, there):
    """Fused feature and logits of one post."""
    t, v = slow_text(network, rows), slow_image(network, image, there)
    if isinstance(network, WordAverage):
        fused = [a + b for a, b in zip(t, v, strict=True)]
        return fused, classify(network.classifier, fused)
    fused = t + v
    if isinstance(network, LowRank):
        plain = {name: x.tolist() for name, x in network.fusion.state_dict().items()}
        fused = slow_low_rank(plain, network.config.rank, t, v)
    return fused, linear(network.classifier, fused)


# --- whole networks ---


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_card(name):
    network = made(name)
    batch, rows = posts()
    output = network(batch)
    expected = [
        slow_network(network, row, image, there)
        for row, image, there in zip(
            rows, batch.image.tolist(), batch.has_image.tolist(), strict=True
        )
    ]
    close(output.fused, [fused for fused, _ in expected])
    close(output.logits, [logits for _, logits in expected])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_words_matters_to_a_cnn_alone(name):
    network = made(name)
    tokens = torch.stack([VOCABULARY[[0, 1, 2, 3]], VOCABULARY[[3, 1, 0, 2]]])
    there = torch.ones(2, dtype=torch.bool)
    batch = Batch(
        normal(2, 3), normal(4).expand(2, -1), there, there, tokens, there[:, None].expand(-1, 4)
    )
    one, other = network(batch).logits
    assert torch.allclose(one, other) == (name == "word-average")


@pytest.mark.parametrize("name", NETWORKS)
def test_drop_out_is_for_training_only(name):
    network = made(name)
    batch, _ = posts()
    assert torch.equal(network(batch).logits, network(batch).logits)
    network.train()
    assert torch.equal(network(batch).fused, network(batch).fused)  # before the classifier
    assert not torch.equal(network(batch).logits, network(batch).logits)


@pytest.mark.parametrize("scale", ["none", "unit", "standard"])
def test_the_scale_of_pictures_is_a_setting(scale):
    torch.manual_seed(0)
    network = FeatureLevelCNN(TextCNNConfig(**CNN, scale=scale)).double()
    pictures = 3 * normal(9, 4) + 1
    network.prepare(torch.zeros(2, 3), pictures, VOCABULARY, None)
    scaled = network.image.pooled_scale(pictures)
    expected = {
        "none": pictures,
        "unit": pictures / pictures.norm(dim=1, keepdim=True),
        "standard": (pictures - pictures.mean(0)) / pictures.std(0),
    }
    torch.testing.assert_close(scaled, expected[scale])


# --- TextCNN ---


def test_text_cnn_is_a_convolution_with_a_maximum_over_the_text():
    cnn = randomised(TextCNN(5, (3, 4, 5), 2))
    mask = torch.arange(7) < torch.tensor([7, 5, 4, 1])[:, None]
    words = normal(4, 7, 5) * mask[..., None]
    texts = [words[i, mask[i]].tolist() for i in range(4)]
    close(cnn(words, mask), [slow_text_cnn(cnn, text) for text in texts])


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


def test_a_convolution_for_each_window():
    network = FeatureLevelCNN(TextCNNConfig(3, 3, 1280, vocabulary_size=10))
    shapes = [tuple(c.weight.shape) for c in network.text.pool.convolutions]
    assert shapes == [(128, 128, 3), (128, 128, 4), (128, 128, 5)]
    assert network.classifier.in_features == 2 * 384 and network.dropout.p == 0.5


@pytest.mark.parametrize("windows", [(), (0,), (3, -1)])
def test_windows_hold_words(windows):
    with pytest.raises(SgmftError, match="windows must be"):
        TextCNNConfig(**{**CNN, "windows": windows})


# --- low rank ---


@pytest.mark.parametrize("rank", [1, 4])
def test_low_rank_fusion_is_a_sum_of_products(rank):
    fusion = randomised(LowRankFusion(5, 4, 3, rank))
    w = {name: x.tolist() for name, x in fusion.state_dict().items()}
    t, v = normal(6, 5), normal(6, 4, seed=1)
    pairs = zip(t.tolist(), v.tolist(), strict=True)
    close(fusion(t, v), [slow_low_rank(w, rank, *pair) for pair in pairs])


def test_low_rank_fusion_is_a_bilinear_form_of_that_rank():
    """The tensor behind one number of h has rank R, and h is linear in [t; 1] and in [v; 1]."""
    fusion = randomised(LowRankFusion(7, 6, 2, 3))
    zero_t, zero_v, ones_t, ones_v = (
        torch.zeros(1, 7),
        torch.zeros(1, 6),
        torch.eye(7),
        torch.eye(6),
    )
    every_t = torch.cat([zero_t, ones_t]).double().repeat_interleave(7, 0)
    every_v = torch.cat([zero_v, ones_v]).double().repeat(8, 1)
    h = fusion(every_t, every_v)[:, 0].reshape(8, 7)
    assert torch.linalg.matrix_rank(h, rtol=1e-9) == 3


def test_low_rank_fusion_starts_with_the_variance_of_its_inputs():
    torch.manual_seed(0)
    fusion = LowRankFusion(300, 200, 500, 4).double()
    nothing = torch.zeros(50, 300).double(), torch.zeros(50, 200).double()
    t, v = normal(50, 300), normal(50, 200, seed=1)
    with torch.no_grad():
        assert math.isclose(fusion(t, v).var(), 1.0, abs_tol=0.1)
        assert math.isclose(fusion(t, nothing[1]).var(), 0.5, abs_tol=0.1)
        assert math.isclose(fusion(nothing[0], v).var(), 0.5, abs_tol=0.1)


@pytest.mark.parametrize("name", ["rank", "width"])
def test_low_rank_settings(name):
    with pytest.raises(SgmftError, match=f"{name} must be at least 1"):
        LowRankConfig(**CNN, **{name: 0})


# --- word average ---


def test_the_baseline_has_the_classifier_of_sg_mft():
    network = WordAverage(WordAverageConfig(3, 3, 1280, vocabulary_size=10))
    linear = [m for m in network.classifier if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [512, 256, 128, 64, 3]
    assert linear[0].in_features == 256
    with pytest.raises(SgmftError, match="classifier_widths"):
        WordAverageConfig(3, 3, 1280, classifier_widths=[4, 0])
