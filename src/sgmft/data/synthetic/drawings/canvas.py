"""A small drawing board: shapes in units of the picture's height, colours by hue."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, ...]

Point = tuple[float, float]

T = TypeVar("T")


def shade(color: Color, factor: float) -> Color:
    """Return `color` made darker (factor < 1) or lighter (factor > 1); alpha stays."""
    if factor <= 1:
        rgb = tuple(round(value * factor) for value in color[:3])
    else:
        rgb = tuple(round(255 - (255 - value) / factor) for value in color[:3])
    return rgb + tuple(color[3:])


def mix(first: Point, second: Point, t: float) -> Point:
    """Return the point a share `t` of the way from `first` to `second`."""
    return first[0] + (second[0] - first[0]) * t, first[1] + (second[1] - first[1]) * t


@cache
def _spot() -> Image.Image:
    """Return a soft round mask: 255 in the middle, 0 from the inscribed circle on."""
    fall = [max(0, round(255 - 255 * value / 180)) for value in range(256)]
    return Image.radial_gradient("L").point(fall).resize((128, 128))


class Canvas:
    """An RGB picture whose x runs from 0 to `w` and y from 0 (top) to 1, with its own rng.

    Attributes:
        w: width divided by height.
        rng: every random choice of the picture comes from here.
        image: the picture itself, `pixels` high.
    """

    def __init__(self, rng: np.random.Generator, width: float, pixels: int = 384) -> None:
        self.rng = rng
        self.w = width
        self.pixels = pixels
        self.image = Image.new("RGB", (round(width * pixels), pixels))
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def between(self, low: float, high: float) -> float:
        """Return a random number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """Return a random whole number from `low` to `high`, both possible."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        """Return True with probability `share`."""
        return bool(self.rng.random() < share)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of `options`."""
        return options[int(self.rng.integers(len(options)))]

    def tone(self, hue: float, saturation: float, value: float, spread: float = 0.05) -> Color:
        """Return a colour near the given hue, saturation and value (each 0 to 1)."""
        hue += self.between(-spread, spread)
        saturation += self.between(-2 * spread, 2 * spread)
        value += self.between(-2 * spread, 2 * spread)
        rgb = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
        return tuple(round(255 * part) for part in rgb)

    def paint(self, saturation: float = 0.6, value: float = 0.8) -> Color:
        """Return a colour of any hue."""
        return self.tone(self.between(0, 1), saturation, value)

    def wood(self) -> Color:
        """Return a brown, from pale beech to dark walnut."""
        return self.tone(0.08, self.between(0.35, 0.6), self.between(0.4, 0.85), 0.02)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0.0
    ) -> None:
        """Fill a rectangle, its corners rounded by `radius`."""
        left, right = sorted((x0 * self.pixels, x1 * self.pixels))
        top, bottom = sorted((y0 * self.pixels, y1 * self.pixels))
        corner = min(radius * self.pixels, (right - left) / 2, (bottom - top) / 2)
        if corner >= 1:
            self._draw.rounded_rectangle((left, top, right, bottom), corner, fill=fill)
        else:
            self._draw.rectangle((left, top, right, bottom), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        """Fill an ellipse round (x, y)."""
        p = self.pixels
        self._draw.ellipse(((x - rx) * p, (y - ry) * p, (x + rx) * p, (y + ry) * p), fill=fill)

    def poly(self, points: Sequence[Point], fill: Color) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * self.pixels, y * self.pixels) for x, y in points], fill=fill)

    def line(self, points: Sequence[Point], fill: Color, width: float = 0.006) -> None:
        """Draw a line through `points`."""
        scaled = [(x * self.pixels, y * self.pixels) for x, y in points]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * self.pixels)), joint="curve")

    def fade(self, x0: float, y0: float, x1: float, y1: float, top: Color, bottom: Color) -> None:
        """Fill a rectangle that goes from the colour `top` to the colour `bottom`."""
        p = self.pixels
        size = max(1, round((x1 - x0) * p) + 1), max(1, round((y1 - y0) * p) + 1)
        steps = np.linspace(0, 1, size[1])[:, None]
        column = np.array(top[:3]) * (1 - steps) + np.array(bottom[:3]) * steps
        strip = Image.fromarray(column.round().astype(np.uint8)[:, None])
        self.image.paste(
            strip.resize(size, Image.Resampling.NEAREST), (round(x0 * p), round(y0 * p))
        )

    def glow(
        self, x: float, y: float, rx: float, ry: float, color: Color, strength: float = 0.6
    ) -> None:
        """Lay a soft spot of `color` over the picture: a light, or a shadow when it is dark."""
        p = self.pixels
        size = max(2, round(2 * rx * p)), max(2, round(2 * ry * p))
        mask = _spot().resize(size, Image.Resampling.BILINEAR)
        mask = mask.point([round(value * strength) for value in range(256)])
        self.image.paste(color[:3], (round((x - rx) * p), round((y - ry) * p)), mask)

    def shadow(self, x: float, y: float, rx: float, ry: float, strength: float = 0.5) -> None:
        """Darken a soft oval."""
        self.glow(x, y, rx, ry, (20, 16, 20), strength)
