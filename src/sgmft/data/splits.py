"""Splits of posts for training and testing, and the fingerprint of a data set."""

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from random import Random

from sgmft.data.posts import Post
from sgmft.errors import TEXTS, SgmftError, check_name

Rows = list[int]  # positions of posts
Halves = tuple[Rows, Rows]
_TRIES = 32
_MAX_STEPS = 2_000_000


def split_posts(posts: Sequence[Post], size: float, seed: int = 0, by: str = "label") -> Halves:
    """Split posts into one part to train on and one to hold out; return their sorted positions.

    `size`, of the held-out part, is a fraction, or a number of posts; at least one is held out. By
    "label" as large a share of each is drawn, but for its last post, so that fewer may be held out,
    even none. By "user" all posts of a user are in one part; of some random tries the one nearest
    to `size` is taken, with the most balanced labels; a post without a user is on its own.
    """
    check_name(by, ways := {"label": _by_label, "user": _by_user}, "Posts cannot be split by")
    held = ways[by](posts, _held_out_count(len(posts), size), Random(f"{seed}"))
    return [i for i in range(len(posts)) if i not in held], sorted(held)


def fold_posts(posts: Sequence[Post], folds: int, seed: int = 0, by: str = "label") -> list[Rows]:
    """Divide posts into folds, drawn one after another as `split_posts` draws; return positions."""
    users = {post.user for post in posts if post.user is not None}
    most, what = (len(users), "users") if by == "user" else (len(posts), "posts")
    if not 2 <= folds <= most:
        raise SgmftError(f"{most} {what} cannot be divided into {folds} folds: use 2 to {most}.")
    rest, found = list(range(len(posts))), list[list[int]]()
    for left in range(folds, 1, -1):
        kept, held = split_posts([posts[i] for i in rest], 1 / left, seed, by)
        found.append([rest[i] for i in held])
        rest = [rest[i] for i in kept]
    # By label, the only post of a label is in no fold, so that it can be learned from.
    count = Counter(post.label for post in posts)
    return [*found, [i for i in rest if by == "user" or count[posts[i].label] > 1]]


def fingerprint(keys_and_labels: Iterable[tuple[str, str | None]]) -> str:
    """Return 16 hexadecimal digits that identify posts (content key, label), in whatever order."""
    digests = (hashlib.sha256(json.dumps(x).encode()).digest() for x in keys_and_labels)
    total = sum(map(int.from_bytes, digests))
    return hashlib.sha256((total % 2**256).to_bytes(32)).hexdigest()[:16]


def _held_out_count(total: int, size: float) -> int:
    if total < 2:
        raise SgmftError(f"{total} posts cannot be split: two or more are needed.")
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size < total:
        return size
    if isinstance(size, float) and 0 < size < 1:
        return min(max(round(size * total), 1), total - 1)
    raise SgmftError(TEXTS["bad size"], size=size, total=total, most=total - 1)


def _by_label(posts: Sequence[Post], count: int, random: Random) -> set[int]:
    members: dict[str | None, list[int]] = {}
    for i, post in enumerate(posts):
        members.setdefault(post.label, []).append(i)
    # Only posts without a label may all be held out.
    room = {label: len(some) - (label is not None) for label, some in members.items()}
    count = min(count, sum(room.values()))
    shares = {label: len(some) * count / len(posts) for label, some in members.items()}
    quota = {label: min(int(shares[label]), room[label]) for label in members}
    order = list(members)
    random.shuffle(order)
    while (missing := count - sum(quota.values())) > 0:
        order.sort(key=lambda label: quota[label] - shares[label])
        for label in [x for x in order if quota[x] < room[x]][:missing]:
            quota[label] += 1
    return {i for label, some in members.items() for i in random.sample(some, quota[label])}


def _by_user(posts: Sequence[Post], count: int, random: Random) -> set[int]:
    members: dict[Hashable, list[int]] = {}
    for i, post in enumerate(posts):
        members.setdefault(i if post.user is None else post.user, []).append(i)
    if (users := sum(isinstance(key, str) for key in members)) < 2:
        raise SgmftError(TEXTS["few users"], count=users)
    groups = list(members.values())
    fraction = count / len(posts)
    expected = {label: n * fraction for label, n in Counter(post.label for post in posts).items()}
    best, best_score = set[int](), (float("inf"), float("inf"))
    for _ in range(min(_TRIES, _MAX_STEPS // len(posts) + 1)):
        random.shuffle(groups)
        held = {i for group in _fill(groups, count, len(posts)) for i in group}
        labels = Counter(posts[i].label for i in held)
        unbalance = sum(abs(labels[label] - n) for label, n in expected.items())
        if (score := (abs(len(held) - count), unbalance)) < best_score:
            best, best_score = held, score
    return best


def _fill(groups: Sequence[list[int]], count: int, total: int) -> list[list[int]]:
    """Return the groups that fit in `count`, in order, and one more if that comes nearer."""
    taken, left, missing = list[list[int]](), list[list[int]](), count
    for group in groups:
        fits = len(group) <= missing
        (taken if fits else left).append(group)
        missing -= len(group) * fits
    if left and missing:
        extra = min(left, key=len)
        stays = total - (count - missing) - len(extra) > 0
        if not taken or (stays and len(extra) - missing < missing):
            taken.append(extra)
    return taken
