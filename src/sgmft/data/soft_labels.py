"""Soft labels: probabilities of labels that a model, or several annotators, gave to a post."""

from collections.abc import Sequence
from dataclasses import replace

from sgmft.data.posts import Post
from sgmft.data.tables.cells import says_nothing, to_amount, to_label
from sgmft.errors import TEXTS, Message, SgmftError, SgmftNotice, warn

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
    total = sum(soft.values())
    if abs(total - 1) > TOLERANCE + 1e-9:
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
    softened = [post.soft for post in read if post.soft and post.error is None]
    if not softened:
        bad = next((f", as {post.place}: {post.error}" for post in read if post.error), "")
        raise SgmftError(TEXTS["no soft labels"], bad=bad)
    pairs = zip(posts, read, strict=True)
    both = [(x.label, y.soft) for x, y in pairs if x.label and y.error is None and y.soft]
    if other := sum(soft.get(label, 0) < max(soft.values()) for label, soft in both):
        warn(Message(TEXTS["other labels"], count=other))
    labels = ", ".join(dict.fromkeys(label for soft in softened for label in soft))
    warn(f"Soft labels of {len(softened):,} posts: {labels}.", SgmftNotice)
    return read
