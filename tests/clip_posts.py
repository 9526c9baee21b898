"""Tiny checkpoints, one of them a Chinese-CLIP without dropout, and posts for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgmft.data.posts import Post

TEXTS = {"Home": "在家里看书", "School": "学校里上课", "Work": "去公司开会 work"}
COLOURS = {"Home": (200, 60, 60), "School": (60, 200, 60), "Work": (60, 60, 200)}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its folder."""
    from tiny_clip import save_tiny_clip  # transformers take seconds: only who needs them waits

    return str(save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", dropout=0.0))


class Checkpoints(dict[str, Path]):
    """Folders of the checkpoints of other libraries' families, each made when it is asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, family: str) -> Path:
        from library_checkpoints import save_checkpoint

        return self.setdefault(family, save_checkpoint(family, self._root / family))


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The tiny checkpoints of a session, to be read and copied only."""
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def clip_posts(tmp_path_factory: pytest.TempPathFactory) -> list[Post]:
    """36 posts of three labels: some without a text, some with no picture, some with two."""
    folder, rng, posts = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for i in range(36):
        label = list(TEXTS)[i % 3]
        files = [folder / f"{i} {k}.png" for k in range((1, 1, 0, 2)[i % 4])]
        for file in files:
            noise = rng.integers(-55, 55, (40, 40, 3)) + np.array(COLOURS[label])
            Image.fromarray(noise.astype(np.uint8)).save(file)
        text = "" if i in (0, 9, 27) else TEXTS[label][: 3 + i % 5] + "的" * (i % 7)
        posts.append(Post(text, files, id=str(i), label=label))
    return posts


def write_table(path: Path, posts: list[Post]) -> Path:
    """Their table in JSON Lines."""
    names = ("id", "text", "label")
    rows = [{x: getattr(p, x) for x in names} | {"images": [*map(str, p.images)]} for p in posts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
