"""School: a classroom, an exercise book, the campus."""

from __future__ import annotations

from sgmft.data.synthetic.drawings.canvas import Canvas, Color, mix, shade
from sgmft.data.synthetic.drawings.props import INK, WHITE, books, person, room, shopper
from sgmft.data.synthetic.drawings.travel import sky


def classroom(c: Canvas) -> None:
    """Draw a blackboard with chalk writing over rows of desks with books."""
    y = room(c, c.tone(0.15, 0.1, 0.9, 0.04), c.tone(0.1, 0.2, 0.6, 0.06))
    left, right = c.w * c.between(0.08, 0.16), c.w * c.between(0.78, 0.9)
    top, foot = c.between(0.08, 0.15), c.between(0.4, 0.46)
    c.box(left - 0.02, top - 0.02, right + 0.02, foot + 0.02, c.wood())
    c.box(left, top, right, foot, c.tone(0.41, 0.5, 0.33, 0.04))
    for row in range(c.count(2, 4)):
        x, line = left + 0.04, top + 0.06 + row * 0.075
        while x < right - 0.1:
            step = c.between(0.02, 0.05)
            c.line([(x, line), (x + step, line + c.between(-0.02, 0.02))], (232, 238, 230), 0.006)
            x += step + c.pick([0.008, 0.012, 0.06])
    if c.chance(0.6):
        c.box(c.w / 2 - 0.04, 0.005, c.w / 2 + 0.04, 0.055, (214, 48, 44))
    c.box(c.w / 2 - 0.11, foot + 0.03, c.w / 2 + 0.11, y + 0.06, c.wood())
    columns, timber = c.count(3, 5), c.tone(0.1, 0.45, 0.8)
    for row in range(3):
        depth = y + 0.07 + row * 0.115 + row * row * 0.012
        scale = 0.55 + row * 0.24
        for column in range(columns):
            x = c.w / 2 + (column - (columns - 1) / 2) * c.w / columns * (0.72 + row * 0.2)
            desk(c, x, depth, min(0.27, c.w * 0.85 / columns) * scale, timber)
            if row == 2 and c.chance(0.5):
                person(c, x, depth + 0.05, 0.09)


def desk(c: Canvas, x: float, y: float, w: float, timber: Color) -> None:
    """Stand a pupil's desk, its top at (x, y), with books on it now and then."""
    for side in (-0.42, 0.42):
        c.line([(x + side * w, y), (x + side * w, y + w * 0.7)], (120, 124, 130), 0.01)
    c.box(x - w / 2, y + w * 0.08, x + w / 2, y + w * 0.32, shade(timber, 0.72))
    c.poly(
        [
            (x - w * 0.42, y - w * 0.12),
            (x + w * 0.42, y - w * 0.12),
            (x + w / 2, y + w * 0.1),
            (x - w / 2, y + w * 0.1),
        ],
        timber,
    )
    if c.chance(0.75):
        books(c, x + c.between(-0.2, 0.2) * w, y, w * 0.4, c.count(1, 4))


def notebook(c: Canvas) -> None:
    """Draw an open exercise book, a textbook, pencils and a ruler seen from above."""
    table = c.wood()
    c.fade(0, 0, c.w, 1, shade(table, 1.2), table)
    for _ in range(12):
        y = c.between(0, 1)
        c.line([(0, y), (c.w, y + c.between(-0.03, 0.03))], shade(table, 0.9), 0.004)
    x, y, w, h = c.w * c.between(0.4, 0.55), c.between(0.45, 0.55), c.between(0.3, 0.4), 0.28
    for _ in range(c.count(1, 3)):
        px, py = c.w * c.pick([0.08, 0.16, 0.88, 0.94]), c.between(0.15, 0.85)
        cover = c.paint(0.65, 0.75)
        c.box(px - 0.13, py - 0.18, px + 0.13, py + 0.18, shade(cover, 0.7), 0.01)
        c.box(px - 0.13, py - 0.18, px + 0.12, py + 0.17, cover, 0.01)
        c.box(px - 0.08, py - 0.12, px + 0.08, py - 0.05, shade(cover, 3))
    c.shadow(x, y + 0.06, w * 1.4, h * 1.4, 0.6)
    for side in (-1, 1):
        page = [(x, y - h + 0.02), (x + side * w, y - h), (x + side * w, y + h), (x, y + h + 0.02)]
        c.poly(page, WHITE)
        for row in range(9):
            top = y - h * 0.8 + row * h * 0.19
            c.line([(x + side * 0.03, top), (x + side * (w - 0.03), top)], (170, 190, 214), 0.003)
            if c.chance(0.75):
                near, far = 0.04, c.between(0.4, 0.95) * (w - 0.03)
                c.line(
                    [(x + side * near, top - 0.012), (x + side * far, top - 0.012)],
                    c.pick([(52, 60, 110), (52, 60, 110), (196, 60, 60)]),
                    0.008,
                )
    c.line([(x, y - h + 0.02), (x, y + h + 0.02)], (168, 166, 160), 0.008)
    for _ in range(c.count(2, 4)):
        start = (c.between(0.1, 0.9) * c.w, c.between(0.7, 0.95))
        tip = (start[0] + c.between(-0.3, 0.3), start[1] - c.between(0.1, 0.25))
        c.line([start, tip], c.paint(0.8, 0.85), 0.022)
        c.line([mix(start, tip, 0.9), tip], (240, 214, 170), 0.02)
    c.box(0.05 * c.w, 0.03, 0.45 * c.w, 0.085, (250, 222, 90, 220))
    for tick in range(16):
        left = c.w * (0.06 + tick * 0.024)
        c.line([(left, 0.03), (left, 0.05 + 0.012 * (tick % 2))], INK, 0.003)


def campus(c: Canvas) -> None:
    """Draw a school building with a flag behind a running track."""
    base = c.between(0.5, 0.58)
    sky(c, base)
    wall = c.tone(c.pick([0.02, 0.1, 0.58]), 0.3, 0.85)
    left, right, top = (
        c.w * c.between(0.02, 0.12),
        c.w * c.between(0.75, 0.98),
        c.between(0.12, 0.22),
    )
    c.box(left, top, right, base, wall)
    c.box(left - 0.01, top - 0.025, right + 0.01, top, shade(wall, 0.7))
    floors, rooms = c.count(3, 4), c.count(7, 11)
    for floor in range(floors):
        for place in range(rooms):
            x = left + (right - left) * (place + 0.15) / rooms
            y = top + (base - top) * (floor + 0.22) / floors
            pane = c.tone(0.56, 0.35, 0.7)
            c.box(x, y, x + (right - left) * 0.7 / rooms, y + (base - top) * 0.5 / floors, pane)
    c.box((left + right) / 2 - 0.07, base - 0.13, (left + right) / 2 + 0.07, base, shade(wall, 0.4))
    pole = c.w * c.between(0.15, 0.85)
    c.line([(pole, base + 0.04), (pole, 0.06)], (214, 216, 220), 0.01)
    c.box(pole, 0.06, pole + 0.13, 0.145, (220, 36, 36))
    c.fade(0, base, c.w, 1, c.tone(0.3, 0.55, 0.5), c.tone(0.3, 0.6, 0.42))
    track = c.tone(0.03, 0.6, 0.7, 0.02)
    c.poly([(0, base + 0.16), (c.w, base + 0.08), (c.w, 1), (0, 1)], track)
    for lane in range(6):
        near = base + 0.2 + lane * 0.09
        c.line([(0, near), (c.w, near - 0.08 + lane * 0.012)], WHITE, 0.007)
    for _ in range(c.count(2, 6)):
        shopper(c, c.w * c.between(0.05, 0.95), c.between(base + 0.15, 0.98), c.between(0.16, 0.28))
    if c.chance(0.3):
        person(c, c.w * c.between(0.2, 0.8), 0.85, 0.13)
