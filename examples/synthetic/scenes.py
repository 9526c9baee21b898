"""Pictures of places: one scene for each, drawn and then degraded as telephones degrade them."""

import tomllib
from colorsys import hsv_to_rgb
from itertools import product
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, ...]
PLACES = ("Home", "School", "Work", "Shopping Center", "Cinema", "Travel", "Restaurant")
INK, WHITE, GOLD = (40, 38, 46), (247, 246, 242), (255, 220, 140)
SIZES = ((320, 240), (320, 240), (240, 320), (256, 256), (336, 189), (300, 200), (360, 270))
WIDE, HIGH = 480, 360  # pixels of a drawing, of which a picture shows a part
UP = Image.linear_gradient("L").rotate(180)
SPOT = Image.radial_gradient("L").point([max(0, 170 - value) for value in range(256)])
THINGS = tomllib.loads(Path(__file__).with_name("things.toml").read_text("utf-8"))


class _Canvas(ImageDraw.ImageDraw):
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.drawing = rng, Image.new("RGB", (WIDE, HIGH))
        super().__init__(self.drawing)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def color(self, hue: float, saturation: float, value: float) -> Color:
        """Return a colour near these; below 0 is any hue."""
        near = np.array([self.between(0, 1) if hue < 0 else hue, saturation, value])
        near += self.rng.uniform(-1, 1, 3) * (0.03, 0.08, 0.08)
        return tuple(round(255 * x) for x in hsv_to_rgb(near[0] % 1, *near[1:].clip(0, 1)))

    def box(self, x: float, y: float, w: float, h: float, fill: Color, radius: float = 0) -> None:
        """Fill a rectangle with its middle at x, from y downwards."""
        self.rounded_rectangle((x - w / 2, y, x + w / 2, y + h), radius, fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        self.ellipse((x - rx, y - ry, x + rx, y + ry), fill)

    def glow(self, x: float, y: float, rx: float, ry: float, ink: Color, mask: Any = SPOT) -> None:
        """Lay a soft spot over the drawing: a light, or a shadow where the colour is dark."""
        spot = mask.resize((round(2 * rx), round(2 * ry)))
        self.drawing.paste(ink, (round(x - rx), round(y - ry)), spot)

    def fade(self, y0: float, y1: float, top: Color, bottom: Color) -> None:
        self.rectangle((0, y0, WIDE, y1), bottom)
        self.glow(WIDE / 2, (y0 + y1) / 2, WIDE / 2, (y1 - y0) / 2, top, UP)

    def put(self, thing: str, x: float, y: float, size: float, light: float = 1) -> None:
        """Draw a thing of `things.toml` that stands at (x, y); `light` < 1 dims."""
        paints: dict[str, Color] = {}
        for shape in THINGS["things"][thing].strip().split("\n"):
            kind, paint, *numbers = shape.split()
            (name, factor), n = (paint + "*1").split("*")[:2], np.array(numbers, float) * size
            color = paints.get(name) or self.color(*self.pick(*THINGS["colors"][name]))
            paints[name], fill = color, _shade(color, light * float(factor))
            if kind == "box":
                self.box(x + n[0], y + n[1], n[2], n[3], fill, n[4:].sum())
            elif kind == "oval":
                self.oval(x + n[0], y + n[1], n[2], n[3], fill)
            else:
                self.polygon((n.reshape(-1, 2) + np.array([x, y])).ravel().tolist(), fill)


def _shade(color: Color, factor: float) -> Color:
    return tuple(min(255, round(value * factor)) for value in color)


def _room(c: _Canvas, wall: Color, floor: Color) -> float:
    """Draw a wall and a floor of boards; return the y where they meet."""
    y = c.between(202, 238)
    c.fade(0, y, _shade(wall, 1.1), wall)
    c.fade(y, HIGH, _shade(floor, 0.8), floor)
    for step in range(-14, 15):
        c.line((240 + step * 29, y, 240 + step * 130, HIGH), _shade(floor, 0.78), 2)
    c.box(240, y - 7, WIDE, 7, WHITE)
    return y


def _home(c: _Canvas) -> None:
    y = _room(c, c.color(0.1, 0.18, 0.85), c.color(0.08, 0.5, 0.6))
    x, half, lamp = c.between(220, 260), c.between(115, 145), c.pick(-185, 185)
    c.put("window", x, 25, 150)
    c.put("curtains", x, 22, 150)
    c.oval(x, 330, 200, 36, c.color(-1, 0.3, 0.75))
    c.glow(x, y + 97, half * 1.2, 29, INK)
    c.put("sofa", x, y + 90, half)
    c.put("lamp", x + lamp, 295, 165)
    c.glow(x + lamp, 122, 108, 108, GOLD)
    c.put("plant", x - lamp, 317, 115)


def _school(c: _Canvas) -> None:
    y = _room(c, c.color(0.13, 0.12, 0.88), c.color(0.09, 0.35, 0.62))
    c.rectangle((53, 29, 427, 179), c.color(0.42, 0.45, 0.3), c.color(0.08, 0.6, 0.5), 7)
    for line in (60, 88, 116, 144):
        for left in range(90, int(c.between(100, 400)), 36):
            c.box(left, line, c.between(10, 30), 4, WHITE)
    for row in range(3):
        top, size = y + 14 + row * 47, 94 + row * 32
        for seat in np.arange(c.between(-50, 50), WIDE + 50, size):
            if c.pick(True, True, True, False):
                c.put("person", seat, top, size * 0.2)
            c.put("desk", seat, top + 22, size)
            if c.pick(True, False):
                c.put("books", seat + size * 0.25, top + 22, size * 0.24)


def _work(c: _Canvas) -> None:
    c.fade(0, HIGH, c.color(0.58, 0.05, 0.88), c.color(0.58, 0.08, 0.7))
    c.put("window", 240, -10, 430)
    y, desk, number = c.between(238, 260), c.color(0.09, 0.2, 0.8), c.pick(1, 2, 3)
    c.fade(y - 14, HIGH, desk, _shade(desk, 0.8))
    w = min(220, 410 / number)
    for x in 240 + (np.arange(number) - (number - 1) / 2) * 480 / number:
        c.put("monitor", x, y + 14, w)
        chart = c.pick(True, False)
        for i, size in enumerate(c.rng.uniform(0.1, 0.4, 7) * w):  # a chart, or lines of text
            bar = x + w * (i - 3) * 0.12, y + 14 - w * 0.22 - size, w * 0.07, size
            line = x + size - w * 0.42, y + 14 - w * (0.67 - i * 0.064), size * 2, w * 0.03
            c.box(*(bar if chart else line), c.color(c.pick(0.57, 0.4, 0.1, 0.9), 0.6, 0.75))
    x, keys = c.between(190, 290), c.pick((48, 50, 56), (200, 203, 206))
    c.box(x, y + 29, 180, 47, keys, 4)
    for column, row in product(range(-6, 6), range(4)):
        c.box(x + 7 + column * 14, y + 33 + row * 10, 11, 7, _shade(keys, 1.25))
    c.put("cup", x + c.pick(-137, 137), y + 72, 43)
    if c.pick(True, False):
        c.put("person", c.between(140, 340), 310, 65)


def _shop(c: _Canvas) -> None:
    c.fade(0, 144, WHITE, c.color(0.58, 0.05, 0.85))
    c.fade(144, HIGH, c.color(0.1, 0.05, 0.75), c.color(0.1, 0.08, 0.9))
    x = c.between(200, 280)
    for edge, step, low in product((-x, WIDE - x), range(7), range(-94, 200, 72)):
        near, far, high = 1 - step * 0.114, 0.886 - step * 0.114, low - 58
        shelf = x + edge * near, 144 + low * near, x + edge * far, 144 + low * far
        goods = x + edge * far, 144 + high * far, x + edge * near, 144 + high * near
        c.polygon((*shelf, *goods), c.color(-1, 0.65, 0.85))
        c.line(shelf, _shade(WHITE, 0.9), 4)
    c.put("sign", x, 36, 144)
    for size in c.rng.uniform(22, 40, c.pick(1, 2, 3)):
        at = x + c.between(-90, 90)
        c.put("person", at, 151 + size, size)
        c.put("bag", at + size * 1.3, 151 + size * 4.5, size * 1.2)


def _cinema(c: _Canvas) -> None:
    c.fade(0, HIGH, (14, 13, 18), (34, 22, 24))
    w, h, light = c.between(250, 370), c.between(130, 165), c.color(-1, 0.4, 0.9)
    c.glow(240, 108, w, 216, _shade(light, 0.8))
    c.box(240, 22, w + 8, h + 8, WHITE)
    c.box(240, 26, w, h, light)
    c.oval(240 + w * c.between(-0.2, 0.2), 26 + h * 0.4, h * 0.25, h * 0.25, WHITE)
    for dark in (0.75, 0.5):
        peak = 240 + w * c.between(-0.3, 0.3), 26 + h * c.between(0.2, 0.5)
        c.polygon(((240 - w / 2, h + 26), peak, (240 + w / 2, h + 26)), _shade(light, dark))
    cloth = c.color(c.pick(0.98, 0.98, 0.62), 0.75, 0.45)
    for row in range(4):
        top, size, tint = 209 + row * 40, 43 + row * 14, _shade(cloth, 1 - 0.18 * row)
        for seat in np.arange(c.between(-30, 0), WIDE + 30, size):
            if c.pick(True, False):
                c.put("person", seat, top, size * 0.42, 0.35)
            c.box(seat, top, size * 0.92, 216, tint, size * 0.3)
            c.box(seat, top + 4, size * 0.68, 5, _shade(tint, 1.6))


def _travel(c: _Canvas) -> None:
    sky = c.pick(((0.7, 0.4, 0.65), (0.07, 0.5, 0.98)), ((0.57, 0.55, 0.9), (0.55, 0.15, 0.97)))
    c.fade(0, 223, c.color(*sky[0]), c.color(*sky[1]))
    sun, sea = c.between(70, 410), c.color(0.53, 0.6, 0.7)
    c.glow(sun, 90, 108, 108, WHITE)
    c.oval(sun, 90, 22, 22, (255, 246, 214))
    for layer in range(3):
        rock = c.color(0.6, 0.3 + 0.1 * layer, 0.75 - 0.17 * layer)
        for x in range(int(c.between(-108, 0)), 580, 126):
            half, top = c.between(90, 162), 58 + 36 * layer + c.between(0, 54)
            cap = x - half / 4, top * 0.75 + 56, x, top, x + half / 4, top * 0.75 + 56, x, top + 22
            c.polygon((x - half, 223, x, top, x + half, 223), rock)
            c.polygon(cap, rock if layer == 2 else WHITE)
    c.fade(223, 295, _shade(sea, 1.3), sea)
    c.put("boat", c.between(120, 340), 263, 63)
    c.fade(295, HIGH, c.color(0.12, 0.35, 0.9), c.color(0.1, 0.4, 0.75))
    for palm in (c.between(60, 120), c.between(360, 420))[: c.pick(1, 2)]:
        c.put("palm", palm, 338, c.between(120, 180))
    for size in c.rng.uniform(11, 18, c.pick(0, 1, 2, 3)):
        c.put("person", c.between(120, 360), c.between(260, 288), size)


def _restaurant(c: _Canvas) -> None:
    wood = c.color(c.pick(0.08, 0.03, 0.98), 0.5, c.between(0.4, 0.55))
    c.fade(0, HIGH, _shade(wood, 0.75), wood)
    c.glow(240, 162, 336, 252, GOLD)
    for column, y in product(range(3), (101, 259)):
        x, r, soup = 80 + 160 * column + c.between(-11, 11), c.between(54, 72), c.pick(True, False)
        rim = c.pick(WHITE, (222, 228, 236), (60, 60, 70), (188, 60, 48))
        c.glow(x + 5, y + 7, r * 1.25, r * 1.25, INK)
        c.oval(x, y, r, r, rim)
        c.oval(x, y, r * 0.8, r * 0.8, c.color(0.07, 0.75, 0.75) if soup else _shade(rim, 0.88))
        for strand in range(-4, 4 if soup else -4):
            wave = [(t, strand / 9 + 0.06 * sin(18 * t + strand)) for t in (-0.5, -0.2, 0.2, 0.5)]
            c.line([(x + r * a, y + r * b) for a, b in wave], c.color(0.13, 0.4, 0.95), 5, "curve")
        for _ in range(6 if soup else 22):
            angle, reach = c.between(0, 2 * pi), r * c.between(0, 0.55)
            bit = c.color(c.pick(0.02, 0.08, 0.3, 0.12), 0.7, 0.75)
            c.oval(x + cos(angle) * reach, y + sin(angle) * reach, r * 0.13, r * 0.09, bit)
    left, low = c.between(48, 288), c.between(317, 346)
    for shift in (0, 9):
        c.line((left, low + shift, left + 180, low - 36 + shift * 1.6), (70, 36, 26), 5)


def _nowhere(c: _Canvas) -> None:
    c.fade(0, HIGH, c.color(-1, 0.3, 0.9), c.color(-1, 0.3, 0.7))
    for r in c.rng.uniform(18, 90, 12):
        c.oval(c.between(0, WIDE), c.between(0, HIGH), r, r, c.color(-1, 0.5, 0.85))
    if c.pick(True, False):
        c.put("cat", c.between(190, 290), c.between(144, 180), c.between(72, 94))


def draw_scene(rng: np.random.Generator, place: str | None, noise: float) -> Image.Image:
    """Draw one RGB picture, of no place without one; `noise` is 0 (tidy) to 1 (hard to see)."""
    c, (wide, high) = _Canvas(rng), SIZES[int(rng.integers(len(SIZES)))]
    scenes = (_home, _school, _work, _shop, _cinema, _travel, _restaurant)
    (scenes[PLACES.index(place)] if place else _nowhere)(c)
    for thing in ("cup", "plant", "bag", "books", "person", "smile"):
        if rng.random() < noise * 0.5:
            c.put(thing, c.between(0, WIDE), c.between(250, HIGH), c.between(43, 100))
    centre, half = np.array([WIDE, HIGH]) / 2, np.array([wide, high]) / 2
    half *= min(WIDE / wide, HIGH / high)
    half *= c.between(0.45, 0.7) if rng.random() < noise * 0.5 else 1  # too close
    corners = rng.uniform(0.96 - 0.3 * noise, 1, (4, 2)) * [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    quad = corners * half + centre + rng.uniform(-1, 1, 2) * (centre - half)
    method = Image.Transform.QUAD, quad.ravel().tolist(), Image.Resampling.BILINEAR
    picture = c.drawing.transform((wide, high), *method)
    if rng.random() < noise * 0.7:
        picture = picture.filter(ImageFilter.BoxBlur(c.between(0.5, 1 + 2 * noise)))
    # In float32, and in place: most of the time of a picture goes into its pixels.
    y, x = np.linspace(-1, 1, high, dtype="f4")[:, None, None], np.linspace(-1, 1, wide, dtype="f4")
    tilt = rng.uniform(-1, 1, 2).astype("f4") * (0.1 + 0.35 * noise)
    light = 1 + c.between(-0.12, 0.12) + noise * c.between(-0.6, 0.5)
    light = light + tilt[0] * x[:, None] + tilt[1] * y
    tint = rng.uniform(-1, 1, 3).astype("f4") * (0.03 + 0.2 * noise)
    light = light * (1 + tint) - 0.1 * (x * x)[:, None] - 0.1 * y * y
    light *= np.asarray(picture)
    contrast = 1 + c.between(-0.4, 0.4) * noise
    light *= contrast
    light += rng.standard_normal((high, wide, 1), "f4") * c.between(1, 3 + 25 * noise)
    light += 128 - 128 * contrast
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))
