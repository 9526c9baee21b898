"""One synthetic post: its row of the table and its picture files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgmft.data.synthetic import scenes, texts
from sgmft.data.synthetic.plan import Crowd, PostPlan

NO_PICTURE = 0.285  # of the posts whose text tells the place

NO_TEXT = 0.136  # of the posts whose pictures tell it

ELSEWHERE = 0.65  # of the posts whose text tells the place and that have pictures: another place

FORMATS = (("jpg", 0.94), ("png", 0.03), ("webp", 0.02), ("gif", 0.01))


def name(index: int) -> str:
    """Return the identifier of post number `index`."""
    return f"post-{index:05d}"


def row(index: int, plan: PostPlan, text: str, images: list[str]) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "id": name(index),
        "user": plan.user,
        "text": text,
        "images": images,
        "label": plan.label,
        "informative": plan.informative,
        "split": plan.split,
        "synthetic": True,
    }


def write_post(
    folder: Path, index: int, crowd: Crowd, noise: float, several: float
) -> dict[str, Any]:
    """Write the pictures of post number `index` and return its row."""
    plan, rng = crowd.plan(index, noise), crowd.make_rng("text", index)
    silent = plan.informative == "image" and rng.random() < NO_TEXT
    place = None if plan.informative == "image" else plan.label
    text = "" if silent else texts.write(rng, place, plan.sign, noise)
    rng, images = crowd.make_rng("image", index), []
    for number, shown in enumerate(_shown(rng, plan, noise, several)):
        suffix = str(rng.choice([kind for kind, _ in FORMATS], p=[share for _, share in FORMATS]))
        images.append(f"images/{index:05d}_{number}.{suffix}")
        save(scenes.draw_scene(rng, shown, noise), folder / images[-1])
    return row(index, plan, text, images)


def _shown(
    rng: np.random.Generator, plan: PostPlan, noise: float, several: float
) -> list[str | None]:
    """Return what each picture of a post shows: a place, or None for something unrelated."""
    number = int(rng.integers(2, 10)) if rng.random() < several else 1
    if plan.informative == "text":
        if rng.random() < NO_PICTURE:
            return []
        others: list[str | None] = [None]
        if rng.random() < ELSEWHERE:
            others.append(str(rng.choice([place for place in texts.PLACES if place != plan.label])))
        return [others[-1] if rng.random() < 0.7 else None for _ in range(number)]
    shown = [None if rng.random() < noise else plan.label for _ in range(number)]
    shown[int(rng.integers(number))] = plan.label
    return shown


def save(picture: Image.Image, path: Path) -> None:
    """Save a picture in the format its name tells; JPEG and WebP with quality 80."""
    picture.save(path, quality=80)
