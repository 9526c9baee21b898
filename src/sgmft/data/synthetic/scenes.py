"""Pictures of places: one scene for each, drawn and then degraded as telephones degrade them."""

from collections.abc import Callable, Mapping
from math import cos, pi, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from sgmft.data.synthetic.canvas import Canvas, Color, shade

INK, WHITE, SKIN, GOLD = (40, 38, 46), (247, 246, 242), (226, 184, 156), (255, 214, 120)
Pixels = npt.NDArray[np.uint8]
SIZES = ((320, 240), (320, 240), (240, 320), (256, 256), (336, 189), (300, 200), (360, 270))


def draw_scene(rng: np.random.Generator, place: str | None, noise: float) -> Image.Image:
    """Draw one RGB picture.

    Args:
        rng: decides everything about the picture.
        place: one of the seven places; None for a picture that tells no place.
        noise: 0 (tidy, level, evenly lit) to 1 (cluttered, tilted, blurred, badly lit, too close).
    """
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    canvas = Canvas(rng, width / height)
    scene = canvas.pick((pattern, cat)) if place is None else SCENES[place]
    scene(canvas)
    _clutter(canvas, noise)
    return _photograph(canvas, (width, height), noise)


# --- shapes that several scenes share


def room(c: Canvas, wall: Color, floor: Color) -> float:
    """Draw a wall and a floor of boards; return the y where they meet."""
    y = c.between(0.56, 0.66)
    c.fade(0, y, shade(wall, 1.3), wall)
    c.fade(y, 1, shade(floor, 0.8), floor)
    middle = c.between(0.3, 0.7) * c.w
    for step in range(-14, 15):
        c.line([(middle + step * 0.08, y), (middle + step * 0.36, 1.0)], shade(floor, 0.78), 0.004)
    c.box(0, y - 0.02, c.w, y, shade(wall, 1.8))
    return y


def window(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    """Draw a window onto a skyline, by day or lit at night; (x, y) is its top left."""
    night = c.chance(0.3)
    sky = c.tone(0.65, 0.6, 0.25) if night else c.tone(0.56, 0.35, 0.92)
    c.box(x - 0.02, y - 0.02, x + w + 0.02, y + h + 0.02, WHITE)
    c.box(x, y, x + w, y + h, sky)
    for step in range(8):
        left, top = x + step * w / 8, y + h * c.between(0.4, 0.85)
        c.box(left, top, left + w / 8, y + h, shade(sky, c.between(0.6, 0.8)))
        if night:
            c.box(left + w * 0.04, top + 0.03, left + w * 0.06, top + 0.05, GOLD)
    c.box(x + w / 2 - 0.008, y, x + w / 2 + 0.008, y + h, WHITE)


def person(c: Canvas, x: float, y: float, size: float, light: float = 1.0) -> None:
    """Draw a head and shoulders from behind; (x, y) is the nape, `light` < 1 dims."""
    hair = shade(c.pick([(38, 30, 28), (74, 50, 38), (28, 28, 34), (110, 76, 50)]), light)
    half = size * 0.75
    c.box(x - half, y, x + half, y + size * 2.2, shade(c.paint(0.45, 0.65), light), size * 0.5)
    c.box(x - size * 0.15, y - size * 0.3, x + size * 0.15, y + size * 0.1, shade(SKIN, light))
    c.oval(x, y - size * 0.6, size * 0.42, size * 0.52, hair)


def figure(c: Canvas, x: float, y: float, size: float) -> None:
    """Draw somebody who stands at (x, y), of height `size`, often with a bag."""
    coat = c.paint(0.55, 0.75)
    c.glow(x, y, size * 0.3, size * 0.06, INK)
    for side in (-0.06, 0.06):
        leg = x + side * size
        c.box(leg - size * 0.05, y - size * 0.45, leg + size * 0.05, y, shade(coat, 0.45))
    c.box(x - size * 0.14, y - size * 0.8, x + size * 0.14, y - size * 0.36, coat, size * 0.06)
    c.oval(x, y - size * 0.9, size * 0.09, size * 0.1, SKIN)
    c.oval(x, y - size * 0.94, size * 0.09, size * 0.07, INK)
    if c.chance(0.6):
        bag(c, x + size * 0.26, y - size * 0.1, size * 0.22)


def bag(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a paper bag at (x, y)."""
    paper, half = c.paint(0.65, 0.85), size * 0.4
    c.line([(x - half / 2, y - size), (x, y - size * 1.4), (x + half / 2, y - size)], INK)
    c.box(x - half, y - size, x + half, y, paper)
    c.oval(x, y - size * 0.5, half * 0.45, half * 0.45, shade(paper, 2.2))


def plant(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a potted plant at (x, y)."""
    leaf, pot = c.tone(0.34, 0.55, 0.5), c.tone(0.06, 0.45, 0.75)
    top = y - size * 0.3
    for step in range(9):
        angle, reach = pi * (0.1 + 0.1 * step), size * c.between(0.6, 0.9)
        tip = (x + cos(angle) * reach * 0.7, top - sin(angle) * reach)
        middle, wide = ((x + tip[0]) / 2, (top + tip[1]) / 2), size * 0.09
        points = [(x, top), (middle[0] - wide, middle[1]), tip, (middle[0] + wide, middle[1])]
        c.poly(points, shade(leaf, c.between(0.7, 1.3)))
    a, b = size * 0.2, size * 0.14
    c.poly([(x - a, top - 0.01), (x + a, top - 0.01), (x + b, y), (x - b, y)], pot)


def cup(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a mug at (x, y)."""
    glaze = c.paint(0.45, 0.9)
    c.oval(x + size * 0.38, y - size * 0.45, size * 0.2, size * 0.24, shade(glaze, 0.8))
    c.box(x - size * 0.38, y - size * 0.9, x + size * 0.38, y, glaze, size * 0.1)
    c.oval(x, y - size * 0.85, size * 0.34, size * 0.09, (88, 56, 40))


def books(c: Canvas, x: float, y: float, width: float) -> None:
    """Stack some books at (x, y)."""
    for level in range(c.count(2, 4)):
        left, top = x - width * c.between(0.4, 0.6), y - (level + 1) * width * 0.2
        c.box(left, top, left + width, top + width * 0.19, c.paint(0.6, 0.7))
        c.box(left + width * 0.85, top + width * 0.03, left + width, top + width * 0.16, WHITE)


def film(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    """Show a picture of a planet over hills in a rectangle, as on a cinema's screen."""
    light = c.paint(0.4, 0.9)
    c.box(x - 0.01, y - 0.01, x + w + 0.01, y + h + 0.01, shade(light, 1.6))
    c.box(x, y, x + w, y + h, light)
    c.oval(x + w * c.between(0.3, 0.7), y + h * 0.4, h * 0.25, h * 0.25, shade(light, 2.5))
    for layer in (0.75, 0.5):
        peak = (x + w * c.between(0.2, 0.8), y + h * c.between(0.2, 0.5))
        foot = y + h * (1.4 - layer)
        c.poly([(x, y + h), (x, foot), peak, (x + w, foot), (x + w, y + h)], shade(light, layer))


def screen(c: Canvas, x: float, y: float, w: float) -> None:
    """Stand a computer monitor at (x, y): a chart or lines of code on it."""
    h = w * 0.58
    left, top = x - w / 2, y - h - w * 0.14
    c.box(x - w * 0.05, top + h, x + w * 0.05, y, (90, 92, 98))
    c.box(x - w * 0.18, y - w * 0.03, x + w * 0.18, y, (110, 112, 118))
    c.box(left, top, left + w, top + h, (32, 33, 38), 0.012)
    dark, bars = c.chance(0.5), c.chance(0.5)
    back = c.tone(0.62, 0.3, 0.18) if dark else c.tone(0.58, 0.05, 0.95, 0.02)
    c.box(left + 0.012, top + 0.012, left + w - 0.012, top + h - 0.012, back)
    for i in range(7):
        ink, size = c.tone(0.57, 0.5, 0.75, 0.3), c.between(0.2, 0.7)
        if bars:
            at = left + w * (0.1 + i * 0.12)
            c.box(at, top + h * (0.9 - size), at + w * 0.07, top + h * 0.9, ink)
        else:
            at = top + h * (0.12 + i * 0.11)
            c.box(left + w * 0.08, at, left + w * (0.12 + size), at + h * 0.05, ink)


# --- one scene for each place


def living_room(c: Canvas) -> None:
    """Draw a sofa with cushions between a lamp and a plant, a window, a rug."""
    wood = c.tone(0.08, 0.5, 0.6)
    y = room(c, c.tone(0.1, 0.18, 0.85, 0.08), wood)
    x, w = c.w * c.between(0.25, 0.45), c.w * 0.3
    window(c, x, 0.1, w, 0.26)
    cloth = c.paint(0.35, 0.75)
    for side in (x - 0.09, x + w):
        for fold in range(4):
            left = side + fold * 0.024
            c.box(left, 0.06, left + 0.024, 0.42, shade(cloth, 1 - 0.12 * (fold % 2)))
    rug = c.paint(0.3, 0.75)
    c.oval(c.w / 2, 0.92, c.w * 0.42, 0.1, rug)
    sofa, half = c.paint(0.45, 0.6), c.w * c.between(0.26, 0.32)
    left, right, top = c.w / 2 - half, c.w / 2 + half, y - 0.08
    c.glow(c.w / 2, top + 0.36, half * 1.2, 0.08, INK)
    c.box(left, top, right, top + 0.3, shade(sofa, 0.85), 0.05)
    for seat in (left + 0.05, c.w / 2 + 0.005):
        c.box(seat, top + 0.17, seat + half - 0.055, top + 0.3, shade(sofa, 1.15), 0.03)
        c.box(seat + 0.02, top + 0.06, seat + 0.15, top + 0.18, c.paint(0.6, 0.85), 0.03)
    for arm in (left - 0.04, right - 0.05):
        c.box(arm, top + 0.1, arm + 0.09, top + 0.34, sofa, 0.04)
    lamp, other = c.pick([(0.1, 0.9), (0.9, 0.1)])
    x = c.w * lamp
    c.line([(x, 0.82), (x, 0.36)], INK, 0.012)
    c.glow(x, 0.34, 0.3, 0.3, (255, 224, 150), 0.7)
    c.poly([(x - 0.05, 0.26), (x + 0.05, 0.26), (x + 0.09, 0.38), (x - 0.09, 0.38)], GOLD)
    plant(c, c.w * other, 0.88, 0.32)


def classroom(c: Canvas) -> None:
    """Draw a blackboard with chalk on it, a clock, and pupils at rows of desks."""
    y = room(c, c.tone(0.13, 0.12, 0.88), c.tone(0.09, 0.35, 0.62))
    left, right = c.w * 0.12, c.w * 0.88
    c.box(left - 0.02, 0.1, right + 0.02, 0.5, c.tone(0.08, 0.5, 0.5))
    c.box(left, 0.12, right, 0.48, c.tone(0.42, 0.45, 0.3, 0.03))
    for row in range(4):
        x = left + 0.04
        while x < right - 0.12 and c.chance(0.85):
            end = x + c.between(0.03, 0.09)
            c.line([(x, 0.18 + row * 0.075), (end, 0.18 + row * 0.075)], (225, 232, 222), 0.012)
            x = end + 0.02
    c.oval(c.w / 2, 0.05, 0.04, 0.04, WHITE)
    c.line([(c.w / 2, 0.025), (c.w / 2, 0.05), (c.w / 2 + 0.02, 0.06)], INK)
    wood = c.tone(0.09, 0.45, 0.8)
    for row in range(3):
        top, wide = y + 0.02 + row * 0.13, 0.26 + row * 0.09
        x = c.between(-wide / 2, 0)
        while x < c.w:
            if c.chance(0.8):
                person(c, x + wide * 0.4, top, wide * 0.2)
            c.box(x, top + 0.06, x + wide * 0.82, top + 0.1, wood)
            c.box(x + 0.02, top + 0.1, x + 0.04, top + 0.24, shade(wood, 0.6))
            c.box(x + wide * 0.82 - 0.04, top + 0.1, x + wide * 0.82 - 0.02, top + 0.24, INK)
            if c.chance(0.5):
                books(c, x + wide * 0.66, top + 0.06, wide * 0.24)
            x += wide


def office(c: Canvas) -> None:
    """Draw monitors, a keyboard and a mug on a desk before an office window."""
    c.fade(0, 1, c.tone(0.58, 0.05, 0.88), c.tone(0.58, 0.08, 0.7))
    window(c, c.w * 0.06, 0.05, c.w * 0.88, 0.36)
    for slat in range(c.count(2, 9)):
        c.box(c.w * 0.05, 0.05 + slat * 0.022, c.w * 0.95, 0.058 + slat * 0.022, (226, 228, 230))
    y = c.between(0.66, 0.72)
    desk = c.tone(0.09, 0.2, 0.8)
    c.fade(y - 0.04, 1, desk, shade(desk, 0.8))
    number = c.count(2, 3) if c.w > 1 else c.count(1, 2)
    for place in range(number):
        screen(c, c.w * (place + 0.5) / number, y + 0.03, min(0.62, c.w / number * 0.86))
    x, base = c.w * c.between(0.4, 0.6), c.pick([(48, 50, 56), (226, 228, 230)])
    c.box(x - 0.25, y + 0.08, x + 0.25, y + 0.21, base, 0.012)
    for row in range(4):
        for column in range(12):
            left, top = x - 0.236 + column * 0.04, y + 0.092 + row * 0.028
            c.box(left, top, left + 0.03, top + 0.018, shade(base, 1.3 if base[0] < 99 else 0.85))
    cup(c, x - 0.38, y + 0.2, 0.12)
    if c.chance(0.4):
        person(c, c.w * c.between(0.3, 0.7), 0.86, 0.18)


def shop(c: Canvas) -> None:
    """Draw an aisle between shelves of goods under bright lights, and people with bags."""
    c.fade(0, 0.4, c.tone(0.15, 0.04, 0.97, 0.01), c.tone(0.58, 0.04, 0.9, 0.01))
    c.fade(0.4, 1, c.tone(0.1, 0.05, 0.75), c.tone(0.1, 0.08, 0.92))
    middle = c.w * c.between(0.42, 0.58)
    for light in (-0.3, 0.3):
        c.line([(middle + light * c.w, 0), (middle + light * 0.2, 0.32)], WHITE, 0.03)
    for side in (-1, 1):
        edge, depth = (0.0 if side < 0 else c.w), 7
        for step in range(depth):
            near, far = (depth - step) / depth, (depth - step - 1) / depth
            x0 = middle + (edge - middle) * (0.2 + 0.8 * near)
            x1 = middle + (edge - middle) * (0.2 + 0.8 * far)
            a, b = 0.2 + 0.8 * near, 0.2 + 0.8 * far
            for level in range(5):
                t0, t1 = -0.42 + level * 0.2, -0.42 + (level + 0.8) * 0.2
                goods = [(x0, 0.4 + t0 * a), (x1, 0.4 + t0 * b)]
                goods += [(x1, 0.4 + t1 * b), (x0, 0.4 + t1 * a)]
                c.poly(goods, c.paint(0.7, 0.85))
                c.line([(x0, 0.4 + t1 * a), (x1, 0.4 + t1 * b)], shade(WHITE, 0.9), 0.012)
    c.box(middle - 0.2, 0.1, middle + 0.2, 0.2, c.tone(0.98, 0.8, 0.85), 0.01)
    c.line([(middle - 0.14, 0.15), (middle + 0.14, 0.15)], WHITE, 0.03)
    for _ in range(c.count(1, 3)):
        size = c.between(0.3, 0.55)
        figure(c, middle + c.between(-0.3, 0.3) * c.w * 0.8, 0.42 + size, size)


def cinema(c: Canvas) -> None:
    """Draw a dark hall: a bright screen, rows of seats and heads before it."""
    c.fade(0, 1, (14, 13, 18), c.tone(0.0, 0.35, 0.12, 0.04))
    wide = c.w * c.between(0.6, 0.78)
    high, left = min(0.45, wide * 0.5), (c.w - wide) * c.between(0.3, 0.7)
    c.glow(left + wide / 2, 0.3, wide, 0.6, c.paint(0.3, 0.9), 0.5)
    for side in (0.0, c.w):
        c.glow(side, 0.3, 0.14, 0.25, (255, 150, 70), 0.7)
    film(c, left, 0.07, wide, high)
    cloth = c.tone(c.pick([0.98, 0.98, 0.62]), 0.75, 0.4)
    for row in range(4):
        top, wide = 0.58 + row * 0.11, 0.12 + row * 0.04
        seat = c.between(-wide, 0)
        while seat < c.w:
            if c.chance(0.5):
                person(c, seat + wide / 2, top + wide * 0.1, wide * 0.42, 0.35)
            tint = shade(cloth, 1 - 0.18 * row)
            c.box(seat, top, seat + wide * 0.92, 1.2, tint, wide * 0.3)
            c.box(seat + wide * 0.12, top + 0.01, seat + wide * 0.8, top + 0.025, shade(tint, 1.4))
            seat += wide


def travel(c: Canvas) -> None:
    """Draw mountains behind the sea, a sun, a sailing boat, palms, and people on the beach."""
    sunset = c.chance(0.4)
    top = c.tone(0.7, 0.4, 0.65) if sunset else c.tone(0.57, 0.55, 0.9)
    c.fade(0, 0.6, top, c.tone(0.07, 0.5, 0.98) if sunset else c.tone(0.55, 0.15, 0.97))
    sun = c.w * c.between(0.15, 0.85)
    c.glow(sun, 0.25, 0.25, 0.25, (255, 244, 200), 0.9)
    c.oval(sun, 0.25, 0.06, 0.06, (255, 246, 214))
    for layer in range(3):
        foot, rock = 0.62, c.tone(0.6, 0.3 + 0.1 * layer, 0.75 - 0.17 * layer, 0.03)
        x = c.between(-0.3, 0)
        while x < c.w:
            half, peak = c.between(0.25, 0.45), 0.16 + 0.1 * layer + c.between(0, 0.15)
            tip = (x + half, peak)
            c.poly([(x, foot), tip, (x + 2 * half, foot)], rock)
            if layer < 2:
                cap = [(x + half * 0.75, peak + (foot - peak) / 4), (x + half, peak + 0.06)]
                c.poly([tip, *cap, (x + half * 1.25, peak + (foot - peak) / 4)], WHITE)
            x += half
    sea = c.tone(0.53, 0.6, 0.7)
    c.fade(0.62, 0.82, shade(sea, 1.4), sea)
    x, sail = c.w * c.between(0.2, 0.8), c.pick([WHITE, (222, 84, 70)])
    c.poly([(x, 0.56), (x, 0.69), (x + 0.09, 0.69)], sail)
    c.poly([(x - 0.06, 0.7), (x + 0.1, 0.7), (x + 0.07, 0.73), (x - 0.03, 0.73)], INK)
    c.fade(0.82, 1, c.tone(0.12, 0.35, 0.9), c.tone(0.1, 0.4, 0.75))
    for x in (c.w * c.between(0.05, 0.2), c.w * c.between(0.8, 0.95))[: c.count(1, 2)]:
        height, lean = c.between(0.35, 0.5), c.between(-0.06, 0.06)
        crown = (x + lean, 0.92 - height)
        c.line([(x, 0.94), (x + lean / 3, 0.9 - height / 2), crown], c.tone(0.08, 0.5, 0.45), 0.03)
        for leaf in range(7):
            angle = pi * (leaf / 6)
            bend = (crown[0] + cos(angle) * 0.12, crown[1] - sin(angle) * 0.08 - 0.02)
            tip = (crown[0] + cos(angle) * 0.2, crown[1] - sin(angle) * 0.06 + 0.07)
            c.line([crown, bend, tip], c.tone(0.36, 0.6, 0.5), 0.03)
    for _ in range(c.count(0, 3)):
        figure(c, c.w * c.between(0.25, 0.75), c.between(0.9, 0.98), c.between(0.18, 0.26))


def restaurant(c: Canvas) -> None:
    """Draw a table of dishes, bowls of noodles and cups from above, and chopsticks."""
    cloth = c.tone(c.pick([0.08, 0.03, 0.98]), 0.5, c.between(0.35, 0.6))
    c.fade(0, 1, shade(cloth, 0.75), cloth)
    for board in range(1, 6):
        c.line([(0, board / 6), (c.w, board / 6)], shade(cloth, 0.8), 0.006)
    c.glow(c.w / 2, 0.45, c.w * 0.7, 0.7, (255, 220, 160), 0.45)
    columns = max(2, round(c.w / 0.45))
    for row in range(2):
        for column in range(columns):
            x = c.w * (column + 0.5) / columns + c.between(-0.03, 0.03)
            y, r = 0.28 + row * 0.44 + c.between(-0.03, 0.03), c.between(0.15, 0.2)
            dish(c, x, y, r)
    for y in (0.08, 0.52):
        x = c.w * c.between(0.1, 0.8)
        c.oval(x, y, 0.05, 0.05, (205, 225, 230))
        c.oval(x, y, 0.037, 0.037, c.tone(0.1, 0.7, 0.7))
    x, y = c.w * c.between(0.15, 0.6), c.between(0.9, 0.96)
    for shift in (0.0, 0.025):
        c.line([(x, y + shift), (x + 0.5, y - 0.1 + shift * 1.6)], (70, 36, 26), 0.014)


def dish(c: Canvas, x: float, y: float, r: float) -> None:
    """Put a bowl of soup with noodles, or a plate of food, with its middle at (x, y)."""
    c.glow(x + 0.015, y + 0.02, r * 1.25, r * 1.25, INK, 0.7)
    rim = c.pick([WHITE, (222, 228, 236), (60, 60, 70), (188, 60, 48)])
    c.oval(x, y, r, r, rim)
    c.oval(x, y, r * 0.84, r * 0.84, shade(rim, 0.88))
    soup = c.chance(0.5)
    if soup:
        c.oval(x, y, r * 0.78, r * 0.78, c.tone(0.07, 0.75, 0.75, 0.03))
        for strand in range(8):
            bow = [(x - r * 0.5 + t * r / 4, y + r * (strand - 4) / 9) for t in range(5)]
            waves = [(a, b + r * 0.06 * sin(a * 60 + strand)) for a, b in bow]
            c.line(waves, c.tone(0.13, 0.4, 0.95, 0.02), 0.014)
    for _ in range(6 if soup else 22):
        angle, reach = c.between(0, 2 * pi), r * 0.55 * c.between(0, 1) ** 0.5
        bit = c.tone(c.pick([0.02, 0.08, 0.3, 0.12]), 0.7, 0.75)
        c.oval(x + cos(angle) * reach, y + sin(angle) * reach, r * 0.13, r * 0.09, bit)


# --- pictures that tell no place


def pattern(c: Canvas) -> None:
    """Draw coloured blobs."""
    c.fade(0, 1, c.paint(0.3, 0.9), c.paint(0.3, 0.7))
    for _ in range(c.count(6, 16)):
        r = c.between(0.05, 0.25)
        c.oval(c.w * c.between(0, 1), c.between(0, 1), r, r, c.paint(0.5, 0.85))


def cat(c: Canvas) -> None:
    """Draw a cat on a plain ground."""
    c.fade(0, 1, c.paint(0.2, 0.85), c.paint(0.25, 0.7))
    fur = c.pick([(226, 150, 72), (92, 92, 98), (236, 226, 212), (70, 62, 60), (180, 140, 100)])
    x, y, r = c.w * c.between(0.4, 0.6), c.between(0.4, 0.5), c.between(0.2, 0.26)
    c.oval(x, y + r * 2, r * 1.3, r * 1.6, shade(fur, 0.9))
    for side in (-r, r):
        ear = [(x + side * 0.95, y - r * 1.3), (x + side * 0.95, y), (x + side * 0.2, y - r * 0.7)]
        c.poly(ear, fur)
    c.oval(x, y, r * 1.1, r * 0.95, fur)
    c.oval(x, y + r * 0.45, r * 0.4, r * 0.28, shade(fur, 1.8))
    for side in (-r, r):
        c.oval(x + side * 0.45, y - r * 0.05, r * 0.22, r * 0.24, (190, 200, 70))
        c.oval(x + side * 0.45, y - r * 0.05, r * 0.08, r * 0.22, INK)
        for whisker in (-0.1, 0.1):
            ends = [(x + side * 0.4, y + r * 0.4), (x + side * 1.4, y + r * (0.4 + whisker))]
            c.line(ends, WHITE, 0.005)
    c.oval(x, y + r * 0.3, r * 0.1, r * 0.07, (220, 110, 120))


SCENES: Mapping[str, Callable[[Canvas], None]] = {
    "Home": living_room,
    "School": classroom,
    "Work": office,
    "Shopping Center": shop,
    "Cinema": cinema,
    "Travel": travel,
    "Restaurant": restaurant,
}


# --- noise


def _clutter(c: Canvas, noise: float) -> None:
    """Put things that belong elsewhere, passers-by and fingers in front of the scene."""
    for thing in (cup, plant, bag, books):
        if c.chance(noise * 0.5):
            thing(c, c.w * c.between(0.05, 0.95), c.between(0.85, 1.0), c.between(0.12, 0.28))
    if c.chance(noise * 0.7):
        person(c, c.w * c.between(0.1, 0.9), c.between(0.75, 0.95), c.between(0.1, 0.24))
    if c.chance(noise * 0.5):
        reach = c.between(0.15, 0.3)
        c.oval(c.w * c.pick([0.0, 1.0]), c.pick([0.0, 1.0]), reach, reach, c.tone(0.05, 0.4, 0.8))
    if c.chance(noise * 0.5):  # a sticker, as posters put over a face
        x, y, r = c.w * c.between(0.15, 0.85), c.between(0.15, 0.85), c.between(0.08, 0.16)
        c.oval(x, y, r, r, (255, 206, 60))
        for side in (-0.35, 0.35):
            c.oval(x + side * r, y - r * 0.2, r * 0.12, r * 0.18, INK)


def _photograph(c: Canvas, size: tuple[int, int], noise: float) -> Image.Image:
    """Frame, light and degrade the drawing; return it at `size` (width, height in pixels)."""
    wide, high = c.image.size
    share = c.between(0.4, 0.65) if c.chance(noise * 0.6) else 1.0  # somebody stood too close
    left, top = c.between(0, 1 - share), c.between(0, 1 - share)
    slack, tilt = share * (0.02 + 0.16 * noise), c.between(-0.03, 0.03) * (1 + 4 * noise)
    corners = np.array([[left, top], [left, top], [left, top], [left, top]])
    corners += np.array([[0, 0], [0, share], [share, share], [share, 0]])
    corners += c.rng.uniform(0, slack, (4, 2)) * [[1, 1], [1, -1], [-1, -1], [-1, 1]]
    corners[:, 1] += np.array([1, 1, -1, -1]) * tilt
    quad = (corners.clip(0, 1) * [wide, high]).ravel().tolist()
    picture = c.image.transform(size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)
    if c.chance(0.5):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if c.chance(noise * 0.7):
        picture = picture.filter(ImageFilter.BoxBlur(c.between(0.5, 1 + 2 * noise)))
    return Image.fromarray(_light(c, np.asarray(picture), noise))


def _light(c: Canvas, pixels: Pixels, noise: float) -> Pixels:
    """Apply exposure, a gradient of light, vignetting, a colour cast, contrast and grain."""
    high, wide = pixels.shape[:2]
    y = np.linspace(-1, 1, high, dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, wide, dtype=np.float32)[:, None]
    slope = 0.1 + 0.35 * noise
    light = 1 + c.between(-0.12, 0.12) + noise * c.between(-0.6, 0.5)
    lit = pixels * (light * (1 + c.between(-slope, slope) * x + c.between(-slope, slope) * y))
    lit *= 1 - c.between(0.0, 0.2) * (x * x + y * y)
    lit *= np.float32(1 + c.rng.uniform(-1, 1, 3) * (0.03 + 0.2 * noise))
    lit = (lit - 128) * (1 + c.between(-1, 1) * (0.05 + 0.4 * noise)) + 128
    grain = c.rng.standard_normal((high, wide, 1), dtype=np.float32)
    lit += grain * c.between(1, 3 + 25 * noise)
    return lit.clip(0, 255).astype(np.uint8)
