"""Long texts cut into windows of whole sentences, so that none of them fades among the others."""

import re
from collections.abc import Iterator, Sequence

from sgmft.data.preprocessing.markup import PATTERNS
from sgmft.data.preprocessing.text import MAX_CHARACTERS, Cleaning, split_words, unmark

SHORTEST, LONGEST = 8, 32  # words of a window
MAX_WINDOWS = 64  # of one text, about: where it needs more, they hold more words

# First ends of sentences, but not "3.5", "t.cn/A6?b=1", and a mark before another or a bracket.
_ENDS = PATTERNS["sentence_end"], PATTERNS["clause_end"]


def window_of(texts: Sequence[str], cleaning: Cleaning) -> int:
    """Return the size of windows in words, into which 99 of 100 of 1,000 of these texts fit."""
    some = [text for text in texts if text.strip()]
    some = some[:: -(-len(some) // 1000) or 1]
    counts = sorted(len(split_words(text, cleaning, LONGEST)) for text in some)
    return max(SHORTEST, counts[len(counts) * 99 // 100]) if counts else LONGEST


def split_windows(text: str, cleaning: Cleaning, window: int = LONGEST) -> list[str]:
    """Cut a text into windows that together are its first `MAX_CHARACTERS`, without markup.

    Whole sentences of at most `window` words together, or a part of a longer one.
    """
    text = unmark(text, cleaning)[:MAX_CHARACTERS]
    if len(PATTERNS["word_at_most"].findall(text)) <= window:
        return [text]
    words = len(split_words(text, cleaning))
    if words <= window:
        return [text]
    most = max(window, 2 * words // (MAX_WINDOWS - 1) + 1)  # two neighbours hold more than one may

    def cut(pieces: Sequence[str], ends: Sequence[re.Pattern[str]]) -> Iterator[tuple[str, int]]:
        """Yield pieces that hold no more, with their numbers, cut as far as they must be."""
        for piece in pieces:
            count = len(split_words(piece, cleaning))
            if count > most and ends:
                yield from cut(ends[0].split(piece), ends[1:])
                continue
            parts = -(-count // most) or 1  # of equal lengths
            for i in range(parts):
                yield piece[len(piece) * i // parts : len(piece) * (i + 1) // parts], count // parts

    windows, held = [""], 0
    for piece, count in cut(_ENDS[0].split(text), _ENDS[1:]):
        if held and held + count > most:
            windows, held = [*windows, ""], 0
        windows[-1] += piece
        held += count
    return windows
