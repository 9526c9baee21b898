"""Work: a desk with monitors, a large office, a meeting."""

from __future__ import annotations

from sgmft.data.synthetic.drawings.canvas import Canvas, mix, shade
from sgmft.data.synthetic.drawings.props import WHITE, cup, display, person, room, screen, window


def office_desk(c: Canvas) -> None:
    """Draw monitors, a keyboard, papers and a mug on a desk before an office window."""
    night = c.chance(0.35)
    c.fade(0, 0, c.w, 1, c.tone(0.58, 0.05, 0.88), c.tone(0.58, 0.08, 0.7))
    window(c, c.w * 0.06, 0.05, c.w * 0.88, 0.36, night)
    for slat in range(c.count(0, 8)):
        c.box(c.w * 0.05, 0.05 + slat * 0.022, c.w * 0.95, 0.058 + slat * 0.022, (226, 228, 230))
    y = c.between(0.66, 0.74)
    c.fade(0, y - 0.04, c.w, 1, c.tone(0.09, 0.15, 0.85), c.tone(0.09, 0.2, 0.68))
    number = c.count(1, 3) if c.w > 1 else c.count(1, 2)
    for place in range(number):
        x = c.w * (place + 0.5 + c.between(-0.08, 0.08)) / number
        screen(c, x, y + 0.02, min(0.62, c.w / number * 0.86))
    x = c.w * c.between(0.4, 0.6)
    keyboard(c, x, y + 0.12, c.between(0.42, 0.55))
    c.oval(x + 0.36, y + 0.16, 0.03, 0.042, (56, 58, 64))
    cup(c, x - 0.38, y + 0.16, c.between(0.09, 0.13))
    for _ in range(c.count(1, 3)):
        left = c.between(0.05, 0.9) * c.w
        c.poly([(left, 0.9), (left + 0.16, 0.88), (left + 0.2, 0.99), (left + 0.02, 1)], WHITE)
        c.line([(left + 0.04, 0.93), (left + 0.15, 0.92)], (150, 150, 156))
    if c.chance(0.5):
        person(c, c.w * c.between(0.3, 0.7), 0.86, c.between(0.14, 0.2))


def keyboard(c: Canvas, x: float, y: float, w: float) -> None:
    """Lay a keyboard down, its middle at (x, y)."""
    dark = c.chance(0.6)
    base = (48, 50, 56) if dark else (226, 228, 230)
    c.box(x - w / 2, y - w * 0.13, x + w / 2, y + w * 0.15, base, 0.012)
    for row in range(4):
        for column in range(12):
            left, top = x - w * 0.47 + column * w * 0.079, y - w * 0.11 + row * w * 0.063
            c.box(left, top, left + w * 0.064, top + w * 0.046, shade(base, 1.35 if dark else 0.85))


def cubicles(c: Canvas) -> None:
    """Draw a large office under strip lights: rows of partitions, screens and heads."""
    y = c.between(0.34, 0.42)
    c.fade(0, 0, c.w, y, c.tone(0.58, 0.03, 0.95, 0.02), c.tone(0.58, 0.08, 0.8))
    c.fade(0, y, c.w, 1, c.tone(0.6, 0.12, 0.45), c.tone(0.6, 0.15, 0.6))
    vanish = (c.w * c.between(0.35, 0.65), y)
    for light in (0.1, 0.36, 0.64, 0.9):
        near = (c.w * light, 0.0)
        c.line([mix(near, vanish, 0.1), mix(near, vanish, 0.75)], (255, 255, 255), 0.02)
    cloth = c.tone(0.58, 0.25, 0.7, 0.08)
    for row in range(4):
        top, scale = y + 0.02 + row * 0.115 + row * row * 0.02, 0.5 + row * 0.35
        wide = 0.34 * scale
        x = vanish[0] - wide * c.between(1.5, 2.5)
        while x < c.w:
            screen(c, x + wide * 0.45, top + 0.02, wide * 0.6)
            if c.chance(0.6):
                person(c, x + wide * 0.5, top, 0.06 * scale)
            c.box(x, top, x + wide - 0.008, top + 0.3, shade(cloth, 0.75 + 0.08 * row))
            c.box(x, top, x + wide - 0.008, top + 0.014, (206, 210, 214))
            x += wide
        if row == 3 and c.chance(0.5):
            keyboard(c, c.w * 0.5, 0.97, 0.5)


def meeting(c: Canvas) -> None:
    """Draw a projected chart over a long table with laptops and colleagues."""
    y = room(c, c.tone(0.58, 0.08, 0.82), c.tone(0.6, 0.15, 0.5))
    wide = c.between(0.5, 0.62) * c.w
    left = (c.w - wide) * c.between(0.3, 0.7)
    c.box(left - 0.012, 0.05, left + wide + 0.012, 0.45, (70, 72, 78))
    display(c, left, 0.06, wide, 0.38)
    timber = c.wood()
    c.poly(
        [(c.w * 0.34, y - 0.06), (c.w * 0.66, y - 0.06), (c.w * 0.92, 1), (c.w * 0.08, 1)], timber
    )
    for side in (-1, 1):
        for place in range(3):
            x, top = c.w / 2 + side * c.w * (0.2 + place * 0.11), y - 0.02 + place * 0.12
            if c.chance(0.8):
                person(c, x, top, 0.07 + place * 0.025)
            inner = c.w / 2 + side * c.w * (0.08 + place * 0.05)
            size = 0.1 + place * 0.03
            c.box(inner - size / 2, top, inner + size / 2, top + size * 0.6, (60, 62, 70), 0.006)
            c.box(
                inner - size * 0.44,
                top + 0.008,
                inner + size * 0.44,
                top + size * 0.52,
                c.tone(0.57, 0.4, 0.85),
            )
            c.box(
                inner - size * 0.6,
                top + size * 0.6,
                inner + size * 0.6,
                top + size * 0.7,
                (196, 198, 204),
            )
