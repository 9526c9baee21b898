"""Pictures of places, drawn and then spoiled the way a telephone spoils them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from sgmft.data.synthetic.drawings import (
    cinema,
    home,
    restaurant,
    school,
    shopping,
    travel,
    unrelated,
    work,
)
from sgmft.data.synthetic.drawings.canvas import Canvas
from sgmft.data.synthetic.drawings.props import bag, books, cup, person, plant

Drawing = Callable[[Canvas], None]

PLACES: Mapping[str, Sequence[Drawing]] = {
    "Home": (home.living_room, home.bedroom, home.home_corner),
    "School": (school.classroom, school.notebook, school.campus),
    "Work": (work.office_desk, work.cubicles, work.meeting),
    "Shopping Center": (shopping.aisle, shopping.shelf, shopping.mall),
    "Cinema": (cinema.hall, cinema.popcorn, cinema.foyer),
    "Travel": (travel.mountains, travel.beach, travel.cabin, travel.landmark),
    "Restaurant": (restaurant.spread, restaurant.noodles, restaurant.dining_room),
}

UNRELATED: Sequence[Drawing] = (
    unrelated.pattern,
    unrelated.portrait,
    unrelated.cat,
    unrelated.clouds,
    unrelated.panel,
    unrelated.flower,
)

SHAPES = (
    (320, 240),
    (320, 240),
    (320, 240),
    (240, 320),
    (256, 256),
    (336, 189),
    (300, 200),
    (360, 270),
)


def draw_scene(rng: np.random.Generator, place: str | None, noise: float) -> Image.Image:
    """Draw one RGB picture.

    Args:
        rng: decides everything about the picture.
        place: one of the seven places; None for a picture that tells no place.
        noise: 0 (tidy, level, evenly lit) to 1 (cluttered, tilted, blurred, badly lit, too close).
    """
    width, height = SHAPES[int(rng.integers(len(SHAPES)))]
    canvas = Canvas(rng, width / height)
    canvas.pick(UNRELATED if place is None else PLACES[place])(canvas)
    _clutter(canvas, noise)
    return _photograph(canvas, (width, height), noise)


def _clutter(c: Canvas, noise: float) -> None:
    """Put things that belong elsewhere, passers-by and fingers in front of the scene."""
    for thing in (cup, plant, bag):
        if c.chance(noise * 0.5):
            thing(c, c.w * c.between(0.05, 0.95), c.between(0.85, 1.0), c.between(0.12, 0.28))
    if c.chance(noise * 0.4):
        books(c, c.w * c.between(0.1, 0.9), 0.99, c.between(0.15, 0.3), c.count(1, 4))
    if c.chance(noise * 0.7):
        person(c, c.w * c.between(0.1, 0.9), c.between(0.75, 0.95), c.between(0.1, 0.24))
    if c.chance(noise * 0.5):
        reach = c.between(0.15, 0.3)
        c.oval(c.w * c.pick([0.0, 1.0]), c.pick([0.0, 1.0]), reach, reach, c.tone(0.05, 0.4, 0.8))
    if c.chance(noise * 0.5):
        _sticker(c, c.w * c.between(0.15, 0.85), c.between(0.15, 0.85), c.between(0.08, 0.16))
    if c.chance(noise):
        for step in range(7):
            left = c.w - 0.24 + step * 0.028
            c.box(left, 0.945, left + 0.02, 0.97, (255, 255, 255, 170))


def _sticker(c: Canvas, x: float, y: float, r: float) -> None:
    """Stick a smiling face on the picture, as posters do to hide somebody."""
    c.oval(x, y, r, r, (255, 206, 60))
    for side in (-0.35, 0.35):
        c.oval(x + side * r, y - r * 0.2, r * 0.12, r * 0.18, (70, 50, 30))
    c.line(
        [(x - r * 0.45, y + r * 0.3), (x, y + r * 0.55), (x + r * 0.45, y + r * 0.3)], (70, 50, 30)
    )


def _photograph(c: Canvas, size: tuple[int, int], noise: float) -> Image.Image:
    """Frame, light and degrade the drawing; return it at `size` (width, height in pixels)."""
    if c.chance(noise * 0.6):
        _zoom(c)
    wide, high = c.image.size
    slack = 0.02 + 0.16 * noise
    corners = c.rng.uniform(0, slack, 8)
    tilt = c.between(-0.03, 0.03) * (1 + 4 * noise)
    quad = (
        corners[0] * wide, (corners[1] + max(tilt, 0)) * high,
        corners[2] * wide, (1 - corners[3] - max(-tilt, 0)) * high,
        (1 - corners[4]) * wide, (1 - corners[5] - max(tilt, 0)) * high,
        (1 - corners[6]) * wide, (corners[7] + max(-tilt, 0)) * high,
    )  # fmt: skip
    picture = c.image.transform(size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)
    if c.chance(0.5):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if c.chance(noise * 0.7):
        picture = picture.filter(ImageFilter.BoxBlur(c.between(0.5, 1 + 2 * noise)))
    return Image.fromarray(_light(c, np.asarray(picture, np.float32), noise))


def _zoom(c: Canvas) -> None:
    """Keep only a part of the drawing, as when somebody stood too close."""
    wide, high = c.image.size
    share = c.between(0.4, 0.65)
    left, top = c.between(0, 1 - share) * wide, c.between(0, 1 - share) * high
    c.image = c.image.crop((int(left), int(top), int(left + share * wide), int(top + share * high)))


def _light(c: Canvas, pixels: np.ndarray, noise: float) -> np.ndarray:
    """Apply exposure, a gradient of light, vignetting, a colour cast, contrast and grain."""
    high, wide = pixels.shape[:2]
    y, x = (
        np.linspace(-1, 1, high, dtype=np.float32)[:, None],
        np.linspace(-1, 1, wide, dtype=np.float32),
    )
    exposure = 1 + c.between(-0.12, 0.12) + noise * c.between(-0.6, 0.5)
    slope = 0.1 + 0.35 * noise
    gain = exposure * (1 + c.between(-slope, slope) * x + c.between(-slope, slope) * y)
    gain = gain * (1 - c.between(0.0, 0.2) * (x * x + y * y))
    cast = 1 + c.rng.uniform(-1, 1, 3) * (0.03 + 0.2 * noise)
    contrast = 1 + c.between(-1, 1) * (0.05 + 0.4 * noise)
    lit = (pixels * gain[..., None] * cast.astype(np.float32) - 128) * contrast + 128
    grain = c.rng.standard_normal((high, wide, 1), dtype=np.float32)
    lit += grain * c.between(1, 3 + 25 * noise)
    return lit.clip(0, 255).astype(np.uint8)
