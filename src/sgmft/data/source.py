"""A table of posts and how to read it: the input of every job."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from sgmft.data.posts import Post, require_label
from sgmft.data.tables import Columns, iter_posts
from sgmft.data.tables.formats import is_predicted, list_tables, open_table, table_file
from sgmft.errors import TEXTS, Message, SgmftError, unwarned, warn

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
