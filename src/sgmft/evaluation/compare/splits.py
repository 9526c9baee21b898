"""The splits of a comparison: drawn by chance, named by a column, or read from a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgmft.data.posts import Post
from sgmft.data.splits import fold_posts, split_posts
from sgmft.data.tables import open_table, open_writer
from sgmft.data.tables.cells import to_text
from sgmft.errors import TEXTS, SgmftError, check_name, unwarned

TEST_SIZE = 0.2  # of the posts, where nothing names the test posts
VAL_SIZE = 0.1  # of the training posts, held out for trials
Places = Sequence[tuple[str, str]]  # where each post stands in its table, and its id
TRAIN, VALIDATION, TEST = ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """How posts are divided, once or several times."""

    test: tuple[str, str] | None = None  # (column, value) of the test posts; None draws them
    by: str = "auto"  # "label", "user", or "auto": by user where the posts name two users or more
    folds: int | None = None  # K; each post is a test post in one of them
    size: float | None = None  # share of test posts, without folds; `TEST_SIZE` by default
    repeats: int = 1  # how often they are drawn, with seeds from `seed` on
    seed: int = 0
    file: str | Path | None = None  # a table of id, split and role; see `write_splits`

    def __post_init__(self) -> None:
        ways: dict[str, object] = {"--splits": self.file, "--test": self.test}
        ways |= {"--folds": self.folds, "--test-size": self.size}
        ways |= {"--repeats": None if self.repeats == 1 else self.repeats}
        given = [name for name, way in ways.items() if way is not None]
        if given[1:] and (given[0] in ("--splits", "--test") or "--test-size" in given[1:2]):
            raise SgmftError(f"{given[0]} and {given[1]} do not go together: leave one out.")


@dataclass(frozen=True)
class Division:
    """One division of N posts."""

    name: str
    roles: Sequence[str]  # (N,) each one of `ROLES`; trials are judged by the validation posts

    def where(self, *roles: str) -> list[int]:
        """Return the positions of the posts with one of these roles."""
        return [i for i, role in enumerate(self.roles) if role in roles]

    @property
    def train(self) -> list[int]:
        """Positions of the posts that are learned from; runs also learn from validation posts."""
        return self.where(TRAIN, VALIDATION)


def divide(posts: Sequence[Post], split: Split) -> list[Division]:
    """Divide the posts that have no error; a division has a role for each of these."""
    good, found = [post for post in posts if post.error is None], []
    named = _read_splits(split.file, posts) if split.file is not None else _draw(good, split)
    for name, roles in named:
        train = Division(name, roles).train
        if TEST not in roles or len(train) < 2:
            where = "" if split.test is None else f" with {split.test[0]}={split.test[1]}"
            n, k = len(good), len(train)
            raise SgmftError(TEXTS["one sided"], posts=n, train=k, test=n - k, where=where)
        if VALIDATION not in roles:
            left = [good[i] for i in train]
            for i in split_posts(left, VAL_SIZE, split.seed, _split_by(left, split))[1]:
                roles[train[i]] = VALIDATION
        found.append(Division(name, roles))
    return found


def _draw(posts: Sequence[Post], split: Split) -> Iterator[tuple[str, list[str]]]:
    tests: list[list[int]] = []
    for seed in range(split.seed, split.seed + split.repeats):
        if split.test is not None:
            column, value = split.test
            tests.append([i for i, x in enumerate(posts) if str(x.row.get(column, "")) == value])
        elif split.folds is not None:
            tests += fold_posts(posts, split.folds, seed, _split_by(posts, split))
        else:
            size = TEST_SIZE if split.size is None else split.size
            tests.append(split_posts(posts, size, seed, _split_by(posts, split))[1])
    for number, test in enumerate(map(set, tests), 1):
        yield str(number), [TEST if i in test else TRAIN for i in range(len(posts))]


def _read_splits(path: str | Path, posts: Sequence[Post]) -> Iterator[tuple[str, list[str]]]:
    """Yield a split's name and its posts' roles; without these, `fold` has its test posts."""
    known, splits = {post.id or post.place for post in posts}, dict[str, dict[str, str]]()
    elsewhere = dict[str, str]()
    for row in open_table(path).rows:
        where, cells = f"{path}, row {row.number}", {k: to_text(x) for k, x in row.values.items()}
        name, role = cells.get("id", ""), cells.get("role", TEST)
        if row.error or name not in known:
            raise SgmftError(f"{where}: {row.error or f'no post has the id {name!r}'}.")
        check_name(role, ROLES, f"{where}: {name} has the role")
        own = splits.setdefault(cells.get("split", cells.get("fold", "1")), {})
        if own.setdefault(name, role) != role:
            raise SgmftError(f"{where}: {name} has another role in this split, further up.")
        elsewhere |= {} if "role" in cells else {name: TRAIN}
    if not splits:
        raise SgmftError(f"{path} has no rows: it needs the columns id, split and role.")
    for split, own in splits.items():
        roles = [(elsewhere | own).get(x.id or x.place, x.place) for x in posts if x.error is None]
        if missing := [x for x in roles if x not in ROLES]:
            raise SgmftError(f"{path} has no role for the post of {missing[0]} in split {split}.")
        yield split, roles


def write_splits(path: Path, places: Places, divisions: Sequence[Division]) -> None:
    """Write a row for each post and division: its id, or else its place, split and role."""
    with unwarned(), open_writer(path, ("id", "split", "role")) as writer:  # ids are for programs
        for split in divisions:
            rows = zip(places, split.roles, strict=True)
            own = ({"id": name or place, "role": role} for (place, name), role in rows)
            writer.write([row | {"split": split.name} for row in own])


def _split_by(posts: Sequence[Post], split: Split) -> str:
    users = {post.user for post in posts if post.user is not None}
    return split.by if split.by != "auto" else "user" if len(users) > 1 else "label"
