"""From a user's posts to the data of a comparison: encoded as every row needs, and split once."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sgmft.data.posts import Post, raise_first_error, require_columns, require_known, require_label
from sgmft.data.source import JobSummary
from sgmft.data.tables import open_table
from sgmft.data.tables.cells import to_text
from sgmft.errors import TEXTS, SgmftError, raising
from sgmft.evaluation.compare.catalogue import ComparisonPlan, Row
from sgmft.evaluation.compare.splits import TEST, VALIDATION, Division, Split, divide
from sgmft.features.attributes import AttributeReader, read_cell, to_number
from sgmft.features.encode import encode_posts
from sgmft.features.encoder_handle import open_encoder
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features
from sgmft.features.store import FeatureStore
from sgmft.models.registry import get_method
from sgmft.utils.checksums import short_digest

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
    readable = [post for post in posts if post.error is None]
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
    divisions, labels = divide(posts, split), sorted({str(post.label) for post in usable})
    for division in divisions:
        if missing := set(labels) - {str(usable[i].label) for i in division.train}:
            where = f" in split {division.name}" if len(divisions) > 1 else ""
            raise SgmftError(f"No training post has the label {', '.join(sorted(missing))}{where}.")
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
    sure = (to_number(said.get(post.id or post.place, "")) for post in posts)
    costs = _describe_costs([row.values for row in rows])
    return answers, [x if 0 < x <= 1 else 0.0 for x in sure], costs


def _describe_costs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what a thousand answers cost by the columns of `sgmft label`; "" without these."""
    found = list[str]()
    units = {"seconds": "{:,.0f} s", "tokens": "{:,.0f} tokens", "price": "price {:.3g}"}
    for column, unit in units.items():
        texts = (to_text(row.get(f"llm_{column}")).strip() for row in rows)
        values = [x for x in (to_number(text) for text in texts) if x >= 0]
        found += [unit.format(1000 * sum(values) / len(values))] if values else []
    return f" A thousand posts: {', '.join(found)}." if found else ""
