"""Answers from outside, a language model's or an annotator's, to be judged like a row's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.tables import open_table
from sgmft.data.tables.cells import to_text
from sgmft.errors import SgmftError
from sgmft.models.arrays import Doubles


def read_answers(name: str, source: str, posts: Sequence[Post]) -> list[str]:
    """Return the answer to each post, from a column or a table of id and label; "" without one."""
    if any(source in post.row for post in posts):
        return [to_text(post.row.get(source)).strip() for post in posts]
    if not Path(source).is_file():
        raise SgmftError(f"--answers {name}={source}: it is no column of the posts, and no file.")
    found: dict[str, str] = {}
    for row in open_table(source).rows:
        cells = {key: to_text(value).strip() for key, value in row.values.items()}
        where, answer = f"{source}, row {row.number}", cells.get("label", "")
        if row.error or not {"id", "label"} <= cells.keys():
            raise SgmftError(f"{where}: {row.error or 'the columns id and label are needed'}.")
        if found.setdefault(cells["id"], answer) != answer:
            raise SgmftError(f"{where}: {cells['id']} has another label further up.")
    answers = [found.get(post.id or post.place, "") for post in posts]
    if not any(answers):
        some = next(iter(found), "nothing")
        raise SgmftError(f"{source} has no label for any of the posts: its ids are like {some!r}.")
    return answers


def as_probabilities(answers: Sequence[str], labels: Sequence[str]) -> Doubles:
    """Return (1, N, K + 1): certain of each answer, or of none of the K labels."""
    place = {label: number for number, label in enumerate(labels)}
    chosen = [place.get(answer, len(labels)) for answer in answers]
    return np.eye(len(labels) + 1)[None, chosen]
