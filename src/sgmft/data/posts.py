"""A post: the unit everything else works on."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sgmft.errors import TEXTS, Message, SgmftError, check_name, warn


@dataclass(frozen=True)
class Attachment:
    """A picture or video held in memory; a post may have it in place of a path."""

    data: bytes = field(repr=False)  # the bytes of the whole file
    name: str = "picture"  # its name in messages

    def __str__(self) -> str:
        return self.name


MediaFile = str | Path | Attachment


@dataclass(frozen=True)
class Post:
    """One social-media post, or the record of a row that could not be read as one."""

    text: str = ""  # the text as its author wrote it; "" when there is none
    # picture and video files, in the order shown, as paths or `Attachment`s; perhaps none.
    images: Sequence[MediaFile] = ()
    id: str | None = None  # the user's own identifier, unique in its table
    label: str | None = None  # the semantic location, when known
    user: str | None = None  # the author, for splits by user
    time: str | None = None  # when it was written, as the table has it
    error: str | None = None  # why this row cannot be used; None for a good row
    # what is left out of a row that can be used, or doubtful, and why: a picture that cannot be
    # read, an id that an earlier row has.
    warnings: tuple[str, ...] = ()
    place: str = ""  # where the row stands, for messages: "posts.csv, row 12"
    weight: float = 1.0  # how much it counts in training, relative to others
    soft: Mapping[str, float] | None = None  # labels' probabilities; `label` has the highest
    # the columns of the source table as they were read, so that an output can repeat them.
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        images = (self.images,) if isinstance(self.images, (str, Path, Attachment)) else self.images
        kept = tuple(x if isinstance(x, (Attachment, Path)) else Path(x) for x in images)
        object.__setattr__(self, "images", kept)


def raise_first_error(posts: Iterable[Post]) -> None:
    """Raise SgmftError for the first post that carries an error or a warning, if any does."""
    for post in posts:
        for reason in filter(None, (post.error, *post.warnings)):
            raise SgmftError(f"{post.place}: {reason}." if post.place else f"{reason}.")


BAD_LABEL = "label: {reason}"
SEEN_BEFORE = ("is the post of row {row} again", "is the post of row {row} of {table} again")
"""Templates of warnings that `require_label` turns into errors."""


def require_label(post: Post, reason: str | None = None) -> Post:
    """Return a post, with an error where it came before, or has a bad label or none (`reason`)."""
    if post.error is not None:
        return post
    for warning in post.warnings:
        template = getattr(warning, "template", "")
        if template in SEEN_BEFORE or (template == BAD_LABEL and post.label is None):
            return replace(post, error=warning, warnings=())
    return post if post.label is not None or reason is None else replace(post, error=reason)


def require_known(post: Post, known: Collection[str | None]) -> Post:
    """Return a post, with an error where its label is none of those a model has learned.

    One that differs in Unicode's composition alone, or is a truth value in other case, is read as
    that with a warning.
    """
    if post.error or post.label is None or post.label in known:
        return post
    same = [x for x in known if x is not None and _spelling(x) == _spelling(post.label)]
    if len(same) != 1:
        error = Message("the model never learned the label {label!r}", label=post.label)
        return replace(post, error=error)
    text = "the label {label} is read as the {known} that the model learned"
    read = Message(text, label=ascii(post.label), known=ascii(same[0]))
    return replace(post, label=same[0], warnings=(*post.warnings, read))


def _spelling(label: str) -> str:
    plain = unicodedata.normalize("NFC", label)
    return plain.casefold() if plain.casefold() in ("true", "false") else plain


def require_columns(posts: Sequence[Post], columns: Sequence[str], flag: str = "--by") -> None:
    """Raise SgmftError for a column, named by an option, that none of the posts has."""
    known = dict.fromkeys(name for post in posts for name in post.row) if columns else {}
    for column in columns:
        check_name(column, known, f"{flag}: the posts have no column")


def warn_about_singleton_labels(labels: Iterable[str]) -> None:
    """Warn of labels that only one post has; `labels` has one entry per post."""
    if single := sorted(label for label, count in Counter(labels).items() if count == 1):
        named = ", ".join(single[:10]) + (f" and {len(single) - 10} more" if single[10:] else "")
        warn(Message(TEXTS["single label"], label=named))
