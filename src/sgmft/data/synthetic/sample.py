"""A seeded set of synthetic posts, for trying the package and testing it; never a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sgmft.data.synthetic.damage import damaged_line
from sgmft.data.synthetic.folder import prepare
from sgmft.data.synthetic.plan import Crowd
from sgmft.data.synthetic.posts import write_post
from sgmft.errors import SgmftError
from sgmft.utils.files import writing

__all__ = ["write_sample"]

SEVERAL = 0.12  # of posts: 2 to 9 pictures


def write_sample(
    folder: str | Path,
    posts: int = 1400,
    seed: int = 0,
    damaged: int = 0,
    noise: float = 0.35,
    users: int = 60,
    on_written: Callable[[int], None] | None = None,
    several: float = SEVERAL,
) -> Path:
    """Write `posts.jsonl`, its pictures under `images/`, and a README that says what they are.

    The same arguments give the same table and the same pixels. Every post has its own rng, so
    the first posts of a larger set are the posts of a smaller one.

    Args:
        folder: where to write; must be new, empty, or hold an earlier sample, which is replaced.
        posts: how many posts, at least 7; the seven labels are balanced, 80 % are for training.
        seed: 0 or more; decides everything.
        damaged: how many damaged rows follow; only they have a `damage` column, naming the kind.
        noise: 0 to 1. Scales the share of posts whose place only the text (0.8 x noise) or only
            the pictures (0.63 x noise) tell, that have no picture (0.23 x noise) or no text
            (0.086 x noise), and how disturbed texts and pictures are. With 0, both sides of every
            post tell its place, without decoration, clutter or misplaced pictures.
        users: how many authors; each has favourite places and a pet phrase.
        on_written: called with the number of posts written so far.
        several: 0 to 1. The share of posts with 2 to 9 pictures, if they have any.

    Returns:
        The path of the table, `folder/posts.jsonl`.

    Raises:
        SgmftError: an argument is out of range, the folder holds something else, or it cannot be
            written.
    """
    _check(posts, seed, damaged, noise, users, several)
    folder = Path(folder)
    options = {"posts": posts, "seed": seed, "damaged": damaged, "noise": noise, "users": users}
    if several != SEVERAL:
        options["several"] = several
    crowd = Crowd(seed, users)
    table, unfinished = folder / "posts.jsonl", folder / "posts.jsonl.part"
    with writing(folder):
        prepare(folder, options)
        with unfinished.open("w", encoding="utf-8", newline="\n") as out:
            for index in range(posts):
                row = write_post(folder, index, crowd, noise, several)
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                if on_written:
                    on_written(index + 1)
            for number in range(damaged):
                out.write(damaged_line(folder, posts + number, number, crowd) + "\n")
        unfinished.replace(table)
    return table


def _check(posts: int, seed: int, damaged: int, noise: float, users: int, several: float) -> None:
    """Raise SgmftError for an argument out of range."""
    if posts < 7:
        raise SgmftError(f"{posts} posts cannot cover the seven places; ask for at least 7.")
    if not 0 <= noise <= 1:
        raise SgmftError(f"noise is {noise}; give a number from 0 (clean) to 1.")
    if not 0 <= several <= 1:
        raise SgmftError(f"several is {several}; give a share from 0 to 1.")
    for name, value, least in (("seed", seed, 0), ("damaged", damaged, 0), ("users", users, 1)):
        if value < least:
            raise SgmftError(f"{name} is {value}; give {least} or more.")
