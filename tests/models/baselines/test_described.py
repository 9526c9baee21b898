"""Labels described in words: cosines and ConSE against slow loops, standardising, save and load."""

import math

import numpy as np
import pytest

from sgmft import Post, SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.features import Batch
from sgmft.models.baselines.zero_shot import PRIOR, Described, DescribedConfig, parse_descriptions

N, K, D, G, C, W = 9, 3, 4, 2, 6, 5


def posts(width=G * W):
    has_text, has_image = np.arange(N) % 3 != 0, np.arange(N) % 4 != 0
    return Batch(normal(N, D + 2), normal(N, width, seed=1), has_text, has_image)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def made(**settings):
    values = {"heads": G, "picture_classes": C, "top": 3, "word_width": D} | settings
    network = Described(DescribedConfig(K, D + 2, G * W, **values))
    network.prompts = unit(normal(K, D, seed=2))
    if network.config.heads:
        network.names = unit(normal(C, D, seed=3))
        network.weight, network.bias = normal(G, C, W, seed=4), normal(G, C, seed=5)
    network.refer(normal(50, D, seed=6))
    return network


def logits(network, batch):
    return network.predict(batch).logits


def slow_picture(network, image):
    """ConSE, one post, one classifier and one class at a time."""
    probs = [0.0] * C
    for g in range(G):
        logits = [
            sum(float(network.weight[g, c, w] * image[g * W + w]) for w in range(W))
            + float(network.bias[g, c])
            for c in range(C)
        ]
        total = sum(math.exp(x) for x in logits)
        for c in range(C):
            probs[c] += math.exp(logits[c]) / total / G
    best = sorted(range(C), key=lambda c: -probs[c])[: network.config.top]
    vector = [sum(probs[c] * float(network.names[c, d]) for c in best) for d in range(D)]
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def slow_logits(network, batch, seen):
    """Cosines standardised by the posts `seen` and the reference, one side after another."""
    scores = np.zeros((N, K))
    image = np.array([slow_picture(network, row) for row in batch.image])
    sides = [(unit(batch.text[:, :D]), batch.has_text), (image, batch.has_image)]
    reference = unit(normal(50, D, seed=6)) @ network.prompts.T
    for vectors, has in sides:
        cosines = vectors @ network.prompts.T
        for k in range(K):
            rows = [float(cosines[i, k]) for i in seen if has[i]]
            rows = rows if len(rows) > 1 else []
            weights = [1.0] * len(rows) + [PRIOR / 50] * 50
            values = rows + reference[:, k].tolist()
            mean = np.average(values, weights=weights)
            deviation = math.sqrt(np.average((np.array(values) - mean) ** 2, weights=weights))
            for i in range(N):
                if has[i]:
                    scores[i, k] += (float(cosines[i, k]) - mean) / deviation
    return scores


@pytest.mark.parametrize("top", [1, 3, 10])
def test_a_picture_is_the_mean_of_the_names_it_may_be(top):
    network, image = made(top=top), posts().image
    expected = [slow_picture(network, row) for row in image]
    np.testing.assert_allclose(network.image_vectors(image), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seen", [[], [4], [2, 3, 5], list(range(N))])
def test_logits_are_standardised_cosines(seen):
    network, batch = made(), posts()
    if seen:
        network.adapt(Batch(*(x[seen] for x in batch[:4])))
    expected = slow_logits(network, batch, seen)
    np.testing.assert_allclose(logits(network, batch), expected, atol=1e-5, rtol=1e-5)


def test_adapting_in_parts_is_adapting_at_once():
    whole, parts, batch = made(), made(), posts()
    whole.adapt(batch)
    for rows in np.array_split(np.arange(N), 5):
        parts.adapt(Batch(*(x[rows] for x in batch[:4])))
    np.testing.assert_allclose(logits(whole, batch), logits(parts, batch), atol=1e-7)


def test_a_missing_side_adds_nothing_and_is_never_read():
    network, batch = made(), posts()
    network.adapt(batch)
    dirty = batch._replace(text=batch.text.copy(), image=batch.image.copy())
    dirty.text[~batch.has_text], dirty.image[~batch.has_image] = float("nan"), float("nan")
    again = made()
    again.adapt(dirty)
    assert np.array_equal(logits(again, dirty), logits(network, batch))
    none = ~batch.has_text & ~batch.has_image
    assert none.any() and (logits(network, batch)[none] == 0).all()


def test_pictures_in_a_shared_space_and_in_none():
    shared = Described(DescribedConfig(K, D, D, shared_space=True))
    shared.prompts = unit(normal(K, D, seed=2))
    shared.refer(normal(50, D, seed=6))
    pair = posts(D)._replace(text=normal(N, D))
    swapped = pair._replace(
        text=pair.image, image=pair.text, has_text=pair.has_image, has_image=pair.has_text
    )
    np.testing.assert_allclose(logits(shared, pair), logits(shared, swapped), atol=2e-7)
    assert (logits(shared, pair)[~pair.has_text & pair.has_image] != 0).all()
    assert not made(heads=0, picture_classes=0).config.reads_images
    alone, batch = made(heads=0, picture_classes=0), posts()
    assert (logits(alone, batch)[~batch.has_text] == 0).all()


def test_settings_are_checked_and_nothing_is_trained(tiny, small_posts):
    with pytest.raises(SgmftError, match="scale_factor must be positive"):
        DescribedConfig(K, D, D, scale_factor=0.0)
    with pytest.raises(SgmftError, match="top must be at least 1"):
        DescribedConfig(K, D, D, top=0)
    with pytest.raises(SgmftError, match="need no training"):
        SemanticLocator("tiny", method="described").fit(small_posts)


PLACES = {"Home": ["sofa bed", "kitchen"], "School": ["teacher desk"], "Work": ["boss office"]}


def test_descriptions_find_places_and_are_kept(tiny, small_posts, tmp_path):
    locator = SemanticLocator.zero_shot(PLACES, "tiny").adapt(small_posts)
    told = [post for post in small_posts if post.text]
    right = [locator.predict([post])[0] == post.label for post in told]
    assert np.mean(right) > 0.9 and locator.labels == list(PLACES)
    locator.save_pretrained(tmp_path / "m")
    again = SemanticLocator.from_pretrained(tmp_path / "m")
    assert again.labels == locator.labels and again.training.to_config()["descriptions"] == PLACES
    np.testing.assert_array_equal(
        again.predict_proba(small_posts), locator.predict_proba(small_posts)
    )
    assert (tmp_path / "m" / "README.md").is_file()


def test_one_post_alone(tiny):
    post = [Post("teacher desk")]
    locator = SemanticLocator.zero_shot(PLACES, "tiny")
    assert locator.predict(post) == locator.adapt(post).predict(post) == ["School"]


def test_only_a_zero_shot_locator_adapts(small_model, small_posts):
    with pytest.raises(SgmftError, match="Only a zero-shot locator adapts"):
        small_model.adapt(small_posts)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"Home": ["sofa"]}, "two labels"),
        ({"Home": [], "Work": ["boss"]}, "has no words to describe it"),
        ({"Home": "sofa", "Work": "boss"}, "give a list"),
    ],
)
def test_labels_without_lists_of_words_are_refused(tiny, wrong, told):
    with pytest.raises(SgmftError, match=told):
        SemanticLocator.zero_shot(wrong, "tiny")


def test_how_descriptions_are_written():
    assert parse_descriptions(" 家=在家里| 沙发 ;学校＝上课｜考试；其他;") == {
        "家": ["在家里", "沙发"],
        "学校": ["上课", "考试"],
        "其他": ["其他"],
    }
    assert parse_descriptions("a=b=c;d") == {"a": ["b=c"], "d": ["d"]}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("a=;b", "'a=' lacks"), ("=x;b", "'=x' lacks"), ("a=|;b", "lacks"), ("a;a=b", "'a' twice")],
)
def test_how_they_are_not(wrong, told):
    with pytest.raises(SgmftError, match=told):
        parse_descriptions(wrong)
