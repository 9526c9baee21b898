"""A tiny Chinese-CLIP checkpoint and its encoder, with texts and pictures to encode."""

from pathlib import Path

import numpy as np
import pytest

from image_files import quarters, scene
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder
from tiny_clip import save_tiny_clip

TEXTS = [
    "今天在家看书",
    "Working 在学校",
    "好",
    "我们去电影院看电影，人真多！",
    "home",
    "魑魅魍魉",
    "北京 2020 旅游 #美食#",
]
SIZE, PATCHES, WIDTH = 84, 6, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(str(folder), dtype="float32", batch_size=3)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    drawn = [np.asarray(picture((SIZE, SIZE))) for picture in (scene, quarters)]
    return np.stack([*drawn, noise, np.full_like(noise, 90), noise[::-1], drawn[0][:, ::-1]])


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
