"""Cinema: the hall, popcorn before the screen, the foyer with its posters."""

from __future__ import annotations

from sgmft.data.synthetic.drawings.canvas import Canvas, Color, Point, shade
from sgmft.data.synthetic.drawings.props import INK, WHITE, person


def hall(c: Canvas) -> None:
    """Draw a dark hall: a bright screen, rows of seats and heads before it."""
    c.fade(0, 0, c.w, 1, (14, 13, 18), c.tone(0.0, 0.35, 0.12, 0.04))
    x, y = c.w * c.between(0.42, 0.58), c.between(0.24, 0.34)
    half = min(c.between(0.42, 0.62), c.w * 0.44)
    high, lean = half * c.between(0.4, 0.5), c.between(-0.04, 0.04)
    light = c.paint(0.35, 0.9)
    c.glow(x, y, half * 2.1, high * 3.4, light, 0.55)
    for side in (0.0, c.w):
        for lamp in range(c.count(1, 3)):
            c.glow(side, 0.2 + lamp * 0.2, 0.1, 0.14, (255, 150, 70), 0.6)
    corners = [
        (x - half, y - high + lean),
        (x + half, y - high - lean),
        (x + half, y + high + lean),
        (x - half, y + high - lean),
    ]
    still(c, corners, light)
    cloth = c.tone(c.pick([0.98, 0.98, 0.62, 0.05]), 0.7, 0.32)
    rows = c.count(3, 5)
    for row in range(rows):
        t = row / (rows - 1)
        top, wide = 0.56 + t * 0.3, 0.09 + t * 0.1
        seat = c.between(-wide, 0)
        while seat < c.w + wide:
            if c.chance(0.45):
                person(c, seat + wide / 2, top + wide * 0.1, wide * 0.42, 0.3)
            tint = shade(cloth, 0.9 - 0.4 * t)
            c.box(seat, top, seat + wide * 0.92, top + 0.3, tint, wide * 0.3)
            c.box(
                seat + wide * 0.1,
                top + 0.008,
                seat + wide * 0.82,
                top + 0.02,
                shade(tint, 1.35),
                0.01,
            )
            seat += wide
    if c.chance(0.4):
        c.box(c.w * 0.03, 0.45, c.w * 0.03 + 0.09, 0.49, (40, 190, 110), 0.008)


def still(c: Canvas, corners: list[Point], light: Color) -> None:
    """Show a film on the quadrilateral `corners`: hills, a face, a planet or the titles."""
    c.poly(corners, light)
    (left, top), (right, foot) = corners[0], corners[2]
    wide, high = right - left, foot - top
    kind = c.count(0, 3)
    if kind == 0:
        for layer in range(3):
            y = top + high * (0.5 + layer * 0.14)
            peak = left + wide * c.between(0.2, 0.8)
            c.poly(
                [
                    (left, foot - 0.02),
                    (left, y),
                    (peak, y - high * c.between(0.1, 0.35)),
                    (right, y),
                    (right, foot - 0.02),
                ],
                shade(light, 0.7 - layer * 0.2),
            )
    elif kind == 1:
        face = left + wide * c.between(0.3, 0.7)
        c.oval(face, top + high * 0.48, high * 0.26, high * 0.34, (226, 184, 156))
        c.oval(face, top + high * 0.28, high * 0.28, high * 0.2, INK)
        c.box(
            face - high * 0.42,
            top + high * 0.82,
            face + high * 0.42,
            foot - 0.02,
            shade(light, 0.4),
        )
    elif kind == 2:
        c.poly(corners, (20, 22, 46))
        c.oval(left + wide * 0.6, top + high * 0.5, high * 0.36, high * 0.36, light)
        c.oval(left + wide * 0.66, top + high * 0.46, high * 0.34, high * 0.36, shade(light, 0.6))
        for _ in range(20):
            c.oval(c.between(left, right), c.between(top + 0.04, foot - 0.04), 0.004, 0.004, WHITE)
    else:
        c.poly(corners, (24, 22, 24))
        for row in range(c.count(2, 4)):
            span, y = wide * c.between(0.15, 0.35), top + high * (0.25 + row * 0.16)
            c.box((left + right) / 2 - span, y, (left + right) / 2 + span, y + high * 0.08, light)
    c.line([*corners, corners[0]], shade(light, 1.6), 0.008)


def popcorn(c: Canvas) -> None:
    """Draw a striped popcorn bucket, a drink and tickets in the dark before the screen."""
    c.fade(0, 0, c.w, 1, c.tone(0.65, 0.5, 0.14), c.tone(0.98, 0.5, 0.16))
    light = c.paint(0.3, 0.95)
    left, right = c.w * c.between(0.02, 0.2), c.w * c.between(0.75, 0.98)
    c.glow(c.w / 2, 0.2, c.w * 0.75, 0.5, light, 0.5)
    still(c, [(left, 0.04), (right, 0.04), (right, 0.4), (left, 0.4)], light)
    for seat in range(9):
        x = seat * 0.22 - 0.1
        c.box(x, 0.52, x + 0.2, 0.9, c.tone(0.98, 0.6, 0.16, 0.02), 0.06)
    for _ in range(c.count(1, 2)):
        x, size = c.w * c.between(0.25, 0.65), c.between(0.4, 0.55)
        bucket(c, x, 0.98, size)
        c.box(x + size * 0.5, 0.6, x + size * 0.5 + 0.15, 0.98, (200, 36, 44), 0.02)
        c.box(x + size * 0.5 - 0.01, 0.58, x + size * 0.5 + 0.16, 0.62, WHITE, 0.01)
        c.line([(x + size * 0.5 + 0.08, 0.6), (x + size * 0.5 + 0.13, 0.42)], (240, 70, 70), 0.014)
    for ticket in range(c.count(1, 2)):
        x, y = c.w * c.between(0.05, 0.5), 0.78 + ticket * 0.08
        c.poly(
            [(x, y), (x + 0.3, y - 0.06), (x + 0.33, y + 0.07), (x + 0.03, y + 0.13)],
            (246, 232, 196),
        )
        c.line([(x + 0.22, y - 0.04), (x + 0.25, y + 0.09)], (190, 150, 110), 0.004)
        for row in range(3):
            c.line([(x + 0.04, y + 0.03 + row * 0.028), (x + 0.18, y + row * 0.028)], INK, 0.006)


def bucket(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a striped popcorn bucket with its foot at (x, y)."""
    upper, lower, top = size * 0.36, size * 0.26, y - size * 0.75
    for stripe in range(8):
        a, b = stripe / 8 * 2 - 1, (stripe + 1) / 8 * 2 - 1
        color = (206, 40, 44) if stripe % 2 else WHITE
        c.poly(
            [(x + a * upper, top), (x + b * upper, top), (x + b * lower, y), (x + a * lower, y)],
            color,
        )
    for _ in range(45):
        kernel = c.tone(0.13, 0.35, 0.95, 0.03)
        radius = size * c.between(0.04, 0.065)
        c.oval(
            x + c.between(-0.34, 0.34) * size,
            top - abs(c.between(-0.13, 0.13)) * size,
            radius,
            radius * 0.85,
            kernel,
        )


def foyer(c: Canvas) -> None:
    """Draw a dark foyer with lit film posters, a red carpet and a rope."""
    c.fade(0, 0, c.w, 0.72, c.tone(0.75, 0.4, 0.16, 0.1), c.tone(0.75, 0.4, 0.24, 0.1))
    c.fade(0, 0.72, c.w, 1, c.tone(0.98, 0.75, 0.3, 0.03), c.tone(0.98, 0.75, 0.5, 0.03))
    number = c.count(2, 4) if c.w > 1 else 2
    wide = c.w / number
    for place in range(number):
        left, right = place * wide + wide * 0.14, (place + 1) * wide - wide * 0.14
        light = c.paint(0.6, 0.75)
        c.glow((left + right) / 2, 0.35, wide * 0.75, 0.45, (255, 220, 150), 0.55)
        c.box(left - 0.014, 0.1, right + 0.014, 0.62, (255, 232, 170))
        still(c, [(left, 0.115), (right, 0.115), (right, 0.605), (left, 0.605)], light)
        c.box(left + 0.03, 0.5, right - 0.03, 0.54, WHITE)
    for bulb in range(int(c.w / 0.09) + 1):
        c.glow(bulb * 0.09, 0.04, 0.045, 0.045, (255, 224, 130), 1.0)
    for post in range(4):
        x = c.w * (0.1 + post * 0.27)
        c.box(x - 0.012, 0.66, x + 0.012, 0.9, (222, 178, 84), 0.01)
        c.oval(x, 0.66, 0.022, 0.022, (244, 206, 110))
        c.line([(x, 0.69), (x + c.w * 0.13, 0.78), (x + c.w * 0.27, 0.69)], (170, 24, 36), 0.022)
    for _ in range(c.count(0, 2)):
        person(c, c.w * c.between(0.15, 0.85), 0.72, c.between(0.1, 0.15), 0.5)
