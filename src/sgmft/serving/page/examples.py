"""Posts to try the page with: our own words, and pictures that the sample generator draws."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgmft.data.synthetic.scenes import draw_scene


class PageExample(NamedTuple):
    """A post, and the places that its pictures show."""

    text: str
    places: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """Names of its pictures."""
        return [f"{place.lower()}-{i}.jpg" for i, place in enumerate(self.places, 1)]


EXAMPLES = (
    PageExample("和闺蜜来看新片，灯一黑，爆米花先吃完了", ("Cinema",)),
    PageExample(
        "Two more exams and a group project, the blackboard is full again", ("School",) * 2
    ),
    PageExample("毛肚涮八秒刚刚好，老板又送了一盘小菜，下次还来", ()),
    PageExample("", ("Travel",)),
)


def draw_examples(folder: Path) -> None:
    """Draw the pictures of the examples into a new folder."""
    folder.mkdir()
    for number, example in enumerate(EXAMPLES):
        for i, (place, name) in enumerate(zip(example.places, example.files, strict=True)):
            draw_scene(np.random.default_rng((7, number, i)), place, 0.1).save(
                folder / name, quality=88
            )
