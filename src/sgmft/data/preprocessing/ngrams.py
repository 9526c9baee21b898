"""Hashed character n-grams: the text features of linear models, without an encoder."""

import zlib

import numpy as np
from numpy.typing import NDArray

from sgmft.data.preprocessing.markup import PATTERNS

BUCKETS = 2**24  # hash values
MAX_CHARACTERS = 1_000  # of a text; the rest is ignored
UNSPACED, SPACED = range(1, 4), range(2, 6)  # lengths n


def hash_ngrams(text: str) -> NDArray[np.int32]:
    """Hash the n-grams of a text to 0..2^24-1, in order, repeats kept: (g,).

    Case is ignored. Runs of scripts without spaces give every 1 to 3 characters; of other
    words, with a space at both ends, every 2 to 5. The hash is a CRC-32 of the UTF-8 bytes.
    """
    runs = list[tuple[str, range]]()
    parts = PATTERNS["unspaced"].split(text[:MAX_CHARACTERS].casefold())
    for i, part in enumerate(parts):  # odd: such a run
        runs += [(part, UNSPACED)] if i % 2 else [(f" {x} ", SPACED) for x in part.split()]
    found = [
        zlib.crc32(gram.encode("utf-8", "surrogatepass")) % BUCKETS
        for run, lengths in runs
        for n in lengths
        for gram in (run[i : i + n] for i in range(len(run) - n + 1))
    ]
    return np.array(found, np.int32)
