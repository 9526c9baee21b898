"""From a user's posts to the data of a comparison: split, and encoded as every row needs."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sgmft.data.posts import Post, raise_first_error, require_columns, require_known, require_label
from sgmft.data.source import JobSummary, describe_errors
from sgmft.data.splits import fold_posts, split_posts
from sgmft.data.tables import open_table, open_writer
from sgmft.data.tables.cells import to_text
from sgmft.errors import TEXTS, Message, SgmftError, check_name, raising, unwarned, warn
from sgmft.evaluation.compare.catalogue import ComparisonPlan, Row
from sgmft.features.attributes import AttributeReader, read_cell, to_number
from sgmft.features.encode import encode_posts
from sgmft.features.encoder_handle import open_encoder
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features
from sgmft.features.store import FeatureStore
from sgmft.models.registry import get_method
from sgmft.utils.checksums import short_digest

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
    size: float | None = None  # share or number of test posts, without folds; else `TEST_SIZE`
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
            check_name(column, {x: None for post in posts for x in post.row}, "--test: no column")
            tests.append([i for i, x in enumerate(posts) if str(x.row.get(column, "")) == value])
        elif split.folds is not None:
            tests += fold_posts(posts, split.folds, seed, _split_by(posts, split))
        else:
            size = TEST_SIZE if split.size is None else split.size
            size = int(size) if size >= 1 and size.is_integer() else size  # of posts
            tests.append(split_posts(posts, size, seed, _split_by(posts, split))[1])
    for number, test in enumerate(map(set, tests), 1):
        yield str(number), [TEST if i in test else TRAIN for i in range(len(posts))]


def _read_splits(path: str | Path, posts: Sequence[Post]) -> Iterator[tuple[str, list[str]]]:
    """Yield a split's name and its posts' roles; without these, `fold` has its test posts.

    A column `split` of roles alone, as many have it, is read as that of roles.
    """
    known, splits = {post.id or post.place for post in posts}, dict[str, dict[str, str]]()
    tested, rows = dict[str, str](), [*open_table(path).rows]
    alone = {str(row.values.get("split")) for row in rows} <= {*ROLES}
    for row in rows:
        where, cells = f"{path}, row {row.number}", {k: to_text(x) for k, x in row.values.items()}
        if alone and "role" not in cells and "fold" not in cells:
            cells["role"] = cells.pop("split")
        name, role = cells.get("id", ""), cells.get("role", TEST)
        if "" in (cells.get("split"), cells.get("fold")):
            raise SgmftError(f"{where}: {name} has an empty cell where its split is named.")
        if row.error or name not in known:
            raise SgmftError(f"{where}: {row.error or f'no post has the id {name!r}'}.")
        check_name(role, ROLES, f"{where}: {name} has the role")
        split = cells.get("split", cells.get("fold", "1"))
        if (own := splits.setdefault(split, {})).setdefault(name, role) != role:
            raise SgmftError(f"{where}: {name} has another role in this split, further up.")
        if "role" not in cells and tested.setdefault(name, split) != split:
            text = "{where}: {name} is in the fold {fold}, too; name its role in each."
            raise SgmftError(text, where=where, name=name, fold=tested[name])
    if not splits:
        raise SgmftError(f"{path} has no rows: it needs the columns id, split and role.")
    for split, own in splits.items():
        own = dict.fromkeys(tested, TRAIN) | own
        roles = [own.get(x.id or x.place, x.place) for x in posts if x.error is None]
        if missing := [x for x in roles if x not in ROLES]:
            some = f"{len(missing)} posts, the first of {missing[0]}, in split {split}"
            raise SgmftError(f"{path} has no role for {some}.")
        yield split, roles


def write_splits(path: Path, places: Places, divisions: Sequence[Division]) -> None:
    """Write a row for each post and division: its id, or else its place, split and role."""
    with unwarned(), open_writer(path, ("id", "split", "role")) as writer:  # ids are for programs
        for split in divisions:
            rows = zip(places, split.roles, strict=True)
            own = {"split": split.name}
            writer.write([own | {"id": name or at, "role": role} for (at, name), role in rows])


def _split_by(posts: Sequence[Post], split: Split) -> str:
    check_name(split.by, ("auto", "label", "user"), "Posts cannot be split by")
    users = {post.user for post in posts if post.user is not None}
    return split.by if split.by != "auto" else "user" if len(users) > 1 else "label"


OnEncoded = Callable[[str, int], None] | None  # an encoder setting, and how many posts are encoded
RowsOf = Mapping["EncoderSetting", Sequence[Row]]


class EncoderSetting(NamedTuple):
    """Which features a row works on."""

    name: str
    cleaning: str
    patch_grid: int | None

    @classmethod
    def of(cls, row: Row, encoder: str) -> "EncoderSetting":
        """Return that of a row when the others work on the features of `encoder`."""
        method = get_method(row.method)
        cleaning = row.cleaning or method.preset(row.preset).cleaning
        return cls(method.encoder or row.encoder or encoder, cleaning, row.patch_grid)

    @property
    def key(self) -> str:
        """As text, to look it up by."""
        return "/".join(str(part) for part in self if part is not None)


@dataclass(frozen=True)
class EncodedSetting:
    """Where the features of one encoder setting are."""

    info: dict[str, Any]  # the encoder's `EncoderInfo`, as a mapping
    tokens: bool  # whether the store holds word and region features
    prompts: dict[str, dict[str, list[float]]]  # method -> label -> (Dt,), where it asks for them
    seconds: float | None = None  # for one post; None where the store had them all


@dataclass(frozen=True)
class ComparisonData:
    """The posts of a comparison, as workers read them from `data.json`."""

    labels: list[str]  # K names
    keys: list[str]  # content key of each of N posts
    classes: list[int]  # class of each
    divisions: list[Division]  # J
    places: list[tuple[str, str]]  # where each post stands in its table, and its id
    groups: dict[str, list[str]]  # column -> value of each post
    store: str  # folder of the feature store
    encoded: dict[str, EncodedSetting]  # by `EncoderSetting.key`
    read: int = 0  # how many posts the table has
    left_out: dict[str, int] = field(default_factory=dict)  # posts not used, by reason
    warnings: dict[str, int] = field(default_factory=dict)  # of the others, by reason
    examples: dict[str, str] = field(default_factory=dict)  # the first of each reason
    answers: dict[str, list[str]] = field(default_factory=dict)  # from outside, by row; "" for none
    attributes: list[dict[str, str]] = field(default_factory=list)  # of each post, by column
    costs: dict[str, str] = field(default_factory=dict)  # in words, of answers by `sgmft label`
    sure: dict[str, list[float]] = field(default_factory=dict)  # how probable answers say they are
    asked: dict[str, str] = field(default_factory=dict)  # the table, split and answers, as options

    @cached_property
    def fingerprints(self) -> list[str]:
        """Of each division; changes, as results do, with any post, label, side, or order."""
        known = self.labels, self.keys, self.classes
        sides = (([role == TEST for role in x.roles], x.where(VALIDATION)) for x in self.divisions)
        return [short_digest(json.dumps([*known, *each]).encode()) for each in sides]


@lru_cache(maxsize=1)
def load_data(folder: Path) -> ComparisonData:
    """Read `data.json` of a comparison."""
    values = json.loads((folder / "data.json").read_text("utf-8"))
    encoded = {key: EncodedSetting(**value) for key, value in values.pop("encoded").items()}
    places = [(place, name) for place, name in values.pop("places")]
    divisions = [Division(**division) for division in values.pop("divisions")]
    return ComparisonData(**values, divisions=divisions, encoded=encoded, places=places)


@lru_cache(maxsize=2)
def load_features(folder: Path, key: str) -> Features:
    """Return all posts' features under one encoder setting, kept in memory for the next run."""
    data = load_data(folder)
    info, tokens = EncoderInfo(**data.encoded[key].info), data.encoded[key].tokens
    return Features.of(FeatureStore(data.store, info, tokens).read(data.keys), info, tokens)


def prepare_comparison(
    posts: Sequence[Post],
    plan: ComparisonPlan,
    store: Path,
    split: Split,
    by: Sequence[str] = (),
    answers: Mapping[str, str] | None = None,  # row -> column, or file of id and label
    strict: bool = False,
    on_encoded: OnEncoded = None,
) -> ComparisonData:
    """Encode posts under every encoder setting that the plan's rows need, and split them.

    A post that one setting cannot use is left out for all, or refused with `strict`.
    """
    posts = [require_label(post, "has no label to learn from") for post in posts]
    if len(readable := [post for post in posts if post.error is None]) < 2:
        reasons = describe_errors(JobSummary.of(posts).errors)
        raise SgmftError(f"{len(readable)} posts can be used, and two are needed: {reasons}.")
    # A mistake in the split is reported now, not after an hour of encoding.
    seen = {readable[i].label for division in divide(posts, split) for i in division.train}
    posts = [require_known(post, seen) for post in posts]
    require_columns(readable, by)
    (reader := AttributeReader(plan.attributes)).check(readable)
    outside = {name: _read_answers(name, x, posts) for name, x in (answers or {}).items()}
    rows_of: dict[EncoderSetting, list[Row]] = {}
    for row in plan.rows():
        rows_of.setdefault(EncoderSetting.of(row, plan.encoder), []).append(row)
    encoded, keys = _encode(posts, rows_of, store, plan.device, on_encoded)
    if strict:
        raise_first_error(posts)
    good = [i for i, post in enumerate(posts) if post.error is None]
    usable = [posts[i] for i in good]
    for name, (given, *_) in outside.items():
        other = Counter(x for i in good if (x := given[i]) not in seen)
        if sum(other.values()) == len(good):
            raise SgmftError(TEXTS["no answers"], name=name, some=", ".join([*other][:3]))
        if others := [x for x in other if x]:
            some = {"name": name, "count": sum(other[x] for x in others), "some": others[:3]}
            warn(Message(TEXTS["other answers"], **some))
    divisions, labels = divide(posts, split), sorted({str(post.label) for post in usable})
    for division in divisions:
        if missing := set(labels) - {str(usable[i].label) for i in division.train}:
            where = f" in split {division.name}" if len(divisions) > 1 else ""
            hint = " Add --split-by label." if _split_by(usable, split) == "user" else ""
            names = ", ".join(sorted(missing))
            raise SgmftError(f"No training post has the label {names}{where}.{hint}")
    if len(labels) < 2:
        raise SgmftError(TEXTS["few labels to compare"], posts=len(usable), labels=len(labels))
    summary = JobSummary.of(posts)
    return ComparisonData(
        labels=labels,
        keys=[keys[i] for i in good],
        classes=[labels.index(str(post.label)) for post in usable],
        divisions=divisions,
        places=[(post.place, post.id or "") for post in usable],
        groups={column: [read_cell(post, column) or "" for post in usable] for column in by},
        store=str(store.absolute()),
        encoded=encoded,
        read=len(posts),
        left_out=summary.errors,
        warnings=summary.warnings,
        examples=summary.examples,
        answers={name: [given[i] for i in good] for name, (given, *_) in outside.items()},
        costs={name: costs for name, (*_, costs) in outside.items()},
        sure={x: [sure[i] for i in good] for x, (_, sure, _) in outside.items() if any(sure)},
        attributes=[{x: read_cell(post, x) or "" for x in reader.names} for post in usable],
    )


def _encode(
    posts: list[Post], rows_of: RowsOf, store: Path, device: str | None, on_encoded: OnEncoded
) -> tuple[dict[str, EncodedSetting], dict[int, str]]:
    """Fill the store; note errors in `posts`. Returns its settings, and keys by post."""
    encoded: dict[str, EncodedSetting] = {}
    keys: dict[int, str] = {}
    stores: list[FeatureStore] = []
    for setting, rows in rows_of.items():
        grid = {} if setting.patch_grid is None else {"patch_grid": setting.patch_grid}
        model = open_encoder(setting.name, cleaning=setting.cleaning, device=device, **grid)
        methods = [(get_method(row.method), row) for row in rows]
        tokens = any(x.uses_tokens(x.preset(row.preset, row.settings)) for x, row in methods)
        image_key, done, start = model.info.image_key, 0, time.monotonic()
        alike = [x for x in stores if image_key and x.info.image_key == image_key]
        seen = next((x for x in alike if x.tokens or not tokens), None)
        stores.append(features := FeatureStore(store, model.info, tokens))
        before = len(features)
        chunks = encode_posts(list(posts), model, tokens=tokens, store=features, image_store=seen)
        for chunk in chunks:
            posts[done : done + len(chunk.posts)] = chunk.posts
            keys.update((done + i, key) for i, key in zip(chunk.good, chunk.keys, strict=True))
            done += len(chunk.posts)
            if on_encoded:
                on_encoded(setting.key, done)
        new, seconds = len(features) - before, time.monotonic() - start
        labels = sorted({str(post.label) for post in posts if post.error is None})
        prompts = {}
        for method, _ in methods:
            if (vectors := method.encode_prompts(labels, model)) is not None:
                prompts[method.name] = dict(zip(labels, vectors.tolist(), strict=True))
        each = seconds / new if new and seen is None else None
        encoded[setting.key] = EncodedSetting(asdict(model.info), tokens, prompts, each)
    return encoded, keys


def _read_answers(
    name: str, source: str, posts: Sequence[Post]
) -> tuple[list[str], list[float], str]:
    """Return answers, of a column or a table of id and label ("" for none), and what they cost.

    Of a table also how probable each is by a column `probability`; 0 where it is not said.
    """
    if any(source in post.row for post in posts):
        with raising(f"--answers {name}={source}: {{error}}.", ValueError):
            answers = [to_text(post.row.get(source)).strip() for post in posts]
        return answers, [0.0] * len(posts), _describe_costs([post.row for post in posts])
    if not Path(source).is_file():
        raise SgmftError(f"--answers {name}={source}: it is no column of the posts, and no file.")
    found, said, rows = dict[str, str](), dict[str, str](), [*open_table(source).rows]
    for row in rows:
        where = f"{source}, row {row.number}"
        with raising(f"{where}: {{error}}.", ValueError):
            names = row.values.keys() & {"id", "label", "probability"}
            cells = {name: to_text(row.values[name]).strip() for name in names}
        if row.error or not {"id", "label"} <= cells.keys():
            raise SgmftError(f"{where}: {row.error or 'the columns id and label are needed'}.")
        if found.setdefault(cells["id"], cells["label"]) != cells["label"]:
            raise SgmftError(f"{where}: {cells['id']} has another label further up.")
        said[cells["id"]] = cells.get("probability", "")
    answers = [found.get(post.id or post.place, "") for post in posts]
    if not any(answers):
        some = next(iter(found), "nothing")
        raise SgmftError(f"{source} has no label for any of the posts: its ids are like {some!r}.")
    sure = [to_number(x) if (x := said.get(post.id or post.place)) else 0.0 for post in posts]
    for name, x in said.items():
        if x and not 0 <= to_number(x) <= 1:
            raise SgmftError(f"{source}: the probability {x!r} of {name} is no number from 0 to 1.")
    return answers, sure, _describe_costs([row.values for row in rows])


def _describe_costs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what a thousand answers cost by the columns of `sgmft label`; "" without these."""
    found = list[str]()
    units = {"seconds": "{:,.0f} s", "tokens": "{:,.0f} tokens", "price": "price {:.3g}"}
    for column, unit in units.items():
        texts = (to_text(row.get(f"llm_{column}")).strip() for row in rows)
        values = [x for x in (to_number(text) for text in texts) if x >= 0]
        found += [unit.format(1000 * sum(values) / len(values))] if values else []
    return f" A thousand posts: {', '.join(found)}." if found else ""
