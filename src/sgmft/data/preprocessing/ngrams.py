"""Hashed character n-grams: the text features of linear models, without an encoder."""

import re
import zlib

import numpy as np
from numpy.typing import NDArray

BUCKETS = 2**24  # hash values
MAX_CHARACTERS = 1_000  # of a text; the rest is ignored
UNSPACED, SPACED = range(1, 4), range(2, 6)  # lengths n

# Runs of scripts written without spaces: Thai to Khmer, kana, Han, and their later planes.
_UNSPACED = re.compile(
    r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\u2e80-\u2fff\u3001-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]+)"
)


def hash_ngrams(text: str) -> NDArray[np.int32]:
    """Hash the n-grams of a text to 0..2^24-1, in order, repeats kept: (g,).

    Case is ignored. Runs of scripts without spaces give every 1 to 3 characters; of other
    words, with a space at both ends, every 2 to 5. The hash is a CRC-32 of the UTF-8 bytes.
    """
    runs = list[tuple[str, range]]()
    for i, part in enumerate(_UNSPACED.split(text[:MAX_CHARACTERS].casefold())):  # odd: such a run
        runs += [(part, UNSPACED)] if i % 2 else [(f" {x} ", SPACED) for x in part.split()]
    found = [
        zlib.crc32(gram.encode("utf-8", "surrogatepass")) % BUCKETS
        for run, lengths in runs
        for n in lengths
        for gram in (run[i : i + n] for i in range(len(run) - n + 1))
    ]
    return np.array(found, np.int32)
