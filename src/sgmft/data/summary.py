"""How many posts a job read, and why it could not use some of them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sgmft.data.posts import Post
from sgmft.data.preprocessing.text import simplify
from sgmft.errors import TEXTS, Message, kind_of, warn


@dataclass(frozen=True)
class JobSummary:
    """The counts that a job reports; summaries of parts of a job add up with ``+``."""

    posts: int = 0  # that were read
    errors: dict[str, int] = field(default_factory=dict)  # posts not used, by the kind of reason
    abstained: dict[str, int] = field(default_factory=dict)  # usable posts without label, by reason
    warnings: dict[str, int] = field(default_factory=dict)  # kinds, of posts that are used
    examples: dict[str, str] = field(default_factory=dict)  # of each kind, with its place
    traits: dict[str, int] = field(default_factory=dict)  # posts with each, see `locator.drift`

    @classmethod
    def of(
        cls, posts: Iterable[Post], abstained: Iterable[str] = (), traits: Iterable[str] = ()
    ) -> "JobSummary":
        """Return that of some posts, of the reasons why some have no label, and of traits."""
        posts = list(posts)
        warned: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for post in posts:
            for reason in post.warnings if post.error is None else (post.error,):
                kind = kind_of(reason)
                where = [post.place] if kind == reason else [post.place, reason]
                examples.setdefault(kind, ": ".join(filter(None, where)))
            if post.error is None:
                warned.update({kind_of(reason) for reason in post.warnings})
        counts = dict(Counter(abstained)), dict(warned.most_common())
        return cls(len(posts), count_errors(posts), *counts, examples, dict(Counter(traits)))

    @property
    def used(self) -> int:
        """Number of posts that could be used."""
        return self.posts - sum(self.errors.values())

    def __add__(self, other: "JobSummary") -> "JobSummary":
        names = ("errors", "abstained", "warnings", "traits")
        sums = {x: dict(Counter(getattr(self, x)) + Counter(getattr(other, x))) for x in names}
        return JobSummary(self.posts + other.posts, **sums, examples=other.examples | self.examples)


def count_errors(posts: Iterable[Post]) -> dict[str, int]:
    """Count the posts that carry each kind of error, see `kind_of`, the most frequent first."""
    kinds = Counter(kind_of(post.error) for post in posts if post.error is not None)
    return dict(kinds.most_common())


def warn_about_parts(posts: Iterable[Post]) -> None:
    """Warn of posts that are used without something that cannot be read, with counts."""
    found = JobSummary.of(post for post in posts if post.warnings)
    if found.posts:
        first = next(iter(found.warnings))
        counts = f"{found.posts} posts have a warning: {describe_errors(found.warnings)}"
        warn(f"{counts}. The first: {found.examples[first]}.")


def warn_about_similar_labels(labels: Iterable[str]) -> None:
    """Warn of labels that differ in spaces, marks, case, width or script alone, naming them."""
    alike: dict[str, dict[str, None]] = {}
    for label in dict.fromkeys(labels):
        plain = "".join(simplify(unicodedata.normalize("NFKC", label)).casefold().split())
        key = re.sub(r"[\W_]", "", plain) if re.search(r"[^\W\d_]", plain) else plain  # not -1
        alike.setdefault(key, {})[label] = None
    if groups := [" and ".join(map(repr, x)) for x in alike.values() if len(x) > 1]:
        warn(Message(TEXTS["similar labels"], labels="; ".join(groups)))


def describe_errors(errors: Mapping[str, int]) -> str:
    """Format the result of `count_errors` as one line; empty where there are none."""
    return "; ".join(f"{count} x {reason}" for reason, count in errors.items())
