"""Labels by several annotators, people or models, who err in different ways.

A. P. Dawid, A. M. Skene: Maximum likelihood estimation of observer error-rates using the EM
algorithm. Applied Statistics 28(1), 20-28, 1979.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sgmft.data.posts import Post, require_columns
from sgmft.data.source import soften
from sgmft.data.tables.cells import NO_LABEL, says_nothing, to_label
from sgmft.data.tables.columns import find_role
from sgmft.errors import TEXTS, Message, SgmftError, SgmftNotice, warn
from sgmft.models.arrays import Doubles, Integers, softmax

MAX_ROUNDS, CLOSE = 1000, 1e-8  # of the search, which ends where no probability moves further


class AnnotatorEstimates(NamedTuple):
    """What the answers of A annotators to N posts say of posts and annotators."""

    probabilities: Doubles  # (N, K) of the labels
    confusion: Doubles  # (A, K, K) how probable each answer (last) is where a label is true
    accuracy: Doubles  # (A,) share of their answers that are right, by the probabilities
    right: Integers  # (A,) number of their answers to posts with a known label that are right
    known: Integers  # (A,) number of these answers


def estimate_labels(answers: Integers, truth: Integers, classes: int) -> AnnotatorEstimates:
    """Estimate labels and annotators together, by EM in float64 from the shares of the votes.

    Answers (N, A) are classes 0..K-1, or -1 for none; so are known labels (N,), which are held
    fixed. As a prior, every annotator has answered once more for each label, half right and half
    spread over the wrong ones, and every label has one post more. With one or two annotators and
    no known label nothing tells who is right, and probabilities stay the shares of the votes.
    """
    eye = np.eye(classes + 1)[:, :-1]  # -1 becomes zeros
    given, fixed, is_known = eye[answers], eye[truth], truth[:, None] >= 0  # (N, A, K), (N, K)
    votes = given.sum(1)
    probs = np.where(is_known, fixed, votes / np.maximum(votes.sum(1, keepdims=True), 1))
    before = np.where(np.eye(classes), 0.5, 0.5 / max(1, classes - 1))
    moved = np.inf if is_known.any() or answers.shape[1] > 2 else 0.0
    for _ in range(MAX_ROUNDS):
        confusion = np.einsum("nk,nal->akl", probs, given) + before
        confusion /= confusion.sum(-1, keepdims=True)
        if moved < CLOSE:
            break
        logits = np.log(probs.sum(0) + 1) + np.einsum("nal,akl->nk", given, np.log(confusion))
        found = np.where(is_known, fixed, softmax(logits))
        moved, probs = np.abs(found - probs).max(initial=0), found
    right = np.einsum("nk,nak->a", probs, given) / np.maximum(given.sum((0, 2)), 1)
    both = (answers >= 0) & is_known
    hits = (both & (answers == truth[:, None])).sum(0)
    return AnnotatorEstimates(probs, confusion, right, hits, both.sum(0))


def label_by_annotators(
    posts: Sequence[Post], columns: Sequence[str], truth: str | None = None
) -> list[Post]:
    """Return posts with soft labels by annotators' columns; those with a label keep it.

    The column of labels, `truth` if it was named, is no truth where it is an annotator's. Says how
    good each annotator is. SgmftError for a column that no post has.
    """
    columns = [*dict.fromkeys(columns)]  # each counts once
    require_columns(posts, columns, "--annotators")
    names = dict.fromkeys(name for post in posts for name in post.row)
    is_answer = (truth or next(iter(find_role(names, "label")), "")) in columns
    read, rows = list[Post](), list[list[str]]()
    for post in posts:
        cells = ["" if says_nothing(x, NO_LABEL) else x for x in map(post.row.get, columns)]
        try:
            row = [to_label("" if post.error else cell).strip() for cell in cells]
        except ValueError as error:
            row, post = [""] * len(columns), replace(post, error=str(error))
        rows.append(row)
        read.append(replace(post, label=None) if is_answer else post)
    known = [post.label or "" if post.error is None else "" for post in read]
    if not (labels := sorted({*known, *(label for row in rows for label in row)} - {""})):
        raise SgmftError(TEXTS["no annotations"], columns=",".join(columns))
    place = {label: i for i, label in enumerate(["", *labels], -1)}
    own = np.array([place[label] for label in known])
    answers = np.array([[place[label] for label in row] for row in rows])
    found = estimate_labels(answers, own, len(labels))
    for name, share, right, count in zip(columns, *found[2:], strict=True):
        measured = f"right on {right / max(1, count):.0%} of {count:,} posts with a known label; "
        text = f"{name}: {measured if count else ''}estimated {share:.0%}."
        warn(text.replace("%", " %"), SgmftNotice)
    if len(columns) < 3 and not any(known):
        warn(Message(TEXTS["few annotators"], count=len(columns)))
    for i in np.flatnonzero((own < 0) & (answers >= 0).any(1)):
        soft = dict(zip(labels, found.probabilities[i].tolist(), strict=True))
        read[i] = soften(replace(read[i], soft=soft))
    return read
