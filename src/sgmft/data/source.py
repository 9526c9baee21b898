"""TODO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sgmft.data.posts import Post
from sgmft.data.tables import Columns, iter_posts
from sgmft.data.tables.folder import tables_in
from sgmft.errors import SgmftError


@dataclass(frozen=True)
class Source:
    """A table and how to read it; see `sgmft.data.tables.iter_posts`."""

    table: str
    columns: Columns = field(default_factory=Columns)
    where: Mapping[str, str] = field(default_factory=dict)
    allow_outside: bool = False
    strict: bool = False

    def posts(self) -> Iterator[Post]:
        """The posts, one at a time."""
        return iter_posts(
            self.table,
            columns=self.columns,
            where=self.where or None,
            allow_outside=self.allow_outside,
            strict=self.strict,
        )

    def refuse_overwriting(self, output: str | Path) -> None:
        """Raise SgmftError where writing this file would replace what is read."""
        path = Path(output)
        if "-" in (str(output), str(self.table)) or not path.exists():
            return
        if any(part.exists() and path.samefile(part) for part in map(Path, tables_in(self.table))):
            raise SgmftError(f"{output} is the table that is read: give the output a new name.")

    def all_posts(self) -> list[Post]:
        """The posts at once; SgmftError when there are none."""
        posts = list(self.posts())
        if not posts:
            chosen = " and ".join(f"{key}={value}" for key, value in self.where.items())
            rows = f"rows with {chosen}" if chosen else "rows"
            raise SgmftError(f"{self.table} has no {rows}.")
        return posts


@dataclass(frozen=True)
class JobSummary:
    """What a job has to say.

    Attributes:
        posts: how many it read.
        errors: how many it could not use, by reason.
        abstained: how many it could use and gave no label, by reason.
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
