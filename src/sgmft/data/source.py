"""Where posts come from, and what a job tells of them: how many, and what was wrong."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from sgmft.data.posts import Post, require_label
from sgmft.data.preprocessing.text import simplify
from sgmft.data.tables import Columns, iter_posts
from sgmft.data.tables.formats import is_predicted, list_tables, open_table, table_file
from sgmft.errors import TEXTS, Message, SgmftError, kind_of, unwarned, warn


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


Relabel = Callable[[list[Post]], list[Post]]


@dataclass(frozen=True)
class Source:
    """A table and the options to read it with; see `sgmft.data.tables.iter_posts`."""

    table: str
    columns: Columns = field(default_factory=Columns)
    where: Mapping[str, str] = field(default_factory=dict)
    allow_outside: bool = False
    strict: bool = False
    format: str | None = None
    base: str | Path | None = None

    def iter_posts(self) -> Iterator[Post]:
        """Read the posts one at a time."""
        return iter_posts(**{field.name: getattr(self, field.name) for field in fields(Source)})

    def tables(self) -> list[str | Path]:
        """List the tables that are read one after another; see `list_tables`."""
        return list_tables(self.table, self.format)

    def columns_seen(self) -> list[str]:
        """List the columns, also those that only some rows have; warnings wait for the posts."""
        seen = dict[str, None]()
        with unwarned():
            for raw in (open_table(x, self.format) for x in self.tables()):
                seen |= dict.fromkeys(raw.columns or ())
                for row in raw.rows:
                    seen |= dict.fromkeys(row.values)
        return list(seen)

    def read_posts(self) -> list[Post]:
        """Read all posts; SgmftError where there are none."""
        posts = list(self.iter_posts())
        if not posts:
            chosen = " and ".join(f"{key}={value}" for key, value in self.where.items())
            rows = f"rows with {chosen}" if chosen else "rows"
            raise SgmftError(f"{self.table} has no {rows}.")
        return posts

    def read_labelled(
        self, reason: str | None = None, least: int = 1, relabel: Relabel = list
    ) -> list[Post]:
        """Read posts for work that needs `least` labels, of `relabel`; see `require_label`."""
        posts = relabel([require_label(post, reason) for post in self.read_posts()])
        labels = {post.label for post in posts if post.label is not None}
        if len(labels) < least and any(not post.error or post.error == reason for post in posts):
            known = f"has only the label {labels.pop()!r}" if labels else "has no label in any row"
            columns = [*dict.fromkeys(name for post in posts for name in post.row)]
            added = columns[-1] if "suggested_rank" in columns else "NAME"  # by who has labelled
            given = {"table": self.table, "added": added, "columns": ", ".join(columns)}
            raise SgmftError(TEXTS["few labels"], known=known, **given)
        chosen = self.columns.label is not None or relabel is not list
        if not chosen and any(is_predicted(post.row) for post in posts):
            warn(Message(TEXTS["predicted labels"], table=self.table))
        return posts

    def refuse_overwriting(self, output: str | Path) -> None:
        """Raise SgmftError where writing `output` would replace the table that is read."""
        path = Path(output)
        if "-" in (str(output), str(self.table)) or not path.exists():
            return
        if any(part.exists() and path.samefile(part) for part in map(table_file, self.tables())):
            raise SgmftError(f"{output} is the table that is read: give the output a new name.")
