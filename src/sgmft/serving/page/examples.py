"""Posts to try the page with: our own words, and pictures that the sample generator draws."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgmft.data.synthetic.scenes import draw_scene


class Example(NamedTuple):
    """A post, and which places its pictures show."""

    text: str
    places: tuple[str, ...]


EXAMPLES = (
    Example("和闺蜜来看新片，灯一黑，爆米花先吃完了", ("Cinema",)),
    Example("Two more exams and a group project, the blackboard is full again", ("School",) * 2),
    Example("毛肚涮八秒刚刚好，老板又送了一盘小菜，下次还来", ()),
    Example("", ("Travel",)),
)


def draw_examples(folder: Path) -> list[list[str]]:
    """Draw the pictures of each example into a folder; their paths."""
    paths: list[list[str]] = []
    for number, example in enumerate(EXAMPLES):
        paths.append([])
        for i, place in enumerate(example.places):
            path = folder / f"{place.lower()}-{i + 1}.jpg"
            draw_scene(np.random.default_rng((7, number, i)), place, 0.1).save(path, quality=88)
            paths[-1].append(str(path))
    return paths
