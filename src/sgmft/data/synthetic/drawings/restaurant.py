"""Restaurant: a laid table, a bowl of noodles, a dining room."""

from __future__ import annotations

from math import cos, pi, sin

from sgmft.data.synthetic.drawings.canvas import Canvas, Color, shade
from sgmft.data.synthetic.drawings.props import INK, WHITE, person

FOODS = (
    (0.3, 0.65, 0.55),
    (0.02, 0.7, 0.6),
    (0.07, 0.75, 0.5),
    (0.12, 0.6, 0.9),
    (0.05, 0.7, 0.85),
)


def spread(c: Canvas) -> None:
    """Draw a laid table from above: dishes, rice bowls, chopsticks, perhaps a hot pot."""
    tilt = c.between(0.62, 1.0)
    cloth = c.wood() if c.chance(0.6) else c.tone(c.pick([0.0, 0.08, 0.6]), 0.5, 0.6)
    c.fade(0, 0, c.w, 1, shade(cloth, 0.85), shade(cloth, 1.1))
    for plank in range(c.count(4, 8)):
        y = (plank + c.between(0, 0.3)) / 7
        c.line([(0, y), (c.w, y)], shade(cloth, 0.8), 0.004)
    centre = (c.w * c.between(0.42, 0.58), c.between(0.42, 0.55))
    hot = c.chance(0.4)
    number, turn = c.count(5, 8), c.between(0, pi)
    reach = min(c.w, 1.0) * 0.36
    for place in range(number):
        angle = turn + 2 * pi * place / number
        x, y = centre[0] + cos(angle) * reach * 1.2, centre[1] + sin(angle) * reach * 1.05
        dish(c, x, y, c.between(0.11, 0.16), tilt)
    if hot:
        hotpot(c, *centre, c.between(0.2, 0.26), tilt)
    else:
        dish(c, *centre, c.between(0.17, 0.22), tilt)
    for _ in range(c.count(2, 4)):
        x, y = c.w * c.between(0.02, 0.98), c.pick([c.between(0.02, 0.2), c.between(0.8, 0.98)])
        if c.chance(0.5):
            bowl(c, x, y, c.between(0.07, 0.1), tilt)
        chopsticks(c, x + 0.14, y, c.between(-0.4, 0.4))


def dish(c: Canvas, x: float, y: float, r: float, tilt: float) -> None:
    """Set a plate of food on the table, its middle at (x, y)."""
    glaze = c.pick([WHITE, WHITE, c.tone(0.58, 0.2, 0.9), c.tone(0.1, 0.25, 0.4)])
    c.shadow(x + 0.01, y + 0.025, r * 1.3, r * tilt * 1.3, 0.6)
    c.oval(x, y, r, r * tilt, shade(glaze, 0.9))
    c.oval(x, y - 0.005, r * 0.95, r * 0.95 * tilt, glaze)
    c.oval(x, y, r * 0.76, r * 0.76 * tilt, shade(glaze, 0.92))
    heap(c, x, y, r * 0.66, tilt, c.count(26, 40))


def heap(c: Canvas, x: float, y: float, r: float, tilt: float, pieces: int) -> None:
    """Heap pieces of one dish and its garnish into a circle of radius `r`."""
    main, garnish = c.pick(FOODS), c.pick(FOODS)
    for piece in range(pieces):
        angle, away = c.between(0, 2 * pi), r * c.between(0, 1) ** 0.5
        color = c.tone(*(garnish if piece % 4 == 0 else main), 0.04)
        size = r * c.between(0.12, 0.24)
        px, py = x + cos(angle) * away, y + sin(angle) * away * tilt
        c.oval(px, py + size * 0.2, size, size * c.between(0.5, 0.9), shade(color, 0.6))
        c.oval(px, py, size, size * c.between(0.5, 0.8), color)


def bowl(c: Canvas, x: float, y: float, r: float, tilt: float) -> None:
    """Set a bowl of rice or soup on the table."""
    glaze = c.pick([WHITE, c.tone(0.6, 0.4, 0.75), c.tone(0.02, 0.6, 0.6)])
    c.shadow(x, y + r * 0.4, r * 1.3, r, 0.5)
    c.oval(x, y + r * 0.3, r * 0.9, r * 0.8, shade(glaze, 0.75))
    c.oval(x, y, r, r * tilt, glaze)
    c.oval(
        x, y, r * 0.86, r * 0.86 * tilt, c.pick([(250, 248, 240), (214, 150, 70), (190, 70, 40)])
    )


def chopsticks(c: Canvas, x: float, y: float, lean: float) -> None:
    """Lay a pair of chopsticks down."""
    color = c.pick([(52, 32, 26), (150, 92, 50), (196, 44, 40)])
    for gap in (0.0, 0.022):
        ends = [(x + gap - lean * 0.16, y - 0.17), (x + gap * 0.6 + lean * 0.16, y + 0.17)]
        c.line(
            [(ends[0][0] + 0.008, ends[0][1] + 0.01), (ends[1][0] + 0.008, ends[1][1] + 0.01)],
            (20, 16, 16, 90),
            0.012,
        )
        c.line(ends, color, 0.011)


def hotpot(c: Canvas, x: float, y: float, r: float, tilt: float) -> None:
    """Set a two-flavour hot pot on the table, steaming."""
    red, clear = c.tone(0.02, 0.85, 0.7, 0.02), c.tone(0.12, 0.35, 0.9, 0.02)
    c.shadow(x, y + 0.05, r * 1.3, r * tilt * 1.3, 0.7)
    c.oval(x, y + r * 0.18, r, r * tilt, (96, 98, 104))
    c.oval(x, y, r, r * tilt, (198, 200, 206))
    c.oval(x, y, r * 0.9, r * 0.9 * tilt, clear)
    turn = c.between(0, 2 * pi)
    rim: list[Color] = [red]
    arc = [turn + pi * step / 18 for step in range(19)]
    c.poly([(x + cos(a) * r * 0.9, y + sin(a) * r * 0.9 * tilt) for a in arc], rim[0])
    c.line(
        [(x + cos(a) * r * 0.9, y + sin(a) * r * 0.9 * tilt) for a in (arc[0], arc[-1])],
        (198, 200, 206),
        0.014,
    )
    heap(c, x, y, r * 0.75, tilt, 22)
    for _ in range(c.count(2, 4)):
        cx, cy = x + c.between(-0.5, 0.5) * r, y - c.between(0, 1.2) * r
        c.glow(cx, cy, r * 0.7, r * 0.6, (255, 255, 255), 0.5)


def noodles(c: Canvas) -> None:
    """Draw one big bowl of noodles close up, with egg, greens and lifted chopsticks."""
    table = c.wood()
    c.fade(0, 0, c.w, 1, shade(table, 0.7), shade(table, 1.05))
    for _ in range(5):
        c.glow(c.between(0, c.w), c.between(0, 0.3), 0.14, 0.14, c.tone(0.1, 0.6, 0.9), 0.5)
    x, y = c.w * c.between(0.42, 0.58), c.between(0.5, 0.58)
    r, tilt = min(c.between(0.36, 0.46), c.w * 0.46), c.between(0.6, 0.95)
    glaze = c.pick([WHITE, (60, 58, 62), c.tone(0.6, 0.5, 0.6), c.tone(0.02, 0.65, 0.55)])
    c.shadow(x, y + r * 0.5, r * 1.5, r * 0.9, 0.7)
    c.oval(x, y + r * 0.25, r * 0.96, r * 0.85, shade(glaze, 0.7))
    c.oval(x, y, r, r * tilt, glaze)
    soup = c.tone(c.pick([0.03, 0.08, 0.12]), 0.65, c.between(0.5, 0.85), 0.02)
    c.oval(x, y, r * 0.9, r * 0.9 * tilt, soup)
    noodle = c.tone(0.13, 0.35, 0.93, 0.02)
    for _ in range(26):
        start, bend = c.between(0, 2 * pi), c.between(0.3, 0.75) * r
        points = [
            (x + cos(start + s * 0.25) * bend, y + sin(start + s * 0.25) * bend * tilt)
            for s in range(8)
        ]
        c.line(points, shade(noodle, c.between(0.82, 1.2)), 0.014)
    for side in range(c.count(1, 2)):
        ex, ey = x + (side * 0.7 - 0.35) * r, y + c.between(-0.3, 0.2) * r * tilt
        c.oval(ex, ey, r * 0.24, r * 0.2, WHITE)
        c.oval(ex, ey, r * 0.13, r * 0.11, (244, 160, 44))
    heap(c, x + r * 0.3, y + r * 0.3 * tilt, r * 0.3, tilt, 16)
    for _ in range(20):
        angle, away = c.between(0, 2 * pi), r * 0.8 * c.between(0, 1)
        c.oval(x + cos(angle) * away, y + sin(angle) * away * tilt, 0.012, 0.01, (86, 168, 66))
    chopsticks(c, x + r * 0.7, y - r * 0.5, c.between(-0.7, -0.3))
    for _ in range(c.count(1, 3)):
        c.glow(
            x + c.between(-0.3, 0.3), y - r * c.between(0.2, 1), 0.2, 0.22, (255, 255, 255), 0.35
        )
    dish(c, c.w * c.pick([0.06, 0.95]), c.between(0.1, 0.3), 0.13, tilt)


def dining_room(c: Canvas) -> None:
    """Draw a warm dining room: lanterns over tables with cloths, dishes and guests."""
    c.fade(0, 0, c.w, 0.55, c.tone(0.04, 0.6, 0.3), c.tone(0.07, 0.6, 0.5))
    c.fade(0, 0.5, c.w, 1, c.tone(0.06, 0.5, 0.3), c.tone(0.06, 0.5, 0.42))
    lattice = shade(c.wood(), 0.7)
    for bar in range(int(c.w / 0.12) + 1):
        c.line([(bar * 0.12, 0.12), (bar * 0.12, 0.5)], lattice, 0.01)
    for level in (0.12, 0.3, 0.5):
        c.line([(0, level), (c.w, level)], lattice, 0.014)
    lantern = c.pick([(214, 36, 32), (214, 36, 32), (250, 196, 96)])
    for lamp in range(c.count(2, 5)):
        x, y = c.w * (0.1 + lamp * 0.22), c.between(0.1, 0.2)
        c.line([(x, 0), (x, y)], INK, 0.005)
        c.glow(x, y, 0.26, 0.26, (255, 170, 80), 0.6)
        c.oval(x, y, 0.07, 0.055, lantern)
        c.oval(x, y, 0.03, 0.052, shade(lantern, 1.5))
        c.box(x - 0.025, y + 0.05, x + 0.025, y + 0.062, (240, 200, 90))
        c.line([(x, y + 0.06), (x, y + 0.1)], lantern, 0.012)
    cloth = c.pick([WHITE, (196, 40, 44), c.wood(), c.tone(0.1, 0.2, 0.85)])
    for place in range(c.count(2, 3)):
        x, y = c.w * (0.15 + place * 0.35), c.between(0.52, 0.6)
        table(c, x, y, c.between(0.16, 0.2), cloth, 2)
    table(c, c.w * c.between(0.4, 0.6), 0.82, min(0.5, c.w * 0.42), cloth, 6)


def table(c: Canvas, x: float, y: float, r: float, cloth: Color, dishes: int) -> None:
    """Stand a round table with guests behind it and dishes on it."""
    for seat in range(c.count(2, 4)):
        if c.chance(0.75):
            person(c, x + (seat - 1.2) * r * 0.6, y - r * 0.4, r * 0.24, 0.8)
    c.shadow(x, y + r * 0.4, r * 1.4, r * 0.6, 0.7)
    c.box(x - r * 0.96, y, x + r * 0.96, y + r * 0.55, shade(cloth, 0.7), r * 0.1)
    c.oval(x, y, r, r * 0.36, cloth)
    for place in range(dishes):
        angle = 2 * pi * place / dishes + 0.4
        dish(c, x + cos(angle) * r * 0.6, y + sin(angle) * r * 0.2, r * 0.2, 0.42)
    if dishes > 3:
        hotpot(c, x, y - 0.02, r * 0.26, 0.45)
        chopsticks(c, x + r * 0.75, y + 0.04, 0.8)
