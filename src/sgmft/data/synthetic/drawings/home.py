"""Home: a living room, a bedroom, a corner by the window."""

from __future__ import annotations

from sgmft.data.synthetic.drawings.canvas import Canvas, shade
from sgmft.data.synthetic.drawings.props import (
    INK,
    WHITE,
    books,
    cup,
    curtains,
    plant,
    room,
    window,
)


def living_room(c: Canvas) -> None:
    """Draw a sofa with cushions, a floor lamp, pictures, a rug, a plant."""
    y = room(c, c.tone(0.1, 0.18, 0.88, 0.08), c.wood())
    if c.chance(0.7):
        x, w = c.between(0.1, 0.3) * c.w, c.between(0.3, 0.45)
        window(c, x, 0.1, w, 0.3)
        curtains(c, x, 0.1, w, 0.3)
    else:
        for step in range(c.count(2, 4)):
            left, top, size = c.w * (0.2 + step * 0.17), c.between(0.1, 0.2), c.between(0.1, 0.16)
            c.box(left, top, left + size, top + size * 1.2, c.wood())
            c.box(
                left + 0.015, top + 0.015, left + size - 0.015, top + size * 1.2 - 0.015, c.paint()
            )
    rug = c.paint(0.3, 0.75)
    c.oval(c.w * 0.5, 0.93, c.w * 0.42, 0.11, rug)
    c.oval(c.w * 0.5, 0.93, c.w * 0.33, 0.075, shade(rug, 1.4))
    sofa(c, c.w * c.between(0.4, 0.6), y + c.between(0.16, 0.22), c.between(0.65, 0.85))
    lamp_x = c.w * c.pick([0.08, 0.9])
    c.line([(lamp_x, y + 0.12), (lamp_x, 0.36)], INK, 0.012)
    c.glow(lamp_x, 0.34, 0.35, 0.35, (255, 224, 150), 0.6)
    points = [(lamp_x - 0.05, 0.26), (lamp_x + 0.05, 0.26), (lamp_x + 0.09, 0.38)]
    c.poly([*points, (lamp_x - 0.09, 0.38)], (255, 238, 196))
    plant(c, c.w - lamp_x, y + 0.16, c.between(0.25, 0.4))
    if c.chance(0.5):
        table = c.wood()
        c.oval(c.w * 0.5, 0.92, 0.26, 0.05, shade(table, 0.7))
        c.oval(c.w * 0.5, 0.9, 0.26, 0.05, table)
        cup(c, c.w * 0.5 - 0.05, 0.9, 0.06)
        books(c, c.w * 0.5 + 0.08, 0.9, 0.11, 2)


def sofa(c: Canvas, x: float, y: float, w: float) -> None:
    """Stand a sofa of width `w` with its feet at (x, y)."""
    cloth = c.paint(c.between(0.2, 0.6), c.between(0.45, 0.85))
    c.shadow(x, y, w * 0.62, 0.06)
    c.box(x - w / 2, y - w * 0.46, x + w / 2, y - 0.05, shade(cloth, 0.88), 0.05)
    seats = c.count(2, 3)
    for seat in range(seats):
        left = x - w * 0.42 + w * 0.84 * seat / seats
        right = left + w * 0.84 / seats - 0.008
        c.box(left, y - w * 0.42, right, y - w * 0.14, shade(cloth, 1.08), 0.03)
        c.box(left, y - w * 0.2, right, y - w * 0.08, shade(cloth, 1.25), 0.025)
    for side in (-1, 1):
        c.box(x + side * w * 0.5, y - w * 0.3, x + side * w * 0.4, y - 0.02, cloth, 0.04)
        pillow = x + side * w * c.between(0.2, 0.3)
        c.box(
            pillow - 0.06, y - w * 0.3 - 0.04, pillow + 0.06, y - w * 0.17, c.paint(0.6, 0.85), 0.02
        )
    c.box(x - w * 0.46, y - 0.05, x + w * 0.46, y - 0.012, shade(cloth, 0.75))


def bedroom(c: Canvas) -> None:
    """Draw a bed with pillows and a quilt, a bedside lamp, a window."""
    night = c.chance(0.5)
    y = room(c, c.tone(0.08, 0.2, 0.6 if night else 0.88, 0.1), c.wood())
    x, w = c.between(0.55, 0.75) * c.w, 0.32
    window(c, x, 0.1, w, 0.32, night)
    curtains(c, x, 0.1, w, 0.32)
    head, quilt = c.wood(), c.paint(c.between(0.2, 0.55), 0.8)
    left, right = c.w * c.between(0.08, 0.18), c.w * c.between(0.62, 0.75)
    c.shadow((left + right) / 2, 0.95, (right - left) * 0.7, 0.14)
    c.box(left, y - 0.28, right, y + 0.1, head, 0.03)
    c.box(left + 0.02, y - 0.02, right - 0.02, y + 0.08, WHITE, 0.03)
    for pillow in (0.27, 0.73):
        middle = left + (right - left) * pillow
        c.box(middle - 0.12, y - 0.1, middle + 0.12, y + 0.04, shade(WHITE, 0.9), 0.05)
        c.box(middle - 0.11, y - 0.105, middle + 0.11, y + 0.02, WHITE, 0.05)
    c.poly([(left, y + 0.05), (right, y + 0.05), (right + 0.14, 1), (left - 0.08, 1)], quilt)
    c.poly(
        [(left, y + 0.05), (right, y + 0.05), (right + 0.03, y + 0.13), (left - 0.02, y + 0.13)],
        shade(quilt, 1.7),
    )
    for stripe in range(c.count(0, 5)):
        top = y + 0.16 + stripe * 0.05
        c.line([(left - 0.04, top), (right + 0.05, top)], shade(quilt, 0.85), 0.01)
    stand = right + 0.1
    c.box(stand - 0.07, y - 0.06, stand + 0.1, y + 0.14, shade(head, 0.85))
    c.glow(stand, y - 0.17, 0.3, 0.3, (255, 214, 140), 0.75 if night else 0.4)
    c.line([(stand, y - 0.06), (stand, y - 0.14)], INK, 0.012)
    c.poly(
        [
            (stand - 0.035, y - 0.24),
            (stand + 0.035, y - 0.24),
            (stand + 0.065, y - 0.13),
            (stand - 0.065, y - 0.13),
        ],
        (255, 236, 190),
    )


def home_corner(c: Canvas) -> None:
    """Draw a bookshelf, an armchair and a plant by the balcony window."""
    y = room(c, c.tone(0.12, 0.15, 0.9, 0.1), c.wood())
    window(c, c.w * 0.5, 0.06, c.w * 0.42, y - 0.12, c.chance(0.3))
    curtains(c, c.w * 0.5, 0.06, c.w * 0.42, y - 0.14)
    timber, left, right = c.wood(), c.w * 0.05, c.w * c.between(0.3, 0.38)
    c.box(left, 0.08, right, y + 0.04, shade(timber, 0.6))
    levels = c.count(3, 5)
    for level in range(levels):
        foot = 0.08 + (y - 0.04) * (level + 1) / levels
        x = left + 0.02
        while x < right - 0.05:
            wide, high = c.between(0.015, 0.035), (y - 0.05) / levels * c.between(0.55, 0.85)
            c.box(x, foot - high, x + wide, foot, c.paint(0.5, 0.7))
            x += wide + c.pick([0.002, 0.002, 0.05])
        c.box(left, foot, right, foot + 0.016, timber)
    sofa(c, c.w * c.between(0.58, 0.68), y + 0.25, c.between(0.5, 0.62))
    plant(c, c.w * 0.93, y + 0.18, c.between(0.3, 0.45))
    plant(c, c.w * 0.42, y + 0.1, c.between(0.15, 0.25))
