"""Which groups of posts may be shown, so that nothing is told of a single person."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgmft.models.arrays import Integers


@dataclass(frozen=True)
class PrivacyRule:
    """The least number of users behind what is shown; of posts, where there are no users."""

    users: Integers  # (N,) of the posts; -1 of all without one, which may be one person's
    least: int

    def allows(self, rows: Integers) -> bool:
        """Return whether posts are of enough users, of whom none wrote more than half."""
        posts = np.unique_counts(self.users[rows]).counts
        return len(posts) >= self.least and (self.least == 1 or 2 * posts.max() <= posts.sum())

    def choose(
        self, cells: Mapping[Any, Integers], lines: Sequence[Collection[Any]]
    ) -> dict[Any, Integers]:
        """Return the cells that may be shown; a line is cells whose sum is known from elsewhere.

        What is hidden of a line must be of enough users, too, for the sum less what is shown would
        tell it: else the smallest of the others is hidden with it.
        """
        shown = {key: rows for key, rows in cells.items() if self.allows(rows)}
        waiting = list(lines)
        while waiting:
            line = waiting.pop()
            hidden = [cells[key] for key in line if key not in shown]
            others = [key for key in line if key in shown]
            if hidden and others and not self.allows(np.concatenate(hidden)):
                del shown[min(others, key=lambda key: len(cells[key]))]
                waiting = list(lines)
        return shown

    def round(self, number: float) -> int:
        """Return a number of posts to a multiple of the least, so that differences tell little."""
        return int(self.least * round(number / self.least))
