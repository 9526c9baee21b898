"""Sequences of unequal length in one array, which may be a file mapped into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """N sequences of unequal length, runs of rows of one array; choosing among them copies none.

    It is also the values of all sequences, one after another, which need not fit into memory.
    """

    values: NDArray[Any]  # (M, ...), perhaps of more sequences than these
    start: Lengths  # (N,) the row that each begins with
    length: Lengths  # (N,)

    @classmethod
    def packed(cls, values: NDArray[Any], length: Lengths) -> "Ragged":
        """Take apart sequences that lie one after another, of these lengths (N,)."""
        return cls(values, length.cumsum() - length, length)

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any] | None], empty: NDArray[Any]) -> "Ragged":
        """Concatenate sequences (n_i, ...); None is an `empty` one (0, ...)."""
        lengths = [0 if row is None else len(row) for row in rows]
        values = np.concatenate([empty, *(row for row in rows if row is not None)])
        return cls.packed(values, np.array(lengths, np.int64))

    def __getitem__(self, rows: Any) -> "Ragged":
        """Choose sequences, in that order, by a slice or by positions."""
        at = rows if isinstance(rows, slice) else np.asarray(rows)
        return Ragged(self.values, self.start[at], self.length[at])

    def pad(self, rows: Any = None, fill: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pad chosen sequences, or all, to (B, n, ...), n >= 1, with their mask (B, n)."""
        chosen = self if rows is None else self[rows]
        mask = np.arange(max(1, chosen.length.max(initial=0))) < chosen.length[:, None]
        values = np.full((*mask.shape, *self.values.shape[1:]), fill, self.values.dtype)
        for row, first, length in zip(values, chosen.start, chosen.length, strict=True):
            row[:length] = self.values[first : first + length]
        return values, mask

    @cached_property
    def _end(self) -> Lengths:
        return self.length.cumsum()

    def __len__(self) -> int:
        return int(self.length.sum())

    def split(self, size: int) -> Iterator[NDArray[Any]]:
        """Yield values (size, ...) in order, the last of them perhaps fewer; one part at least."""
        for first in range(0, max(1, len(self)), size):
            yield self.rows(first, min(first + size, len(self)))

    def rows(self, first: int, last: int) -> NDArray[Any]:
        """Copy the values from position `first` to before `last`."""
        i = np.searchsorted(self._end, first, side="right")
        j = np.searchsorted(self._end, last, side="left") + 1
        end, start = self._end[i:j], self.start[i:j]
        begin = end - self.length[i:j]
        inside = end.clip(max=last) - begin.clip(min=first)  # how many of each sequence
        return self.values.take(np.arange(first, last) + (start - begin).repeat(inside), axis=0)
