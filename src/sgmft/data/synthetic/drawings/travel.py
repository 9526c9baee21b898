"""Travel: mountains, the beach, an aeroplane window, landmarks."""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi, sin

from sgmft.data.synthetic.drawings.canvas import Canvas, Color, shade
from sgmft.data.synthetic.drawings.props import INK, WHITE, shopper


def sky(c: Canvas, foot: float) -> Color:
    """Paint a sky down to `foot`: noon, sunset or dusk; return its lowest colour."""
    top, low = c.pick(
        [
            ((0.57, 0.6, 0.85), (0.55, 0.2, 0.97)),
            ((0.57, 0.5, 0.9), (0.55, 0.12, 0.98)),
            ((0.6, 0.5, 0.6), (0.06, 0.5, 0.98)),
            ((0.72, 0.45, 0.4), (0.95, 0.35, 0.9)),
        ]
    )
    low_color = c.tone(*low, 0.02)
    c.fade(0, 0, c.w, foot, c.tone(*top, 0.02), low_color)
    x, y = c.w * c.between(0.1, 0.9), c.between(0.08, foot * 0.7)
    c.glow(x, y, 0.3, 0.3, (255, 244, 200), 0.8)
    c.oval(x, y, 0.05, 0.05, (255, 250, 226))
    for _ in range(c.count(0, 4)):
        x, y = c.w * c.between(0, 1), c.between(0.05, foot * 0.6)
        for puff in range(5):
            size = c.between(0.05, 0.1)
            c.glow(x + puff * 0.06, y + c.between(-0.02, 0.02), size * 1.6, size, WHITE, 0.75)
    return low_color


def ridge(c: Canvas, base: float, height: float, color: Color, snow: bool = False) -> None:
    """Draw one jagged chain of mountains standing on y = `base`."""
    x, points = -0.2, [(-0.3, base)]
    while x < c.w + 0.3:
        points.append((x, base - height * c.between(0.1, 0.4)))
        x += c.between(0.1, 0.2)
        peak = (x, base - height * c.between(0.6, 1.0))
        points.append(peak)
        x += c.between(0.1, 0.2)
    c.poly([*points, (c.w + 0.3, base)], color)
    if snow:
        for px, py in points[2::2]:
            d = (base - py) * 0.3
            c.poly(
                [
                    (px, py),
                    (px + d * 0.75, py + d),
                    (px + d * 0.2, py + d * 0.7),
                    (px - d * 0.2, py + d),
                    (px - d * 0.75, py + d * 0.9),
                ],
                WHITE,
            )


def mountains(c: Canvas) -> None:
    """Draw mountains behind a lake or a meadow, perhaps with a tent or hikers."""
    base = c.between(0.55, 0.68)
    air = sky(c, base)
    rock = c.tone(c.pick([0.6, 0.35, 0.7]), 0.35, 0.5)
    ridge(c, base, c.between(0.4, 0.5), shade(rock, 1.4), c.chance(0.6))
    ridge(c, base, c.between(0.18, 0.3), shade(rock, 0.85))
    if c.chance(0.55):
        c.fade(0, base, c.w, 1, shade(air, 0.9), c.tone(0.55, 0.6, 0.45))
        for _ in range(40):
            x, y = c.w * c.between(0, 1), c.between(base, 1)
            c.line([(x, y), (x + c.between(0.05, 0.2), y)], (255, 255, 255, 70), 0.004)
    else:
        c.fade(0, base, c.w, 1, c.tone(0.26, 0.5, 0.6), c.tone(0.28, 0.6, 0.4))
        for _ in range(60):
            c.oval(
                c.w * c.between(0, 1), c.between(base + 0.05, 1), 0.007, 0.007, c.paint(0.5, 0.95)
            )
    for _ in range(c.count(2, 10)):
        pine(c, c.w * c.between(0, 1), c.between(base, base + 0.1), c.between(0.1, 0.22))
    if c.chance(0.45):
        tent(c, c.w * c.between(0.2, 0.8), c.between(0.82, 0.95), c.between(0.2, 0.32))
    for _ in range(c.count(0, 2)):
        shopper(c, c.w * c.between(0.1, 0.9), c.between(0.85, 0.98), c.between(0.2, 0.32))


def pine(c: Canvas, x: float, y: float, size: float) -> None:
    """Plant a pine with its foot at (x, y)."""
    green = c.tone(0.38, 0.5, 0.32)
    for level in range(3):
        top, half = y - size + level * size * 0.24, size * (0.16 + 0.07 * level)
        c.poly([(x, top), (x + half, top + size * 0.45), (x - half, top + size * 0.45)], green)
    c.box(x - size * 0.03, y - size * 0.1, x + size * 0.03, y, (88, 60, 40))


def tent(c: Canvas, x: float, y: float, size: float) -> None:
    """Pitch a tent with its door at (x, y)."""
    cloth = c.tone(c.pick([0.05, 0.12, 0.55, 0.0]), 0.8, 0.9)
    c.shadow(x, y, size * 1.2, size * 0.2)
    c.poly([(x - size, y), (x - size * 0.1, y - size), (x + size * 0.9, y)], shade(cloth, 0.75))
    c.poly([(x - size * 0.3, y), (x - size * 0.1, y - size), (x + size * 0.9, y)], cloth)
    c.poly([(x + size * 0.1, y), (x + size * 0.02, y - size * 0.7), (x + size * 0.5, y)], INK)


def beach(c: Canvas) -> None:
    """Draw the sea, waves, sand, a parasol or palms, perhaps a boat."""
    horizon, shore = c.between(0.35, 0.5), c.between(0.65, 0.78)
    sky(c, horizon)
    c.fade(0, horizon, c.w, 1, c.tone(0.56, 0.75, 0.6), c.tone(0.5, 0.5, 0.85))
    for _ in range(50):
        x, y = c.w * c.between(0, 1), c.between(horizon, shore)
        c.line([(x, y), (x + c.between(0.03, 0.16), y)], (255, 255, 255, 90), 0.004)
    if c.chance(0.5):
        ridge(c, horizon, 0.12, c.tone(0.4, 0.3, 0.5))
    sand = c.tone(0.11, 0.35, 0.92, 0.02)
    phase = c.between(0, pi)
    for lift, color in ((0.025, WHITE), (0.0, sand)):
        edge = [(c.w * t / 20, shore - lift + 0.03 * sin(phase + t * 0.5)) for t in range(21)]
        c.poly([(0, 1), *edge, (c.w, 1)], color)
    for _ in range(30):
        c.oval(c.w * c.between(0, 1), c.between(shore + 0.05, 1), 0.006, 0.004, shade(sand, 0.8))
    if c.chance(0.5):
        x, sail = c.w * c.between(0.2, 0.8), c.between(0.07, 0.14)
        c.poly([(x, horizon - sail), (x + sail * 0.6, horizon), (x, horizon)], WHITE)
        c.box(x - sail * 0.4, horizon, x + sail * 0.7, horizon + 0.02, (150, 70, 50), 0.01)
    if c.chance(0.6):
        parasol(c, c.w * c.between(0.2, 0.8), c.between(0.85, 0.95), c.between(0.18, 0.26))
    if c.chance(0.6):
        palm(c, c.w * c.pick([0.08, 0.9]), 0.95, c.between(0.6, 0.8))
    for _ in range(c.count(0, 2)):
        shopper(c, c.w * c.between(0.1, 0.9), c.between(0.85, 0.97), c.between(0.2, 0.3))


def parasol(c: Canvas, x: float, y: float, size: float) -> None:
    """Plant a striped parasol with its foot at (x, y)."""
    cloth = c.paint(0.75, 0.9)
    c.shadow(x, y, size, size * 0.25)
    c.line([(x, y), (x, y - size * 1.4)], WHITE, 0.012)
    for slice_ in range(6):
        a, b = pi + pi * slice_ / 6, pi + pi * (slice_ + 1) / 6
        points = [
            (x + cos(s) * size, y - size * 1.1 + sin(s) * size * 0.6) for s in (a, (a + b) / 2, b)
        ]
        c.poly([(x, y - size * 1.1), *points], cloth if slice_ % 2 else WHITE)


def palm(c: Canvas, x: float, y: float, size: float) -> None:
    """Plant a palm with its foot at (x, y)."""
    lean = c.between(-0.15, 0.15)
    head = (x + lean, y - size)
    c.line([(x, y), (x + lean * 0.3, y - size * 0.5), head], (124, 92, 62), 0.028)
    for leaf in range(8):
        angle = 2 * pi * leaf / 8 + c.between(-0.2, 0.2)
        tip = (head[0] + cos(angle) * size * 0.38, head[1] + sin(angle) * size * 0.2 + size * 0.08)
        middle = ((head[0] + tip[0]) / 2, (head[1] + tip[1]) / 2 - size * 0.1)
        c.line([head, middle, tip], c.tone(0.34, 0.7, 0.45), 0.026)


def cabin(c: Canvas) -> None:
    """Draw the view from an aeroplane window: clouds, the wing, the sun."""
    sky(c, 1.0)
    for _ in range(16):
        x, y, size = c.w * c.between(0, 1), c.between(0.6, 0.95), c.between(0.12, 0.25)
        c.glow(x, y, size * 1.6, size * 0.7, WHITE, 0.9)
    tip, flip = c.between(0.35, 0.6), c.chance(0.5)
    wing = [
        (0.0, 0.78),
        (c.w * 0.78, tip),
        (c.w * 0.82, tip - 0.08),
        (c.w * 0.84, tip),
        (0.0, 1.02),
    ]
    c.poly([(c.w - px, py) if flip else (px, py) for px, py in wing], c.tone(0.58, 0.06, 0.75))
    wall, p = c.tone(0.6, 0.04, 0.82, 0.03), c.pixels
    if c.chance(0.8):
        frame = Canvas(c.rng, c.w)
        frame.fade(0, 0, c.w, 1, shade(wall, 1.1), shade(wall, 0.75))
        x, half = c.w * c.between(0.45, 0.55), min(c.w * 0.42, c.between(0.36, 0.46))
        hole = Canvas(c.rng, c.w)
        frame.box(x - half - 0.03, 0.03, x + half + 0.03, 0.97, shade(wall, 0.6), half)
        hole.box(x - half, 0.06, x + half, 0.94, (255, 255, 255), half)
        mask = hole.image.convert("L").point([255 - v for v in range(256)])
        c.image.paste(frame.image, (0, 0), mask.resize((round(c.w * p), p)))


def landmark(c: Canvas) -> None:
    """Draw a pagoda, a tower or a long wall on the hills, with visitors."""
    base = c.between(0.72, 0.82)
    sky(c, base)
    ridge(c, base, c.between(0.15, 0.35), c.tone(0.36, 0.35, 0.55))
    c.fade(0, base, c.w, 1, c.tone(0.1, 0.2, 0.75), c.tone(0.1, 0.2, 0.6))
    x, kind = c.w * c.between(0.35, 0.65), c.count(0, 2)
    if kind == 0:
        wall, roof = c.tone(0.02, 0.7, 0.65), c.tone(0.1, 0.3, 0.3)
        levels = c.count(4, 6)
        for level in range(levels):
            half, y = 0.17 - level * 0.022, base - level * 0.11
            c.box(x - half, y - 0.11, x + half, y, wall)
            for door in (-0.5, 0.0, 0.5):
                left = x + door * half * 1.2
                c.box(left - 0.018, y - 0.08, left + 0.018, y - 0.01, (250, 206, 120))
            c.poly(
                [
                    (x - half - 0.07, y - 0.1),
                    (x - half + 0.02, y - 0.15),
                    (x + half - 0.02, y - 0.15),
                    (x + half + 0.07, y - 0.1),
                ],
                roof,
            )
        c.line([(x, base - levels * 0.11 - 0.03), (x, base - levels * 0.11 - 0.13)], roof, 0.012)
    elif kind == 1:
        steel = c.tone(0.06, 0.3, 0.45)
        for side in (-1, 1):
            c.line(
                [(x + side * 0.2, base), (x + side * 0.07, base - 0.3), (x, base - 0.7)],
                steel,
                0.03,
            )
        for rise, half in ((0.16, 0.14), (0.32, 0.08), (0.5, 0.04)):
            c.box(x - half, base - rise - 0.02, x + half, base - rise, steel)
        c.line([(x, base - 0.66), (x, base - 0.76)], steel, 0.01)
    else:
        stone, path = c.tone(0.1, 0.2, 0.7), [(0.0, base - 0.05)]
        for step in range(1, 8):
            path.append((c.w * step / 7, base - 0.05 - c.between(0.0, 0.3)))
        for (ax, ay), (bx, by) in pairwise(path):
            c.poly([(ax, ay), (bx, by), (bx, by + 0.09), (ax, ay + 0.09)], stone)
            for tooth in range(6):
                t = tooth / 6
                px, py = ax + (bx - ax) * t, ay + (by - ay) * t
                c.box(px, py - 0.022, px + 0.02, py + 0.01, shade(stone, 0.85))
        for px, py in path[1::2]:
            c.box(px - 0.05, py - 0.1, px + 0.05, py + 0.09, shade(stone, 0.9))
            c.box(px - 0.015, py - 0.06, px + 0.015, py, INK)
    for _ in range(c.count(1, 5)):
        shopper(c, c.w * c.between(0.05, 0.95), c.between(0.88, 0.99), c.between(0.14, 0.26))
