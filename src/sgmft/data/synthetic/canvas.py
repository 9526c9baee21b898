"""A small drawing board: shapes in units of the picture's height, colours by hue."""

import colorsys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, ...]
Point = tuple[float, float]
T = TypeVar("T")
HIGH = 384  # pixels


def shade(color: Color, factor: float) -> Color:
    """Return `color` made darker (factor < 1) or lighter (factor > 1)."""
    if factor > 1:
        return tuple(round(255 - (255 - value) / factor) for value in color)
    return tuple(round(value * factor) for value in color)


class Canvas:
    """An RGB picture whose x runs from 0 to `w` and y from 0 (top) to 1, with its own generator.

    Attributes:
        w: width divided by height.
        rng: every random choice of the picture comes from here.
        image: the picture itself.
    """

    def __init__(self, rng: np.random.Generator, width: float) -> None:
        self.rng = rng
        self.w = width
        self.image = Image.new("RGB", (round(width * HIGH), HIGH))
        self._draw = ImageDraw.Draw(self.image)

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
        near = np.array([hue, saturation, value]) + self.rng.uniform(-1, 1, 3) * spread * (1, 2, 2)
        rgb = colorsys.hsv_to_rgb(near[0] % 1, *near[1:].clip(0, 1))
        return tuple(round(255 * part) for part in rgb)

    def paint(self, saturation: float = 0.6, value: float = 0.8) -> Color:
        """Return a colour of any hue."""
        return self.tone(self.between(0, 1), saturation, value)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0.0
    ) -> None:
        """Fill a rectangle, its corners rounded by `radius`."""
        corners = self._scale([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle(corners, radius * HIGH, fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        """Fill an ellipse round (x, y)."""
        self._draw.ellipse(self._scale([(x - rx, y - ry), (x + rx, y + ry)]), fill)

    def poly(self, points: Iterable[Point], fill: Color) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._scale(points), fill)

    def line(self, points: Iterable[Point], fill: Color, width: float = 0.008) -> None:
        """Draw a line through `points`."""
        self._draw.line(self._scale(points), fill, round(width * HIGH), joint="curve")

    def fade(self, y0: float, y1: float, top: Color, bottom: Color) -> None:
        """Fill the full width between two heights, from the colour `top` to the colour `bottom`."""
        for row in range(round(y0 * HIGH), round(y1 * HIGH)):
            t = (row / HIGH - y0) / (y1 - y0)
            mixed = tuple(round(a + (b - a) * t) for a, b in zip(top, bottom, strict=True))
            self._draw.line([(0, row), (self.image.width, row)], mixed)

    def glow(
        self, x: float, y: float, rx: float, ry: float, color: Color, strength: float = 0.6
    ) -> None:
        """Lay a soft spot of `color` over the picture: a light, or a shadow when it is dark."""
        (left, top), (right, bottom) = self._scale([(x - rx, y - ry), (x + rx, y + ry)])
        fall = [round(strength * max(0, 255 - value * 255 / 180)) for value in range(256)]
        spot = Image.radial_gradient("L").point(fall)  # 180 is on the circle inside the square
        size = max(1, int(right - left)), max(1, int(bottom - top))
        self.image.paste(color, (int(left), int(top)), spot.resize(size))

    def _scale(self, points: Iterable[Point]) -> list[Point]:
        return [(x * HIGH, y * HIGH) for x, y in points]
