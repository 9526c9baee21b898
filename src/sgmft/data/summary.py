"""How many posts a job read, and why it could not use some of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sgmft.data.posts import Post

_DETAILS = re.compile(r"'[^']*'|\S+\.\w{2,5}\b|\b\d+")


@dataclass(frozen=True)
class JobSummary:
    """The counts that a job reports; summaries of parts of a job add up with ``+``.

    Attributes:
        posts: number of posts read.
        errors: number of posts that could not be used, by reason.
        abstained: number of usable posts that got no label, by reason.
    """

    posts: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    abstained: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: JobSummary) -> JobSummary:
        return JobSummary(
            self.posts + other.posts,
            dict(Counter(self.errors) + Counter(other.errors)),
            dict(Counter(self.abstained) + Counter(other.abstained)),
        )


def count_errors(posts: Iterable[Post]) -> dict[str, int]:
    """Count the posts that carry each kind of error, the most frequent first.

    File names, quoted words and numbers are left out of the kinds, so that equal mistakes count
    together: "a.jpg is empty" and "b.jpg is empty" are both "… is empty".
    """
    kinds = Counter(_DETAILS.sub("…", post.error) for post in posts if post.error is not None)
    return dict(kinds.most_common())


def describe_errors(errors: Mapping[str, int]) -> str:
    """Format the result of `count_errors` as one line; empty where there are none."""
    return "; ".join(f"{count} x {reason}" for reason, count in errors.items())
