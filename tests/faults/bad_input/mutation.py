"""Good bytes spoilt by dice: the same dice, the same bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

MOST = 1 << 16  # bytes of a case
_NUMBERS = (0, 1, 7, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def spoilt(seeds: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> bytes:
    """One of the seeds with one to eight things done to it; most have few."""
    data = bytearray(dice.choice(seeds))
    for _ in range(1 + min(int(dice.expovariate(0.7)), 7)):
        dice.choice(_WAYS)(data, seeds, words, dice)
    return bytes(data[:MOST])


def _place(data: bytearray, dice: random.Random) -> int:
    """Anywhere, or in one of three near the start or the end, where files say what they are."""
    end = len(data)
    return dice.choice((dice.randint(0, end), min(end, dice.randint(0, 64)), max(0, end - 40)))


def _flip(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        if data:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    if data:
        data[min(_place(data, dice), len(data) - 1)] = dice.choice((0, 0xFF, dice.randrange(256)))


def _number(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    """A length, a size or a count that is absurd."""
    kind = dice.choice((">I", "<I", ">H", "<H", ">Q", "<Q"))
    size = struct.calcsize(kind)
    at = _place(data, dice)
    number = dice.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = struct.pack(kind, number)


def _cut(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    del data[_place(data, dice) :]


def _leave_out(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    at = _place(data, dice)
    del data[at : at + dice.choice((1, 2, 4, dice.randint(1, 200)))]


def _repeat(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    at = dice.randint(0, len(data))
    part = data[at : at + dice.randint(1, 60)]
    data[at:at] = part * dice.choice((1, 2, 3, dice.randint(1, 100)))


def _splice(data: bytearray, seeds: Sequence[bytes], _w: object, dice: random.Random) -> None:
    other = dice.choice(seeds)
    start = dice.randint(0, len(other))
    at = dice.randint(0, len(data))
    data[at : at + dice.choice((0, 0, 30))] = other[start : start + dice.randint(0, 400)]


def _rubbish(data: bytearray, _s: object, _w: object, dice: random.Random) -> None:
    at = _place(data, dice)
    data[at:at] = dice.randbytes(dice.randint(1, 12))


def _word(data: bytearray, _s: object, words: Sequence[bytes], dice: random.Random) -> None:
    if words:
        at = _place(data, dice)
        data[at : at + dice.choice((0, 0, 1, 6))] = dice.choice(words) * dice.choice((1, 1, 1, 3))


_WAYS = (_flip, _set, _number, _cut, _leave_out, _repeat, _splice, _rubbish, _word, _word, _word)
