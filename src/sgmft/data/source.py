"""Tables of posts to be read, their labels corrected or soft, and what a job tells of the rows."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

from sgmft import errors
from sgmft.data.posts import Post, require_label
from sgmft.data.preprocessing.text import simplify
from sgmft.data.tables import Columns, iter_posts
from sgmft.data.tables.cells import says_nothing, to_amount, to_label
from sgmft.data.tables.formats import is_predicted, list_tables, open_table, table_file
from sgmft.errors import TEXTS, Message, SgmftError, SgmftNotice, kind_of, warn

TOLERANCE = 0.01  # of the sum of a post's probabilities


def soften(post: Post) -> Post:
    """Return a post with its soft labels, if any, made to sum to 1, and the first of the best.

    It has an error where they are no numbers of at least 0, or sum to less or more by over 0.01.
    """
    if post.error is not None or post.soft is None:
        return post
    try:
        pairs = [(to_label(name).strip(), to_amount(x)) for name, x in post.soft.items()]
        soft = dict(pairs)
        if "" in soft or len(soft) < len(pairs):
            raise ValueError("a label is named twice, or not at all")
    except ValueError as error:
        return replace(post, error=Message("probabilities: {reason}", reason=str(error)))
    if abs((total := sum(soft.values())) - 1) > TOLERANCE + 1e-9:
        reason = Message("the probabilities of its labels sum to {total:.3f}, not 1", total=total)
        return replace(post, error=reason)
    soft = {name: p / total for name, p in soft.items()}
    return replace(post, label=max(soft, key=soft.__getitem__), soft=soft)


def read_soft_labels(posts: Sequence[Post], keep: bool = False) -> list[Post]:
    """Return posts with the soft labels in columns `p_LABEL`, as `predict` writes them, if any.

    With `keep` those that have a label keep it. SgmftError where no post gets soft labels.
    """
    read = list[Post]()
    for post in posts:
        cells = {} if keep and post.label else post.row
        soft = {x[2:]: y for x, y in cells.items() if x[:2] == "p_" and not says_nothing(y)}
        read.append(soften(replace(post, soft=soft or None)))
    if not (softened := [post.soft for post in read if post.soft and post.error is None]):
        bad = next((f", as {post.place}: {post.error}" for post in read if post.error), "")
        raise SgmftError(TEXTS["no soft labels"], bad=bad)
    pairs = zip(posts, read, strict=True)
    both = [(x.label, y.soft) for x, y in pairs if x.label and y.error is None and y.soft]
    if other := sum(soft.get(label, 0) < max(soft.values()) for label, soft in both):
        warn(Message(TEXTS["other labels"], count=other))
    labels = ", ".join(dict.fromkeys(label for soft in softened for label in soft))
    warn(f"Soft labels of {len(softened):,} posts: {labels}.", SgmftNotice)
    return read


FIX_COLUMNS = ("id", "label", "new_label")
# for 00272, spreadsheet programs save 272, or 272.0; all three are 272 here
plain_number = partial(re.compile(r"^0*(\d+)(?:[.,]00?)?$").sub, r"\1")


def apply_fixes(posts: Sequence[Post], path: str | None, strict: bool = False) -> list[Post]:
    """Return posts with the labels of a table of `FIX_COLUMNS`; those with an empty `new_label` go.

    A post without an id is named by its place, as `Post.place` has it. A fix is not applied where
    its id may be of no post or of several, where its `label` is not the post's, or where an earlier
    one says otherwise: a warning says so; SgmftError with `strict`, or where none can be applied.
    """
    if path is None:
        return list(posts)
    known, numbers = dict[str, list[int]](), dict[str, list[int]]()
    fixes, refused, restored = dict[int, str](), list[str](), dict[str, str]()
    labels = {post.label for post in posts if post.label is not None}
    for i, post in enumerate(posts):
        known.setdefault(name := post.id or post.place, []).append(i)
        numbers.setdefault(plain_number(name), []).append(i)
    for row in open_table(path).rows:
        cells = {} if row.error else row.values
        try:
            name, old, new = (to_label(cells[x]).strip() for x in FIX_COLUMNS)
        except (KeyError, ValueError) as error:
            needed = f"the columns {', '.join(FIX_COLUMNS)} are needed, with one text each"
            raise SgmftError(f"{path}, row {row.number}: {row.error or needed}.") from error
        found = (name[:1] == "0" and known.get(name)) or numbers.get(plain_number(name), [])
        if len(same := [x for x in labels if plain_number(x) == plain_number(new)]) == 1:
            restored[new] = same[0]
            new = same[0]
        if len(found) != 1:
            reason = f"{'several posts have' if found else 'no post has'} id {name}"
            if found != known.get(name, []) or "E+" in name:
                reason += ", as programs shorten ids: import ids as text there"
        elif (own := posts[found[0]].label) is None or plain_number(own) != plain_number(old):
            reason = f"the label of {name} is {own!r}, not {old!r}"
        elif fixes.setdefault(found[0], new) != new:
            reason = f"another row has another label for {name}"
        else:
            restored[name] = posts[found[0]].id or name
            continue
        refused.append(f"row {row.number}: {reason}")
    dropped = sum(not new for new in fixes.values())
    if others := sorted({*fixes.values()} - labels - {""}):
        warn(f"{path}: labels that no post of the table has: {', '.join(others[:5])}.")
    text = f"{path}: {len(fixes) - dropped} labels changed, {dropped} posts left out"
    if changed := [f"{own} for {cell}" for cell, own in restored.items() if own != cell]:
        text = f"{text}; cells are read as they were: {', '.join(changed[:3])}"
    if refused:
        shown = "; ".join([*refused[:3], "…"][: len(refused)])
        why = f"{len(refused)} fixes do not belong to these posts: {shown}"
        if strict or not fixes:
            raise SgmftError(f"{path}: {why}. Give the fixes of the table that is read.")
        text = f"{text}; {why}"
    warn(f"{text}.", errors.SgmftWarning if refused else SgmftNotice)
    kept = [(i, post) for i, post in enumerate(posts) if fixes.get(i) != ""]
    return [replace(x, label=fixes[i], soft=None) if i in fixes else x for i, x in kept]


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
        warned, examples = Counter[str](), dict[str, str]()
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
    return dict(Counter(kind_of(x.error) for x in posts if x.error is not None).most_common())


def warn_about_parts(posts: Iterable[Post]) -> None:
    """Warn of posts that are used without something that cannot be read, with counts."""
    if (found := JobSummary.of(post for post in posts if post.warnings)).posts:
        first = next(iter(found.warnings))
        counts = f"{found.posts} posts have a warning: {describe_errors(found.warnings)}"
        warn(f"{counts}. The first: {found.examples[first]}.")


def warn_about_odd_labels(labels: Collection[str]) -> None:
    """Warn of labels that differ in spaces, marks, case, width or script alone, or are none."""
    alike: dict[str, dict[str, None]] = {}
    for label in dict.fromkeys(labels):
        plain = "".join(simplify(unicodedata.normalize("NFKC", label)).casefold().split())
        key = re.sub(r"[\W_]", "", plain) if re.search(r"[^\W\d_]", plain) else plain  # not -1
        alike.setdefault(key, {})[label] = None
    if groups := [" and ".join(map(repr, x)) for x in alike.values() if len(x) > 1]:
        warn(Message(TEXTS["similar labels"], labels="; ".join(groups)))
    whole, odd = {*labels}, dict[str, str]()
    for label in sorted(whole):
        if not label.strip(string.punctuation + "…—？。、，"):
            odd["marks as a label"] = label
        elif whole & {*map(str.strip, re.split("[;|,，；、]", label))} - {label}:
            odd["joined as a label"] = label
    for kind, label in odd.items():
        warn(Message(TEXTS[kind], label=label))


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
        with errors.unwarned():
            for raw in (open_table(x, self.format) for x in self.tables()):
                seen |= dict.fromkeys(raw.columns or ())
                for row in raw.rows:
                    seen |= dict.fromkeys(row.values)
        return list(seen)

    def read_posts(self) -> list[Post]:
        """Read all posts; SgmftError where there are none."""
        if not (posts := list(self.iter_posts())):
            chosen = " and ".join(f"{key}={value}" for key, value in self.where.items())
            raise SgmftError(f"{self.table} has no rows{f' with {chosen}' if chosen else ''}.")
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
