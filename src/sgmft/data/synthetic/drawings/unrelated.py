"""Pictures that tell no place: patterns, portraits, cats, skies, screenshots, flowers."""

from __future__ import annotations

from math import cos, pi, sin

from sgmft.data.synthetic.drawings.canvas import Canvas, shade
from sgmft.data.synthetic.drawings.props import INK, WHITE
from sgmft.data.synthetic.drawings.travel import sky


def pattern(c: Canvas) -> None:
    """Draw coloured blobs or stripes on a plain ground."""
    c.fade(0, 0, c.w, 1, c.paint(0.3, 0.9), c.paint(0.3, 0.7))
    stripes = c.chance(0.4)
    for step in range(c.count(6, 16)):
        color = (*c.paint(0.5, 0.85), 150)
        if stripes:
            x = step * 0.14
            c.poly([(x, 0), (x + 0.07, 0), (x - 0.2, 1), (x - 0.27, 1)], color)
        else:
            r = c.between(0.05, 0.25)
            c.oval(c.w * c.between(0, 1), c.between(0, 1), r, r, color)


def portrait(c: Canvas) -> None:
    """Draw a face close up before a plain wall, as in a selfie."""
    c.fade(0, 0, c.w, 1, c.paint(0.2, 0.9), c.paint(0.2, 0.75))
    x, y, r = c.w * c.between(0.4, 0.6), c.between(0.42, 0.52), c.between(0.2, 0.27)
    skin, hair = (
        c.tone(0.07, 0.3, 0.92, 0.02),
        c.pick([INK, (74, 48, 36), (128, 84, 52), (168, 90, 120)]),
    )
    long = c.chance(0.5)
    c.box(x - r * 1.2, y - r * 0.6, x + r * 1.2, y + r * (2 if long else 0.4), hair, r * 0.6)
    c.box(x - r * 1.7, y + r * 1.55, x + r * 1.7, 1.1, c.paint(0.5, 0.8), r * 0.8)
    c.box(x - r * 0.35, y + r * 0.8, x + r * 0.35, y + r * 1.75, shade(skin, 0.88), 0.03)
    c.oval(x, y - r * 0.5, r * 1.2, r * 1.15, hair)
    c.oval(x, y + r * 0.1, r, r * 1.2, skin)
    c.poly([(x - r, y - r * 0.2), (x, y - r * 1.15), (x + r, y - r * 0.2), (x, y - r * 0.55)], hair)
    for side in (-1, 1):
        c.oval(x + side * r * 0.4, y + r * 0.05, r * 0.15, r * 0.1, WHITE)
        c.oval(x + side * r * 0.4, y + r * 0.05, r * 0.09, r * 0.1, INK)
        c.line(
            [(x + side * r * 0.22, y - r * 0.2), (x + side * r * 0.58, y - r * 0.22)], hair, 0.012
        )
        c.glow(x + side * r * 0.55, y + r * 0.45, r * 0.3, r * 0.2, (244, 130, 130), 0.6)
    c.line(
        [(x, y + r * 0.15), (x - r * 0.06, y + r * 0.45), (x + r * 0.05, y + r * 0.46)],
        shade(skin, 0.8),
    )
    c.oval(x, y + r * 0.78, r * 0.24, r * 0.09, (206, 84, 88))


def cat(c: Canvas) -> None:
    """Draw a cat's face and body on a plain ground."""
    c.fade(0, 0, c.w, 1, c.paint(0.2, 0.85), c.paint(0.25, 0.7))
    fur = c.pick([(226, 150, 72), (92, 92, 98), (236, 226, 212), (58, 52, 52), (180, 140, 100)])
    x, y, r = c.w * c.between(0.4, 0.6), c.between(0.4, 0.5), c.between(0.2, 0.26)
    c.shadow(x, 0.98, r * 2, 0.12)
    c.oval(x, y + r * 2, r * 1.3, r * 1.6, shade(fur, 0.9))
    for side in (-1, 1):
        ear = [(x + side * r * 0.95, y - r * 1.3), (x + side * r * 0.95, y - r * 0.1)]
        c.poly([*ear, (x + side * r * 0.2, y - r * 0.75)], fur)
        c.poly(
            [
                (x + side * r * 0.85, y - r * 1.05),
                (x + side * r * 0.85, y - r * 0.4),
                (x + side * r * 0.45, y - r * 0.7),
            ],
            (226, 160, 160),
        )
    c.oval(x, y, r * 1.1, r * 0.95, fur)
    for side in (-1, 1):
        c.oval(
            x + side * r * 0.45,
            y - r * 0.05,
            r * 0.22,
            r * 0.24,
            c.pick([(150, 190, 70), (240, 190, 60)]),
        )
        c.oval(x + side * r * 0.45, y - r * 0.05, r * 0.08, r * 0.22, INK)
        for whisker in (-0.1, 0.05, 0.2):
            c.line(
                [(x + side * r * 0.4, y + r * 0.4), (x + side * r * 1.4, y + r * (0.35 + whisker))],
                WHITE,
                0.004,
            )
    c.oval(x, y + r * 0.45, r * 0.4, r * 0.28, shade(fur, 1.8))
    c.poly(
        [(x - r * 0.1, y + r * 0.25), (x + r * 0.1, y + r * 0.25), (x, y + r * 0.38)],
        (220, 110, 120),
    )
    for stripe in (-0.25, 0.0, 0.25):
        c.line(
            [(x + stripe * r, y - r * 0.85), (x + stripe * r, y - r * 0.5)], shade(fur, 0.7), 0.014
        )


def clouds(c: Canvas) -> None:
    """Draw nothing but sky, sometimes with a wire and a few birds."""
    sky(c, 1.0)
    if c.chance(0.5):
        y = c.between(0.2, 0.8)
        c.line([(0, y), (c.w / 2, y + 0.05), (c.w, y)], INK)
        for _ in range(c.count(1, 6)):
            x = c.w * c.between(0.1, 0.9)
            c.oval(x, y + 0.02, 0.018, 0.014, INK)


def panel(c: Canvas) -> None:
    """Draw a telephone screenshot: a chat or a list."""
    dark = c.chance(0.3)
    c.box(0, 0, c.w, 1, (28, 28, 32) if dark else (238, 238, 240))
    c.box(0, 0, c.w, 0.1, (44, 44, 50) if dark else (250, 250, 250))
    c.box(c.w * 0.35, 0.035, c.w * 0.65, 0.065, (140, 140, 146), 0.01)
    y, own, chat = 0.15, c.tone(0.3, 0.5, 0.85), c.chance(0.6)
    while y < 0.92:
        mine, high = chat and c.chance(0.4), c.between(0.07, 0.14)
        face = c.w - 0.1 if mine else 0.03
        c.box(face, y, face + 0.07, y + 0.07, c.paint(0.4, 0.8), 0.012)
        span = c.w * c.between(0.25, 0.62)
        left = c.w - 0.13 - span if mine else 0.13
        bubble = own if mine else (58, 58, 64) if dark else (255, 255, 255)
        if chat:
            c.box(left, y, left + span, y + high, bubble, 0.015)
        for row in range(int(high / 0.04)):
            top = y + 0.02 + row * 0.04
            c.box(
                left + 0.02, top, left + span * c.between(0.6, 0.92), top + 0.014, (130, 130, 136)
            )
        y += high + c.between(0.03, 0.06)


def flower(c: Canvas) -> None:
    """Draw a blossom close up before blurred green."""
    c.fade(0, 0, c.w, 1, c.tone(0.3, 0.4, 0.6), c.tone(0.33, 0.5, 0.35))
    for _ in range(8):
        c.glow(c.w * c.between(0, 1), c.between(0, 1), 0.2, 0.2, c.tone(0.25, 0.4, 0.8), 0.5)
    petal, x, y = c.paint(0.5, 0.92), c.w * c.between(0.35, 0.65), c.between(0.35, 0.55)
    c.line([(x, y), (x + c.between(-0.1, 0.1), 1.0)], (70, 120, 54), 0.02)
    number, r = c.count(5, 10), c.between(0.16, 0.26)
    for ring, size in ((1.0, 0.5), (0.6, 0.36)):
        for place in range(number):
            a = 2 * pi * place / number + ring
            c.oval(
                x + cos(a) * r * ring,
                y + sin(a) * r * ring,
                r * size,
                r * size,
                shade(petal, c.between(0.85, 1.2)),
            )
    c.oval(x, y, r * 0.35, r * 0.35, (240, 196, 70))
