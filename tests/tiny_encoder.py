"""An encoder for tests."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np


class TinyEncoder:
    """An encoder of sixteen numbers that costs nothing: words by their digest, pictures by colour.

    A post's features never depend on the posts beside it. `patch_grid` must divide 8.
    """

    def __init__(
        self, cleaning: str = "light", *, patch_grid: int = 2, device: str | None = None
    ) -> None:
        from sgmft.features.encoders.base import EncoderInfo

        self.patch_grid = patch_grid
        digest = hashlib.sha256(f"tiny {cleaning} {patch_grid}".encode()).hexdigest()[:16]
        key = f"tiny {patch_grid}"
        self.info = EncoderInfo("tiny", digest, 16, 12, False, None, 8, cleaning, key)

    def encode_texts(self, texts: list[str], tokens: bool) -> Any:
        from sgmft.features.encoders.base import Encoded

        rows = [np.stack([_vector(word) for word in text.split()]) for text in texts]
        pooled = np.stack([row.mean(0) for row in rows]) if rows else np.zeros((0, 16), np.float32)
        return Encoded(pooled, rows if tokens else None)

    def encode_images(self, pictures: Any, tokens: bool) -> Any:
        from sgmft.features.encoders.base import Encoded

        pooled = _squares(pictures, 2).reshape(-1, 12)  # four quarters of three colours
        grid = np.tile(_squares(pictures, self.patch_grid), 4)  # a square's colours four times
        return Encoded(pooled, list(grid) if tokens else None)


class JointTinyEncoder(TinyEncoder):
    """The same, and all products of a text's numbers with the mean of its pictures'."""

    def __init__(self, cleaning: str = "light", **settings: Any) -> None:
        super().__init__(cleaning, **settings)
        self.info = replace(self.info, fingerprint=self.info.fingerprint[::-1], joint_width=192)

    def encode_joint(self, texts: Any, images: Any) -> Any:
        text = self.encode_texts(texts, False).pooled
        image = [self.encode_images(np.stack(some), False).pooled.mean(0) for some in images]
        return np.einsum("na,nb->nab", text, image).reshape(-1, 192)


def _squares(pictures: Any, grid: int) -> np.ndarray[Any, Any]:
    """Mean colours of the squares of pictures (N, 8, 8, 3), around zero: (N, grid², 3)."""
    edge = 8 // grid
    squares = pictures.astype(np.float32).reshape(-1, grid, edge, grid, edge, 3).mean((2, 4))
    return squares.reshape(-1, grid * grid, 3) / 255 - 0.5


def _vector(word: str) -> np.ndarray[Any, Any]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(16).astype(np.float32)
