"""Zero-shot classification against a loop over cosines."""

import math
from functools import partial

import numpy as np
import pytest

from sgmft.features.encoders.base import Encoded, EncoderInfo
from sgmft.features.features import Batch, Features, LabelledFeatures
from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits
from sgmft.models.baselines.zero_shot import ZeroShot, ZeroShotConfig
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, fit_network

METHOD = get_method("zero-shot")

N, K, D = 12, 3, 6
assert_close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def posts(image_width=D):
    has_text, has_image = np.arange(N) % 3 != 0, np.arange(N) % 4 != 1
    return Batch(3 * normal(N, D), normal(N, image_width, seed=1), has_text, has_image)


def made(shared=True, image_width=D, **settings):
    network = ZeroShot(ZeroShotConfig(K, D, image_width, shared_space=shared, **settings))
    network.prompts = normal(K, D, seed=2)
    return network


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow(batch, prompts, scale, images):
    """One post and one label at a time."""
    rows = []
    for i in range(N):
        sides = [batch.text[i].tolist()] if batch.has_text[i] else []
        if images and batch.has_image[i]:
            sides.append(batch.image[i].tolist())
        cosines = [[cosine(side, prompt) for side in sides] for prompt in prompts.tolist()]
        rows.append([scale * sum(row) / len(row) if row else 0.0 for row in cosines])
    return np.array(rows)


@pytest.mark.parametrize("shared", [False, True])
def test_logits_are_cosines(shared):
    network, batch = made(shared), posts()
    expected = slow(batch, network.prompts, 20.0, images=shared)
    assert_close(network.forward(batch).logits, expected)
    assert len({tuple(row) for row in expected[~batch.has_text].tolist()}) == (4 if shared else 1)


def test_in_a_space_of_two_widths_pictures_are_not_read():
    network, batch = made(image_width=D + 2), posts(D + 2)
    assert_close(network.forward(batch).logits, slow(batch, network.prompts, 20.0, images=False))


def test_of_a_wider_text_feature_its_own_vector_is_compared():
    network, batch = made(shared=False, word_width=D - 2), posts()
    own = batch._replace(text=batch.text[:, : D - 2])
    expected = slow(own, network.prompts[:, : D - 2], 20.0, images=False)
    assert_close(network.forward(batch).logits, expected)


def test_without_a_shared_space_a_post_without_text_gets_equal_logits():
    network, batch = made(shared=False), posts()
    logits = network.forward(batch).logits[~batch.has_text]
    assert len(logits) and (logits == logits[:, :1]).all()
    other = network.forward(batch._replace(image=normal(N, D, seed=9))).logits
    assert np.array_equal(other, network.forward(batch).logits)


@pytest.mark.parametrize("shared", [False, True])
def test_what_stands_under_a_missing_side_is_never_read(shared):
    network, batch = made(shared), posts()
    dirty = batch._replace(text=batch.text.copy(), image=batch.image.copy())
    dirty.text[~dirty.has_text], dirty.image[~dirty.has_image] = math.nan, math.nan
    assert np.array_equal(network.forward(dirty).logits, network.forward(batch).logits)
    assert np.array_equal(network.forward(dirty).fused, network.forward(batch).fused)


def test_the_scale_changes_no_label():
    batch = posts()
    soft, sharp = (made(scale_factor=x).forward(batch) for x in (5.0, 50.0))
    assert_close(sharp.logits, 10 * soft.logits)
    assert np.array_equal(sharp.logits.argmax(-1), soft.logits.argmax(-1))
    assert softmax(sharp.logits).max() > softmax(soft.logits).max()
    assert ZeroShotConfig(K, D, D).scale_factor == 20


def test_nothing_is_learned_from_the_posts_or_their_labels():
    network = made()
    before = network.prompts.copy()
    network.fit(posts(), np.arange(N) % K, np.random.RandomState(0))
    assert list(network.state_dict()) == ["prompts"] and network.parameter_count == 0
    assert np.array_equal(network.prompts, before)


def test_training_fills_the_prompts_and_ignores_the_labels():
    batch = posts()
    rows = Features(*(x.astype(np.float32) for x in batch[:2]), *batch[2:4])
    info = EncoderInfo("made-up", "0" * 16, D, D, True, None, 8, "light")
    prompts = normal(K, D, seed=2).astype(np.float32)
    found = []
    for labels in (np.arange(N) % K, (np.arange(N) + 1) % K):
        data, preset = LabelledFeatures(rows, labels), METHOD.preset()
        task = TrainingTask(data, K, info, METHOD, preset, prompts)
        choice = fit_network(task, [0, 5])
        assert len(choice.history) == 1 and math.isfinite(choice.history[0].val_loss)
        assert np.array_equal(choice.model.prompts, prompts)
        found.append(predict_logits(choice.model, rows).logits)
        assert len(fit_network(task, []).history) == 1
    assert np.array_equal(*found)
    expected = slow(batch, prompts, 20.0, images=True)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


class Scribe:
    """An encoder that writes down what it is asked, and numbers the texts."""

    def encode_texts(self, texts, tokens):
        self.texts = texts
        return Encoded(np.arange(2 * len(texts), dtype=np.float32).reshape(-1, 2), None)


def test_every_label_goes_into_every_prompt():
    scribe, labels = Scribe(), ["Shopping Center", "家", "sports_shoes", "{odd}"]
    encoded = METHOD.encode_prompts(labels, scribe)
    n = len(METHOD.prompts)
    assert 4 <= n <= 6 and all(prompt.count("{}") == 1 for prompt in METHOD.prompts)
    assert len(set(scribe.texts)) == len(labels) * n
    for i, words in enumerate(["Shopping Center", "家", "sports shoes", "{odd}"]):
        asked = scribe.texts[i * n : (i + 1) * n]
        assert asked == [prompt.replace("{}", words) for prompt in METHOD.prompts]
        rows = np.arange(2 * i * n, 2 * (i + 1) * n).reshape(n, 2)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(encoded[i], units.mean(0), rtol=1e-6)
