"""Long texts cut into windows of whole sentences, so that none of them fades among the others."""

import re
from collections.abc import Iterator, Sequence

from sgmft.data.preprocessing.text import MAX_CHARACTERS, Cleaning, split_words

WINDOW = 32  # words; a text of so many is not cut
MAX_WINDOWS = 64  # of one text, about: where it needs more, they hold more words

# There are at most as many words: letters and digits in a row, every other character.
_AT_MOST = re.compile(r"[A-Za-z0-9\u00c0-\u02af\u0370-\u052f]+|\S")
# First ends of sentences, but not "3.5", "t.cn/A6?b=1", and a mark before another or a bracket.
_ENDS = (
    re.compile(
        r"(?<=[。！？…；\n])(?![。！？…；\n”’」』）])|(?<=[.!?;])(?![!-~。！？…；”’」』）])"
    ),
    re.compile(r"(?<=[，、：,\s])(?!\s)"),
)


def split_windows(text: str, cleaning: Cleaning) -> list[str]:
    """Cut a text into windows that together are its first `MAX_CHARACTERS`.

    A window is as many whole sentences as have at most `WINDOW` words together, or a part of a
    longer sentence. A text of at most `WINDOW` words is its own only window.
    """
    text = text[:MAX_CHARACTERS]
    if len(_AT_MOST.findall(text)) <= WINDOW:
        return [text]
    words = len(split_words(text, cleaning))
    if words <= WINDOW:
        return [text]
    most = max(WINDOW, 2 * words // (MAX_WINDOWS - 1) + 1)  # two neighbours hold more than one may
    windows, held = [""], 0
    for piece, count in _cut([text], _ENDS, most, cleaning):
        if held and held + count > most:
            windows, held = [*windows, ""], 0
        windows[-1] += piece
        held += count
    return windows


def _cut(
    pieces: Sequence[str], ends: Sequence[re.Pattern[str]], most: int, cleaning: Cleaning
) -> Iterator[tuple[str, int]]:
    """Yield pieces of at most so many words, with their numbers, cut as far as they must be."""
    for piece in pieces:
        count = len(split_words(piece, cleaning))
        if count > most and ends:
            yield from _cut(ends[0].split(piece), ends[1:], most, cleaning)
            continue
        parts = -(-count // most) or 1  # of equal lengths
        for i in range(parts):
            yield piece[len(piece) * i // parts : len(piece) * (i + 1) // parts], count // parts
