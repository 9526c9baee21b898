"""Things that stand in more than one kind of place: rooms, windows, plants, people, cups."""

from __future__ import annotations

from math import cos, pi, sin

from sgmft.data.synthetic.drawings.canvas import Canvas, Color, shade

INK = (40, 38, 46)

WHITE = (247, 246, 242)


def room(c: Canvas, wall: Color, floor: Color) -> float:
    """Draw a wall and a floor, sometimes a corner; return the y where they meet."""
    y = c.between(0.58, 0.72)
    c.fade(0, 0, c.w, y, shade(wall, 1.15), wall)
    c.fade(0, y, c.w, 1, shade(floor, 0.8), floor)
    vanish = c.between(0.3, 0.7) * c.w
    for step in range(-14, 15):
        ends = [(vanish + step * 0.08, y), (vanish + step * 0.36, 1.0)]
        c.line(ends, shade(floor, 0.78), 0.004)
    if c.chance(0.45):
        x = c.between(0.08, 0.25) * c.w
        c.poly([(0, 0), (x, 0), (x, y), (0, min(1.0, y + x * 0.8))], shade(wall, 0.86))
    c.box(0, y - 0.018, c.w, y, shade(wall, 1.5))
    return y


def window(c: Canvas, x: float, y: float, w: float, h: float, night: bool = False) -> None:
    """Draw a window with its top left at (x, y): sky, or a lit skyline at night."""
    sky = c.tone(0.65, 0.6, 0.22) if night else c.tone(0.56, 0.35, 0.92)
    c.box(x - 0.015, y - 0.015, x + w + 0.015, y + h + 0.015, WHITE)
    c.fade(x, y, x + w, y + h, sky, shade(sky, 1.6))
    left = x
    while left < x + w - 0.02:
        right = min(x + w, left + c.between(0.04, 0.09))
        top = y + h * c.between(0.45, 0.85)
        house = shade(sky, c.between(0.55, 0.8))
        c.box(left, top, right, y + h, house)
        if night:
            for _ in range(5):
                spot_x, spot_y = c.between(left, right - 0.008), c.between(top, y + h)
                c.box(spot_x, spot_y, spot_x + 0.006, spot_y + 0.006, (255, 214, 120))
        left = right
    panes = c.count(2, 3)
    for pane in range(1, panes):
        c.box(x + w * pane / panes - 0.006, y, x + w * pane / panes + 0.006, y + h, WHITE)
    c.box(x - 0.025, y + h + 0.01, x + w + 0.025, y + h + 0.03, shade(WHITE, 0.88))


def curtains(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    """Hang a pair of curtains beside a window."""
    cloth = c.paint(0.35, 0.75)
    c.box(x - 0.1, y - 0.04, x + w + 0.1, y - 0.028, shade(cloth, 0.5))
    for side in (x - 0.08, x + w - 0.02):
        for fold in range(5):
            left = side + fold * 0.02
            c.box(left, y - 0.03, left + 0.02, y + h + 0.1, shade(cloth, 1.12 - 0.09 * (fold % 3)))


def plant(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a potted plant with its foot at (x, y)."""
    leaf, pot = c.tone(0.34, 0.55, 0.5), c.tone(0.06, 0.45, 0.75)
    c.shadow(x, y, size * 0.5, size * 0.1)
    for step in range(c.count(7, 11)):
        angle = pi * (0.12 + 0.76 * step / 10)
        reach = size * c.between(0.6, 0.95)
        tip = (x + cos(angle) * reach * 0.7, y - size * 0.3 - sin(angle) * reach)
        middle = (x + (tip[0] - x) * 0.5, y - size * 0.3 + (tip[1] - y + size * 0.3) * 0.5)
        wide = size * 0.09
        points = [(x, y - size * 0.3), (middle[0] - wide, middle[1]), tip]
        c.poly([*points, (middle[0] + wide, middle[1])], shade(leaf, c.between(0.7, 1.3)))
    a, b = size * 0.2, size * 0.14
    c.poly([(x - a, y - size * 0.36), (x + a, y - size * 0.36), (x + b, y), (x - b, y)], pot)


def person(c: Canvas, x: float, y: float, size: float, dark: float = 1.0) -> None:
    """Draw somebody's head and shoulders from behind; (x, y) is the nape, `dark` < 1 dims."""
    hair = shade(c.pick([(38, 30, 28), (70, 48, 36), (28, 28, 34), (96, 66, 44)]), dark)
    coat = shade(c.paint(0.4, 0.6), dark)
    c.box(x - size * 0.75, y, x + size * 0.75, y + size * 2.2, coat, size * 0.5)
    c.box(x - size * 0.15, y - size * 0.3, x + size * 0.15, y + 0.1 * size, (205, 160, 130))
    c.oval(x, y - size * 0.6, size * 0.42, size * 0.52, hair)
    if c.chance(0.4):
        c.box(x - size * 0.42, y - size * 0.6, x + size * 0.42, y + size * 0.35, hair, size * 0.2)


def shopper(c: Canvas, x: float, y: float, size: float) -> None:
    """Draw a standing figure of height `size` with its feet at (x, y)."""
    skin, coat = (222, 180, 150), c.paint(0.55, 0.75)
    c.shadow(x, y, size * 0.25, size * 0.05)
    for side in (-1, 1):
        left = x + side * size * 0.06
        c.box(left - size * 0.05, y - size * 0.45, left + size * 0.05, y, shade(coat, 0.45))
    c.box(x - size * 0.14, y - size * 0.8, x + size * 0.14, y - size * 0.38, coat, size * 0.06)
    c.oval(x, y - size * 0.9, size * 0.085, size * 0.1, skin)
    c.oval(x, y - size * 0.93, size * 0.09, size * 0.08, INK)


def bag(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a paper shopping bag with its foot at (x, y)."""
    paper = c.paint(0.65, 0.85)
    half = size * 0.4
    c.shadow(x, y, half * 1.4, size * 0.1)
    loop = [(x - half * 0.5, y - size), (x - half * 0.4, y - size * 1.3)]
    c.line([*loop, (x + half * 0.4, y - size * 1.3), (x + half * 0.5, y - size)], INK, 0.008)
    c.box(x - half, y - size, x + half, y, paper)
    c.poly(
        [(x + half, y), (x + half, y - size), (x + half * 1.4, y - size * 0.9)], shade(paper, 0.7)
    )
    c.oval(x, y - size * 0.5, half * 0.45, half * 0.45, shade(paper, 2.2))


def cup(c: Canvas, x: float, y: float, size: float) -> None:
    """Stand a mug with its foot at (x, y)."""
    glaze = c.paint(0.45, 0.9)
    c.shadow(x, y, size * 0.6, size * 0.14)
    c.oval(x + size * 0.38, y - size * 0.45, size * 0.2, size * 0.24, shade(glaze, 0.8))
    c.box(x - size * 0.38, y - size * 0.9, x + size * 0.38, y, glaze, size * 0.1)
    c.oval(x, y - size * 0.88, size * 0.36, size * 0.09, (88, 56, 40))


def books(c: Canvas, x: float, y: float, width: float, number: int) -> None:
    """Stack `number` books on the point (x, y)."""
    for level in range(number):
        shift, top = c.between(-0.1, 0.1) * width, y - (level + 1) * width * 0.2
        cover = c.paint(0.6, 0.7)
        left, right = x - width / 2 + shift, x + width / 2 + shift
        c.box(left, top, right, top + width * 0.19, cover)
        c.box(left + width * 0.85, top + width * 0.03, right, top + width * 0.16, WHITE)


def screen(c: Canvas, x: float, y: float, w: float) -> None:
    """Stand a computer monitor with its foot at (x, y): code, a table or a chart on it."""
    h = w * 0.58
    top = y - h - w * 0.14
    c.shadow(x, y, w * 0.4, w * 0.05)
    c.box(x - w * 0.05, top + h, x + w * 0.05, y, (90, 92, 98))
    c.box(x - w * 0.18, y - w * 0.025, x + w * 0.18, y, (110, 112, 118), 0.01)
    c.box(x - w / 2, top, x + w / 2, top + h, (32, 33, 38), 0.012)
    display(c, x - w / 2 + 0.012, top + 0.012, w - 0.024, h - 0.024)


def display(c: Canvas, x: float, y: float, w: float, h: float) -> None:
    """Fill a rectangle with what an office computer shows."""
    dark, kind = c.chance(0.4), c.count(0, 2)
    back = c.tone(0.62, 0.3, 0.18) if dark else c.tone(0.58, 0.05, 0.95, 0.02)
    c.box(x, y, x + w, y + h, back)
    c.box(x, y, x + w, y + h * 0.1, c.tone(0.6, 0.5, 0.6))
    if kind == 0:
        for row in range(8):
            left = x + w * (0.06 + 0.06 * c.count(0, 3))
            top = y + h * (0.17 + row * 0.1)
            c.box(left, top, left + w * c.between(0.2, 0.6), top + h * 0.04, c.paint(0.4, 0.75))
    elif kind == 1:
        for bar in range(7):
            left, high = x + w * (0.1 + bar * 0.12), h * c.between(0.2, 0.65)
            c.box(left, y + h * 0.92 - high, left + w * 0.08, y + h * 0.92, c.tone(0.57, 0.6, 0.8))
    else:
        for row in range(1, 8):
            top = y + h * (0.1 + row * 0.11)
            c.line([(x, top), (x + w, top)], shade(back, 0.8), 0.003)
        for column in range(1, 6):
            left = x + w * column / 6
            c.line([(left, y + h * 0.1), (left, y + h)], shade(back, 0.8), 0.003)
