"""Predictions for long texts: pooled over windows by what each one alone tells."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from image_files import encoded, plain
from sgmft import Post, SemanticLocator
from sgmft.data.preprocessing.text import get_cleaning, split_windows
from sgmft.features.encode import Chunk
from sgmft.locator.prediction import PredictionBatch, pool_windows

FILLER = "昨天和老朋友聊了很多以前的事情，关于选择，关于远方，关于我们各自的生活。"
PLACES = {
    "Cinema": "电影院 看电影 爆米花 散场 影片 银幕 首映 票房",
    "School": "学校 上课 老师 同学 考试 教室 作业 毕业",
    "Restaurant": "餐厅 火锅 点菜 好吃 服务员 菜单 烤肉 晚餐",
}
CUES = {
    "Cinema": "散场以后我们从电影院走出来，爆米花还剩半桶。",
    "School": "老师在教室里上课，同学们都在准备考试。",
    "Restaurant": "这家餐厅的火锅真好吃，烤肉也不错。",
}


def slow_pool(alone: np.ndarray, own: np.ndarray) -> np.ndarray:
    weights = [math.exp(6 * sum(p * math.log(p) for p in map(float, row))) for row in alone]
    mean = [
        sum(w * math.log(float(p)) for w, p in zip(weights, column, strict=True)) / sum(weights)
        for column in own.T
    ]
    return np.exp(mean) / np.exp(mean).sum()


def test_pooling_against_a_slow_loop() -> None:
    probs = np.random.default_rng(0).dirichlet([0.5] * 4, 17).clip(1e-4).astype(np.float32)
    guidance = np.arange(34, dtype=np.float32).reshape(17, 2)
    # One window; three and four, each with the images and without; one; one.
    chunk = Chunk([Post("")] * 5, [0, 1, 2, 3, 4], ["k"] * 5, [], [0, 3, 4, 0, 0])
    parts = np.arange(17, dtype=np.int8)
    _, found, guided, kinds = pool_windows(PredictionBatch(chunk, probs, guidance, parts))
    assert kinds.tolist() == [0, 1, 7, 15, 16]
    assert found.dtype == guided.dtype == np.float32 and found.shape == (5, 4)
    for row, original in ((0, 0), (3, 15), (4, 16)):
        assert np.array_equal(found[row], probs[original])
        assert np.array_equal(guided[row], guidance[original])
    np.testing.assert_allclose(found[1], slow_pool(probs[4:7], probs[1:4]), rtol=1e-4)
    np.testing.assert_allclose(found[2], slow_pool(probs[11:15], probs[7:11]), rtol=1e-4)
    assert guidance[7].min() < guided[2].min() and guided[2].max() < guidance[10].max()
    none = np.full((17, 2), np.nan, np.float32)
    assert np.isnan(pool_windows(PredictionBatch(chunk, probs, none, parts)).guidance).all()
    short = PredictionBatch(Chunk([], [], [], [], [0, 0]), probs, none, parts)
    assert pool_windows(short) is short


@pytest.fixture(scope="module")
def model() -> SemanticLocator:
    """Trained on texts of three words of a place each."""
    draw, posts = random.Random(0), []
    for label, words in PLACES.items():
        for _ in range(20):
            text = "，".join(draw.sample(words.split(), 3)) + "。"
            posts.append(Post(text, label=label))
    return SemanticLocator().fit(posts)


def test_what_decides_is_found_wherever_it_stands(model: SemanticLocator) -> None:
    for label, text in CUES.items():
        long = [text, FILLER * 2 + text, FILLER * 40 + text, text + FILLER * 40]
        long.append(FILLER * 20 + text + FILLER * 20)
        probs = model.predict_proba([Post(x) for x in long])[:, model.labels.index(label)]
        assert probs[0] > 0.6 and (probs > 0.8 * probs[0]).all(), probs


def test_an_explanation_shows_what_decides(model: SemanticLocator) -> None:
    post = Post(f"{FILLER * 20}{CUES['School']}{FILLER * 20}", id="long")
    found = model.explain(post)
    assert found.predicted == "School" and found.post.id == "long"
    assert CUES["School"] in found.post.text and len(found.post.text) < 100
    assert all(found.post.text[word.start : word.end] for word in found.words)


def test_windows_that_tell_the_same_are_as_one_of_them(
    model: SemanticLocator, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(encoded(plain((255, 0, 0)), "PNG"))
    text = "昨天没睡好。" * 30
    window, *_ = split_windows(text, get_cleaning("light"), model.training.data.window)
    assert len(window) < 15 and not len(text) % len(window)
    for images in ([], [tmp_path / "red.png"]):
        found = model.predict_proba([Post(window, images), Post(text, images)])
        np.testing.assert_allclose(found[1], found[0], atol=1e-4)
