"""Sequences of unequal length in one array, which may be a file mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """N sequences of unequal length, each a run of rows of one array.

    Choosing among them copies none of their values.
    """

    values: Tensor  # (M, ...), perhaps of more sequences than these
    start: Tensor  # (N,) int64, the row that each begins with
    length: Tensor  # (N,) int64

    @classmethod
    def packed(cls, values: Tensor, length: Tensor) -> Ragged:
        """Sequences that lie one after another, of these lengths (N,)."""
        return cls(values, length.cumsum(0) - length, length)

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any] | None], empty: NDArray[Any]) -> Ragged:
        """Sequences (n_i, ...); None is an `empty` one (0, ...)."""
        lengths = [0 if row is None else len(row) for row in rows]
        values = np.concatenate([empty, *(row for row in rows if row is not None)])
        return cls.packed(torch.from_numpy(values), torch.tensor(lengths, dtype=torch.long))

    def take(self, rows: Tensor | slice) -> Ragged:
        """The chosen sequences, in that order."""
        return Ragged(self.values, self.start[rows], self.length[rows])

    def pad(self, rows: Tensor | slice | None = None, fill: int = 0) -> tuple[Tensor, Tensor]:
        """Chosen sequences (B, n, ...), or all, padded, and their mask (B, n); n >= 1."""
        chosen = self if rows is None else self.take(rows)
        length = chosen.length
        position = torch.arange(max(1, int(length.max()) if len(length) else 1))
        mask = position < length[:, None]
        values = self.values.new_full((*mask.shape, *self.values.shape[1:]), fill)
        values[mask] = chosen.flat().rows(0, int(length.sum()))
        return values, mask

    def flat(self) -> Flat:
        """The values of all sequences, one after another."""
        return Flat(self)


class Flat:
    """The values of N sequences one after another, read part by part; a `sgmft.models.Vectors`."""

    def __init__(self, sequences: Ragged) -> None:
        self._sequences = sequences
        self._end = sequences.length.cumsum(0)  # (N,)

    def __len__(self) -> int:
        return int(self._end[-1]) if len(self._end) else 0

    def split(self, size: int) -> Iterator[Tensor]:
        """Parts (size, ...) in order, the last of them perhaps shorter; one at least."""
        for first in range(0, max(1, len(self)), size):
            yield self.rows(first, min(first + size, len(self)))

    def rows(self, first: int, last: int) -> Tensor:
        """A copy of the values from position `first` to before `last`."""
        if first >= last:
            return self._sequences.values[:0]
        ends = self._end.new_tensor([first, last - 1])
        i, j = torch.searchsorted(self._end, ends, right=True).tolist()
        end = self._end[i : j + 1]
        begin = end - self._sequences.length[i : j + 1]
        inside = end.clamp(max=last) - begin.clamp(min=first)  # how many of each sequence
        moved = self._sequences.start[i : j + 1] - begin
        where = torch.arange(first, last) + moved.repeat_interleave(inside)
        return self._sequences.values[where]
