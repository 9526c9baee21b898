"""A post: the unit everything else works on."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgmft.errors import SgmftError, SgmftWarning

_NAMES = re.compile(r"'[^']*'|\S+\.\w{2,5}\b|\b\d+")


@dataclass(frozen=True)
class Attachment:
    """A picture or video that is in memory and on no disk; a post may have it in place of a path.

    Attributes:
        data: the whole file's bytes.
        name: what messages call it.
    """

    data: bytes = field(repr=False)
    name: str = "picture"

    def __str__(self) -> str:
        return self.name


PictureFile = str | Path | Attachment


@dataclass(frozen=True)
class Post:
    """One social-media post, or the record of a row that could not be read as one.

    Attributes:
        text: the text as its author wrote it; "" when there is none.
        images: picture and video files, in the order shown, as paths or `Attachment`s; empty when
            there are none.
        id: the user's own identifier, unique in its table.
        label: the semantic location, when known.
        user: the author, for splits by user.
        error: why this row cannot be used; None for a good row.
        place: where the row stands, for messages: "posts.csv, row 12".
        row: the columns of the source table as they were read, so that an output can repeat them.
    """

    text: str = ""
    images: Sequence[PictureFile] = ()
    id: str | None = None
    label: str | None = None
    user: str | None = None
    error: str | None = None
    place: str = ""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        images = self.images
        if isinstance(images, (str, Path, Attachment)):
            images = (images,)
        kept = tuple(x if isinstance(x, Attachment) else Path(x) for x in images)
        object.__setattr__(self, "images", kept)


def count_errors(posts: Iterable[Post]) -> dict[str, int]:
    """How many posts carry each kind of error, the most frequent first.

    File names, quoted words and numbers are left out of the kinds, so that equal mistakes count
    together: "a.jpg is empty" and "b.jpg is empty" are both "… is empty".
    """
    kinds = Counter(_NAMES.sub("…", post.error) for post in posts if post.error is not None)
    return dict(kinds.most_common())


def describe_errors(errors: Mapping[str, int]) -> str:
    """What `count_errors` found in one line; empty where there are none."""
    return "; ".join(f"{count} x {reason}" for reason, count in errors.items())


def warn_of_single_posts(labels: Iterable[str]) -> None:
    """Warn of labels that one post alone has, naming them; `labels` has one for each post.

    Such a label is learned from its post, but with no other post to judge it by.
    """
    single = sorted(label for label, count in Counter(labels).items() if count == 1)
    if single:
        named = ", ".join(single[:10]) + (f" and {len(single) - 10} more" if single[10:] else "")
        warnings.warn(
            f"Only one post has the label {named}: it is learned from, but nothing tells how well; "
            "label more such posts, or give them another label.",
            SgmftWarning,
            stacklevel=4,  # whoever called fit, which calls training_set, which calls this
        )


def refuse(posts: Iterable[Post]) -> None:
    """Raise SgmftError at the first post that carries an error."""
    for post in posts:
        if post.error is not None:
            raise SgmftError(f"{post.place}: {post.error}." if post.place else f"{post.error}.")
