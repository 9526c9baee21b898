"""Other columns of a table, of authors and times, as numbers that a model reads beside features."""

import math
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.tables.cells import says_nothing, to_text
from sgmft.errors import SgmftError, check_name, warn
from sgmft.features.encode import Chunk
from sgmft.features.encoders.base import EncoderInfo, FloatArray
from sgmft.features.features import Features

MOSTLY = 0.9  # share of a column's cells that are numbers, where it counts as one of numbers
MAX_STEPS = 65  # of numbers, between which shares are interpolated
MIN_POSTS = 5  # training posts that must have a category for it to be told from other rare ones
MAX_CATEGORIES = 256  # the most frequent
OTHERS = ""  # stands for all rare categories
PERIODS = {"hour": 24, "weekday": 7}  # attributes of a post's time
TIMES = tomllib.loads(Path(__file__).with_name("times.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Attribute:
    """How a column becomes numbers, as the training posts decided."""

    name: str
    kind: Literal["number", "category", "time"]
    # categories; or numbers, and which share of the training posts have less
    values: list[Any] = field(default_factory=list)
    gaps: bool = False  # whether a training post had none: a number of its own then says so

    @classmethod
    def fit(cls, name: str, cells: Sequence[str]) -> Self:
        """Decide from the cells of the training posts, "" where there is none."""
        count = Counter(cell for cell in cells if cell)
        numbers = [x for cell in count.elements() if not math.isnan(x := to_number(cell))]
        if name in PERIODS:
            made = cls(name, "time")
        elif numbers and len(numbers) >= MOSTLY * count.total():
            known, posts = np.unique(numbers, return_counts=True)
            shares = (posts.cumsum() - posts / 2) / posts.sum()
            some = np.unique(np.linspace(0, len(known) - 1, MAX_STEPS).round().astype(int))
            made = cls(name, "number", [known[some].tolist(), shares[some].tolist()])
        else:
            kept = sorted(x for x, n in count.most_common(MAX_CATEGORIES) if n >= MIN_POSTS)
            made = cls(name, "category", kept + [OTHERS] * (len(kept) < len(count)))
        return replace(made, gaps=bool(replace(made, gaps=True).read(cells)[:, -1].any()))

    def read(self, cells: Sequence[str]) -> FloatArray:
        """Return the numbers of N posts (N, width); of one without it they are 0.

        A category is 1 in its place. Of a number it is the share of training posts that have less,
        scaled to mean 0 and variance 1. A time is cosines and sines of 1 to 3 turns a day or week.
        """
        if self.kind == "number":
            x = np.array([*map(to_number, cells)], float)
            found = math.sqrt(12) * (np.interp(x, *self.values)[:, None] - 0.5)
        elif self.kind == "category":
            place = {value: i for i, value in enumerate(self.values)}
            others = place.get(OTHERS, -1)
            x = np.array([place.get(cell, others) if cell else math.nan for cell in cells], float)
            found = x[:, None] == np.arange(len(place))
        else:
            x = np.array([read_time(cell)[self.name == "weekday"] for cell in cells], float)
            angles = 2 * np.pi * x[:, None] / PERIODS[self.name] * np.arange(1, 4)
            found = np.concatenate([np.cos(angles), np.sin(angles)], 1)
        missing = np.isnan(x)[:, None]
        parts = np.where(missing, 0, found), *[missing] * self.gaps
        return np.concatenate(parts, 1, dtype=np.float32)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


class AttributeReader:
    """Reads columns of posts, "hour" and "weekday" of their time unless there are such columns."""

    def __init__(self, names: Iterable[str] = (), columns: Sequence[Attribute] = ()) -> None:
        given = [*filter(None, map(str.strip, names)), *(column.name for column in columns)]
        self.names = tuple(dict.fromkeys(given))
        self.columns = columns  # empty before it is fitted

    def check(self, posts: Sequence[Post]) -> None:
        """Raise SgmftError for a column that cannot be learned from."""
        known = dict.fromkeys(name for post in posts for name in post.row)
        for name in self.names:
            cells = [read_cell(post, name) or "" for post in posts]
            if name in PERIODS:
                cells = [x for x in cells if not np.isnan(read_time(x)).all()]
            else:
                check_name(name, known, "--attributes: the posts have no column")
            if not any(cells) or cells == [post.label for post in posts]:
                what = "is the label itself" if any(cells) else "has nothing that can be read"
                fix = "; --column time=NAME says where times are" if name in PERIODS else ""
                raise SgmftError(f"--attributes: {name!r} {what}: leave it out{fix}.")

    def fit(self, posts: Sequence[Post]) -> Self:
        """Decide from training posts how their columns become numbers."""
        cells = {name: [read_cell(post, name) or "" for post in posts] for name in self.names}
        self.columns = [Attribute.fit(*column) for column in cells.items()]
        return self

    def add(self, features: Features, posts: Sequence[Post]) -> Features:
        """Return features of N posts with their attributes (N, A), if there are any."""
        if not self.columns:
            return features
        read = [x.read([read_cell(post, x.name) or "" for post in posts]) for x in self.columns]
        return replace(features, attributes=np.concatenate(read, 1))

    def features(
        self, chunks: Iterable[Chunk], info: EncoderInfo, tokens: bool
    ) -> Iterator[tuple[Chunk, Features]]:
        """Yield chunks with the features of their rows; warns in the end of columns not there."""
        nowhere, read = [*self.names], 0
        for chunk in chunks:
            rows = [max(1, 2 * windows) for windows in chunk.windows] or 1  # of each good post
            posts = [chunk.posts[i] for i in np.repeat(chunk.good, rows)]
            nowhere = [x for x in nowhere if all(read_cell(post, x) is None for post in posts)]
            read += len(posts)
            yield chunk, self.add(Features.of(chunk.rows, info, tokens), posts)
        if nowhere and read:
            warn(f"The posts have no column {', '.join(nowhere)}, from which the model learned.")


def read_cell(post: Post, name: str) -> str | None:
    """Return a post's cell as text, "" where it says nothing, None where there is no column."""
    value = post.row.get(name, post.time if name in PERIODS else None)
    with suppress(ValueError):  # of a list, for instance
        return None if value is None else "" if says_nothing(value) else to_text(value).strip()
    return ""


def to_number(cell: str) -> float:
    """Return the finite number that a cell is, as 1,234.5, else NaN, as of 0,125 and 1234,567."""
    with suppress(ValueError):
        x = float(re.sub(r"(?<=\d)(?<!\b0)(?<!\d{4}),(?=\d{3}\b)", "", cell))
        return x if abs(x) < 1e300 else math.nan
    return math.nan


@lru_cache(1 << 17)
def read_time(cell: str) -> tuple[float, float]:
    """Return hour and weekday, 0 for Monday, as written, of a timestamp in UTC; NaN for none."""
    if (number := to_number(cell)) == 0 or 1 <= number <= 24:  # 0.5 may be of an hour, or a day
        return number, number
    one, other = parse_time(cell)
    hour = one.hour + one.minute / 60 if one.hour == other.hour else math.nan
    return hour, one.weekday() if one.weekday() == other.weekday() else math.nan


def parse_time(cell: str) -> tuple[datetime, datetime]:
    """Return a time as written, of a timestamp in UTC, twice; what is not said is not the same."""
    from dateutil.parser import parse

    if (stamp := re.fullmatch(TIMES["timestamp"], cell)) is not None:
        cell = str(datetime.fromtimestamp(int(stamp[1]), UTC))
    elif re.fullmatch(TIMES["serial"], cell):  # with 30 seconds more, for the nearest minute
        cell = str(datetime(1899, 12, 30) + timedelta(float(cell.replace(",", ".")), 30))
    cell = unicodedata.normalize("NFKC", cell)
    for made, pattern in TIMES["words"].items():
        cell = re.sub(pattern, made, cell)
    unsaid = datetime(2000, 1, 1, 0), datetime(2004, 2, 2, 1)  # leap years
    swapped = re.search(TIMES["day or month"], cell) is not None  # then no day is known
    with suppress(ValueError, OverflowError, TypeError, LookupError):
        one = parse(cell, default=unsaid[0], ignoretz=True)
        if 1900 < one.year < 2100:  # else it stands for none, as 0001-01-01
            return one, parse(cell, default=unsaid[1], ignoretz=True, dayfirst=swapped)
    return unsaid
