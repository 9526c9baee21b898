"""Shopping Center: a supermarket aisle, a shelf, a mall."""

from __future__ import annotations

from sgmft.data.synthetic.drawings.canvas import Canvas, Color, Point, mix, shade
from sgmft.data.synthetic.drawings.props import INK, WHITE, bag, shopper

TAG = (255, 226, 70)


def aisle(c: Canvas) -> None:
    """Draw a supermarket aisle: shelves full of goods on both sides, lights, a trolley."""
    vanish = (c.w * c.between(0.4, 0.6), c.between(0.36, 0.46))
    c.fade(0, 0, c.w, vanish[1], c.tone(0.55, 0.03, 0.9, 0.02), c.tone(0.55, 0.05, 0.98, 0.02))
    c.fade(0, vanish[1], c.w, 1, c.tone(0.1, 0.08, 0.75), c.tone(0.1, 0.06, 0.92))
    for light in (0.15, 0.4, 0.6, 0.85):
        near = (c.w * light, 0.0)
        c.line([mix(near, vanish, 0.05), mix(near, vanish, 0.8)], (255, 255, 255), 0.018)
    rows, frame = c.count(4, 5), c.tone(0.58, 0.08, 0.8)
    for edge in (0.0, c.w):
        inner = edge + (vanish[0] - edge) * 0.78
        c.poly(
            [
                (edge, 0.02),
                (inner, mix((edge, 0.02), vanish, 0.78)[1]),
                (inner, mix((edge, 1.06), vanish, 0.78)[1]),
                (edge, 1.06),
            ],
            shade(frame, 0.75),
        )
        for row in range(rows):
            goods(c, edge, vanish, 0.05 + row / rows, 0.96 / rows, frame)
    for _ in range(c.count(1, 2)):
        sign, t = c.w * c.between(0.35, 0.65), c.between(0.1, 0.2)
        c.box(
            sign - 0.12, t, sign + 0.12, t + 0.08, c.pick([(212, 42, 46), (24, 128, 84), TAG]), 0.01
        )
        c.box(sign - 0.08, t + 0.03, sign + 0.08, t + 0.05, WHITE)
    for _ in range(c.count(0, 2)):
        shopper(c, vanish[0] + c.between(-0.12, 0.12), c.between(0.62, 0.8), c.between(0.28, 0.4))
    if c.chance(0.5):
        trolley(c, vanish[0] + c.between(-0.1, 0.1), 0.98)


def goods(c: Canvas, edge: float, vanish: Point, top: float, height: float, frame: Color) -> None:
    """Fill one shelf that runs from the picture's edge towards the vanishing point."""
    t = 0.0
    stock = c.paint(0.75, 0.85)
    while t < 0.76:
        step = c.between(0.05, 0.09) * (1 - t * 0.8)
        high = height * c.between(0.5, 0.85)
        if c.chance(0.5):
            stock = c.paint(0.75, 0.88)
        upper, lower = top + height * 0.88 - high, top + height * 0.88
        quad = [
            mix((edge, upper), vanish, t),
            mix((edge, upper), vanish, t + step * 0.9),
            mix((edge, lower), vanish, t + step * 0.9),
            mix((edge, lower), vanish, t),
        ]
        c.poly(quad, stock)
        c.poly(
            [
                mix(quad[0], quad[3], 0.35),
                mix(quad[1], quad[2], 0.35),
                mix(quad[1], quad[2], 0.6),
                mix(quad[0], quad[3], 0.6),
            ],
            shade(stock, 2.2),
        )
        tag = [(edge, lower), (edge, top + height)]
        if c.chance(0.6):
            c.poly(
                [
                    mix(tag[0], vanish, t),
                    mix(tag[0], vanish, t + step * 0.5),
                    mix(tag[1], vanish, t + step * 0.5),
                    mix(tag[1], vanish, t),
                ],
                TAG,
            )
        t += step
    ends = [(edge, top + height), (edge + (vanish[0] - edge) * 0.78, 0.0)]
    c.line([ends[0], mix(ends[0], vanish, 0.78)], shade(frame, 1.4), 0.008)


def trolley(c: Canvas, x: float, y: float) -> None:
    """Push a wire trolley into the picture, its wheels at (x, y)."""
    wire = (148, 152, 160)
    top, foot = y - 0.3, y - 0.1
    for item in range(6):
        left = x - 0.16 + item * 0.05
        c.box(left, top + c.between(-0.05, 0.06), left + 0.055, foot, c.paint(0.7, 0.85), 0.01)
    for share in range(8):
        t = share / 7
        c.line([(x - 0.2 + 0.4 * t, top), (x - 0.16 + 0.32 * t, foot)], wire, 0.006)
    for level in (0.0, 0.5, 1.0):
        half, height = 0.2 - 0.04 * level, top + (foot - top) * level
        c.line([(x - half, height), (x + half, height)], wire, 0.008)
    c.box(x - 0.22, top - 0.02, x + 0.22, top, (206, 44, 48), 0.01)
    for side in (-0.13, 0.13):
        c.oval(x + side, y - 0.03, 0.025, 0.025, INK)


def shelf(c: Canvas) -> None:
    """Draw a shelf from the front: boxes, bottles and price tags, rows of a kind."""
    frame = c.tone(0.1, 0.1, 0.9)
    c.fade(0, 0, c.w, 1, shade(frame, 0.8), shade(frame, 0.65))
    rows = c.count(3, 4)
    for row in range(rows):
        foot = (row + 0.86) / rows
        x = -0.02
        while x < c.w:
            wide, high = c.between(0.05, 0.1), c.between(0.55, 0.78) / rows
            stock, bottle = c.paint(0.7, 0.85), c.chance(0.4)
            for _ in range(c.count(2, 4)):
                if bottle:
                    c.box(
                        x + wide * 0.32, foot - high, x + wide * 0.62, foot, shade(stock, 0.7), 0.01
                    )
                    c.box(x, foot - high * 0.72, x + wide * 0.92, foot, stock, 0.02)
                else:
                    c.box(x, foot - high, x + wide * 0.94, foot, stock)
                c.box(x, foot - high * 0.5, x + wide * 0.9, foot - high * 0.2, shade(stock, 2.5))
                x += wide
        c.box(0, foot, c.w, (row + 1) / rows, WHITE)
        for tag in range(int(c.w / 0.16) + 1):
            left = tag * 0.16 + c.between(0.01, 0.05)
            c.box(left, foot + 0.015, left + 0.09, foot + 0.055, c.pick([TAG, TAG, (226, 52, 48)]))
            c.box(left + 0.015, foot + 0.028, left + 0.06, foot + 0.042, INK)
    if c.chance(0.5):
        bag(c, c.w * c.between(0.15, 0.85), 0.99, c.between(0.25, 0.38))


def mall(c: Canvas) -> None:
    """Draw a mall: two floors of lit shop fronts with signs, clothes, shoppers and bags."""
    c.fade(0, 0, c.w, 1, c.tone(0.11, 0.08, 0.96, 0.03), c.tone(0.11, 0.1, 0.8, 0.03))
    floor = c.between(0.74, 0.8)
    c.fade(0, floor, c.w, 1, c.tone(0.1, 0.08, 0.78), c.tone(0.1, 0.05, 0.93))
    shops = c.count(2, 3) if c.w > 1 else 2
    for top, foot in ((0.03, 0.33), (0.4, floor)):
        for shop in range(shops):
            left, right = c.w * shop / shops + 0.015, c.w * (shop + 1) / shops - 0.015
            front(c, left, right, top, foot)
    c.box(0, 0.345, c.w, 0.385, (214, 216, 218))
    c.box(0, 0.33, c.w, 0.338, (150, 154, 160))
    if c.chance(0.4):
        start, rise = (c.w * c.between(0, 0.2), 0.95), 0.65
        end = (start[0] + 0.6, start[1] - rise)
        c.line([start, end], (150, 154, 162), 0.1)
        c.line([start, end], (88, 92, 100), 0.05)
        c.line([(start[0], start[1] - 0.1), (end[0], end[1] - 0.1)], INK, 0.014)
    for _ in range(c.count(1, 4)):
        x, y = c.between(0.08, 0.92) * c.w, c.between(0.86, 0.99)
        shopper(c, x, y, c.between(0.32, 0.46))
        bag(c, x + 0.09, y, c.between(0.08, 0.12))


def front(c: Canvas, left: float, right: float, top: float, foot: float) -> None:
    """Draw one shop front: a sign over a lit window with clothes or goods in it."""
    brand = c.paint(0.7, c.between(0.25, 0.85))
    sign = top + (foot - top) * 0.22
    c.fade(left, sign, right, foot, (255, 246, 222), c.tone(0.1, 0.2, 0.85))
    c.box(left, top, right, sign, brand)
    x = left + (right - left) * 0.25
    while x < right - (right - left) * 0.25:
        c.box(x, top + (sign - top) * 0.3, x + 0.018, sign - (sign - top) * 0.3, shade(brand, 6))
        x += 0.028
    height = foot - sign
    if c.chance(0.6):
        rail = sign + height * 0.25
        c.line([(left + 0.02, rail), (right - 0.02, rail)], INK, 0.006)
        x = left + 0.03
        while x < right - 0.08:
            c.box(
                x, rail, x + 0.045, rail + height * c.between(0.35, 0.55), c.paint(0.5, 0.75), 0.012
            )
            x += c.between(0.05, 0.07)
    else:
        for row in (0.4, 0.7, 0.97):
            for item in range(int((right - left) / 0.07)):
                x, y = left + 0.02 + item * 0.07, sign + height * row
                c.box(x, y - height * 0.2, x + 0.045, y, c.paint(0.6, 0.85), 0.008)
            c.line([(left, sign + height * row), (right, sign + height * row)], (160, 140, 110))
