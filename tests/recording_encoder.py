"""An encoder that remembers what it was given, and posts good and bad to give it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from image_files import encoded, plain, quarters, scene, truncated
from sgmft.data.posts import Post
from sgmft.features.encode import MAX_IMAGES, Chunk
from sgmft.features.encoders.base import Encoded, EncoderInfo, PostFeatures

TEXT, WORD, IMAGE, SIZE = 8, 5, 6, 32


class RecordingEncoder:
    """Features are random numbers seeded by the content; remembers what it was given."""

    def __init__(self, fingerprint: str = "c" * 16, cleaning: str = "paper") -> None:
        self.info = EncoderInfo(
            "counting", fingerprint, TEXT, IMAGE, False, None, SIZE, cleaning, word_width=WORD
        )
        self.texts: list[str] = []
        self.pictures: list[bytes] = []

    def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
        assert all(texts), "an empty text must not reach an encoder"
        self.texts += texts
        rows = [self._rng(text.encode()) for text in texts]
        pooled = np.array([rng.normal(size=TEXT) for rng in rows], np.float32)
        words = [
            rng.normal(size=(len(text), WORD)).astype(np.float32)
            for text, rng in zip(texts, rows, strict=True)
        ]
        return Encoded(pooled.reshape(-1, TEXT), words if tokens else None)

    def encode_images(self, pictures: np.ndarray, tokens: bool) -> Encoded:
        assert pictures.shape[1:] == (SIZE, SIZE, 3) and pictures.dtype == np.uint8
        self.pictures += [picture.tobytes() for picture in pictures]
        rows = [self._rng(picture.tobytes()) for picture in pictures]
        pooled = np.array([rng.normal(size=IMAGE) for rng in rows], np.float32)
        regions = [rng.normal(size=(4, IMAGE)).astype(np.float32) for rng in rows]
        return Encoded(pooled.reshape(-1, IMAGE), regions if tokens else None)

    @staticmethod
    def _rng(content: bytes) -> np.random.Generator:
        return np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest()[:8]))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {
        "red.png": encoded(plain()),
        "quarters.png": encoded(quarters()),
        "scene.jpg": encoded(scene((60, 40)), "JPEG"),
        "cut.jpg": truncated(),
        "empty.jpg": b"",
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in (*made, "missing.jpg")}


@pytest.fixture
def posts(files: dict[str, Path]) -> list[Post]:
    red, four, photo = files["red.png"], files["quarters.png"], files["scene.jpg"]
    return [
        Post("在家看书", [red], id="both"),
        Post("学校上课", id="text"),
        Post("", [photo], id="picture"),
        Post("在家", [files["missing.jpg"]], id="missing"),
        Post("在家", [red, files["cut.jpg"]], id="cut"),
        Post("😂😂", id="emoji"),
        Post("😂😂", [four], id="emoji with a picture"),
        Post("多图", [red] * (MAX_IMAGES + 1), id="many"),
        Post("在家看书", [red], id="both again"),
        Post("电影院", [red, four, photo], id="three"),
        Post("电影院", [four, red, photo], id="three, other order"),
        Post("坏行", error="row 7 has no columns", id="carried"),
        Post("在家", [files["empty.jpg"]], id="empty"),
        Post("", id="nothing"),
        Post("满员", [red] * MAX_IMAGES, id="just enough"),
    ]


def by_id(chunks: list[Chunk]) -> dict[str, PostFeatures]:
    return {
        str(chunk.posts[i].id): row
        for chunk in chunks
        for i, row in zip(chunk.good, chunk.rows, strict=True)
    }


def equal_features(a: PostFeatures, b: PostFeatures) -> bool:
    return all(
        x is y is None
        if x is None or y is None
        else x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(a, b, strict=True)
    )
