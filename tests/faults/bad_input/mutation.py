"""Random mutation of good bytes: the same generator, the same bytes."""

import random
import struct
from collections.abc import Sequence

MOST = 1 << 16  # bytes of a case
_NUMBERS = (0, 1, 7, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(seeds: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """Return one of the seeds with one to eight mutations, mostly few."""
    data = bytearray(rng.choice(seeds))
    for _ in range(1 + min(int(rng.expovariate(0.7)), 7)):
        rng.choice(_STEPS)(data, seeds, words, rng)
    return bytes(data[:MOST])


def _place(data: bytearray, rng: random.Random) -> int:
    """Return a random position; often near the start or the end, where headers are."""
    end = len(data)
    return rng.choice((rng.randint(0, end), min(end, rng.randint(0, 64)), max(0, end - 40)))


def _flip(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    if data:
        data[min(_place(data, rng), len(data) - 1)] = rng.choice((0, 0xFF, rng.randrange(256)))


def _number(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    """Overwrite a number: a length, a size or a count that is absurd."""
    kind = rng.choice((">I", "<I", ">H", "<H", ">Q", "<Q"))
    size = struct.calcsize(kind)
    at = _place(data, rng)
    number = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = struct.pack(kind, number)


def _cut(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _leave_out(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, rng.randint(1, 200)))]


def _repeat(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    at = rng.randint(0, len(data))
    part = data[at : at + rng.randint(1, 60)]
    data[at:at] = part * rng.choice((1, 2, 3, rng.randint(1, 100)))


def _splice(data: bytearray, seeds: Sequence[bytes], _w: object, rng: random.Random) -> None:
    other = rng.choice(seeds)
    start = rng.randint(0, len(other))
    at = rng.randint(0, len(data))
    data[at : at + rng.choice((0, 0, 30))] = other[start : start + rng.randint(0, 400)]


def _insert(data: bytearray, _s: object, _w: object, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = rng.randbytes(rng.randint(1, 12))


def _word(data: bytearray, _s: object, words: Sequence[bytes], rng: random.Random) -> None:
    if words:
        at = _place(data, rng)
        data[at : at + rng.choice((0, 0, 1, 6))] = rng.choice(words) * rng.choice((1, 1, 1, 3))


_STEPS = (_flip, _set, _number, _cut, _leave_out, _repeat, _splice, _insert, _word, _word, _word)
