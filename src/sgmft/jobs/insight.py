"""Insight from labelled posts: shares of places, when and where, and nothing of single people."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgmft.data.posts import Post, require_columns
from sgmft.data.source import JobSummary, Source, describe_errors
from sgmft.data.tables import open_writer
from sgmft.data.tables.formats import is_predicted
from sgmft.errors import TEXTS, Message, NoUsableRowError, SgmftError, raising
from sgmft.evaluation.shares import LEAST, Change, PrivacyRule, ShareEstimator, Shares
from sgmft.features.attributes import TIMES, parse_time, read_cell, to_number
from sgmft.locator import drift
from sgmft.locator.abstention import OF_NONE, Abstention
from sgmft.locator.prediction import Prediction, Predictor
from sgmft.models.arrays import Integers
from sgmft.utils.files import write_file
from sgmft.utils.templates import pick_language, render

DAYS = {day: f"{i}" for i, day in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))}
GRID, TYPICAL, CHANGE = "weekday, hour", "typical day", "before and after"  # breakdowns
MANY = 5000  # posts from which on a cell of the grid is one hour, else four
FEW = 1000  # posts of a cell, below which counted shares are whole percents
MOST_LABELS = 200  # by hand: a column with more holds something else
ROUNDED = 0.02  # by which probabilities with few digits may miss a sum of 1
EXAMPLES, LONGEST = 2, 90  # texts of a label in a cell, and characters of each
_PERSONAL = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]+@[\w-]+\.\w+|@[\w-]+|\d{5,}")
_FIGURE = re.compile(r"<svg.*?</svg>", re.DOTALL)
Time = tuple[date | None, int | None]  # day and hour, as far as they are known
Breakdowns = dict[str, list[str | None]]  # the value of each post, by name


class Cell(NamedTuple):
    """A group of posts that is shown."""

    value: str
    posts: int  # and `users`: see `PrivacyRule.round`
    users: int
    found: Shares
    examples: Mapping[str, Sequence[str]]  # texts by label


@dataclass
class Insight:
    """The content of a page."""

    labels: list[str]
    kind: str  # "corrected"; "averaged" without held-out posts; "counted" of labels by hand
    summary: JobSummary
    least: int  # users behind a cell
    has_users: bool  # else the posts are counted
    total: Cell
    doubts: list[str]  # why the correction may hold less well
    block: int = 1  # hours of a cell of the grid
    by: dict[str, list[Cell]] = field(default_factory=dict)  # by column, or period of time
    hidden: dict[str, int] = field(default_factory=dict)  # posts of cells that are not shown
    change: tuple[str, Cell, Cell, Change] | None = None


@dataclass(frozen=True)
class InsightSettings:
    """What is shown, and of how many people at least."""

    by: Sequence[str] = ()  # columns to break the shares down by
    change: str | None = None  # the first day of those compared with all before, as 2024-03-01
    least: int = 5  # users that a group must have to be shown; posts, where there are no users
    examples: bool = False  # whether a few texts of each place are shown, too
    reject: float | None = None  # as `Abstention` has it, where a model predicts the posts
    utc_offset: float = 0.0  # hours that are added to times given in UTC
    language: str | None = None  # of the page: en or zh; by default the locale's


def insight_table(
    source: Source,
    output: str | Path,
    model: Predictor | None = None,
    settings: InsightSettings | None = None,
    on_read: Callable[[int], object] = lambda done: None,
) -> Insight:
    """Write shares of labels into a folder: a page, its tables and its figures.

    The source is what `predict` wrote, or posts with labels by hand; with a `model`, which predicts
    them and corrects the shares by its held-out posts, any posts. SgmftError where no post has a
    label, they are of too few users, or before or after is none.
    """
    settings = settings or InsightSettings()
    by, change, least = settings.by, settings.change, settings.least
    with raising(f"--before-after {change}: write the day as 2024-03-01.", ValueError):
        change = change and str(date.fromisoformat(change))
    if not abs(settings.utc_offset) <= 14:
        raise SgmftError(f"--utc-offset {settings.utc_offset}: give hours from -14 to 14.")
    if model is None:
        labels, predictions, by_hand = _read_table(source)
    else:
        labels, by_hand = model.labels, False
        predictions = model.predictions(source.iter_posts(), Abstention(reject=settings.reject))
    held_out = None if model is None or len(model.held_out) < LEAST else model.held_out
    kind = "counted" if by_hand else "averaged" if held_out is None else "corrected"
    read, good, times = list[Prediction](), list[Prediction](), list[Time]()
    for p in predictions:
        time, warnings = _read_time(p.post, settings.utc_offset)
        if model is not None and is_predicted(p.post.row) and p.post.label not in (None, p.label):
            warnings.append(Message(TEXTS["predicted anew"], label=p.post.label))
        read.append(p._replace(post=replace(p.post, warnings=(*p.post.warnings, *warnings))))
        if p.probabilities is not None and p.abstained != OF_NONE:
            good.append(read[-1])
            times.append(time)
        on_read(len(read))
    summary = JobSummary.of((p.post for p in read), (p.abstained for p in read if p.abstained))
    posts, every = [p.post for p in good], np.arange(len(good))
    has_users = any(post.user for post in posts)
    names = [post.user or f"\0{row}" for row, post in enumerate(posts)]
    users = np.unique(np.array(names, str), return_inverse=True)[1]
    rule = PrivacyRule(np.where([has_users and not x.user for x in posts], -1, users), least)
    if not rule.allows(every):
        few = f"nothing is shown of fewer than {least} users (--min-users), or where one wrote most"
        why = f"{len(posts)} posts have a label, and {few}. {describe_errors(summary.errors)}"
        raise NoUsableRowError(f"{source.table}: {why}")
    require_columns(posts, by)
    probs = np.array([p.probabilities for p in good], float)
    given = np.array([labels.index(p.label) if p.label else -1 for p in good])
    shares = ShareEstimator(probs, given, users, np.array([p.parts for p in good]), held_out)

    def cell(value: str, rows: Integers, found: Shares, texts: bool) -> Cell:
        digits = 2 if len(rows) < FEW else 3  # more would tell of single posts
        finer = 3 if kind != "counted" and len(rows) == len(good) else digits
        places = {"counted": digits, **dict.fromkeys(("share", "low", "high"), finer)}
        found = found._replace(**{x: getattr(found, x).round(n) for x, n in places.items()})
        number, writers = map(rule.round, (len(rows), len(np.unique(rule.users[rows]))))
        some = _choose_examples([good[i] for i in rows]) if texts and settings.examples else {}
        return Cell(value, number, writers, found, some)

    whole = shares.draw(shares.estimate(every), every)
    total = cell("", every, whole, True)
    traits = Counter(x for p in good for x in drift.traits_of(p, labels) if x[:6] != "label:")
    doubts = [] if model is None else drift.shifts(model.traits, traits)
    if model is not None and (seen := model.held_out.trained_with([p.key for p in good]).sum()):
        doubts.append(Message("the model has learned from {seen:,} of these posts", seen=seen))
    result = Insight(labels, kind, summary, least, has_users, total, doubts)
    result.block = 1 if len(posts) >= MANY else 4
    breakdowns = _read_periods(times, change, result.block)
    breakdowns.pop("" if has_users else TYPICAL, None)
    for column in by:
        breakdowns[column] = [read_cell(post, column) or None for post in posts]
        if breakdowns[column] == [post.user for post in posts]:
            raise SgmftError(f"--by {column}: this would list the users; leave it out.")
    for name, values in breakdowns.items():
        members, often = defaultdict[Any, list[int]](list), Counter(values if name in by else ())
        for row, value in enumerate(values):
            members[value].append(row)
        groups = {value: np.array(rows) for value, rows in members.items()}
        lines = [[*groups]]
        if name == GRID:  # sums over its rows and columns are shown, too
            parts = sorted({part for key in groups if key for part in key.split()})
            lines += [[key for key in groups if key and part in key.split()] for part in parts]
        for other in (x for x in breakdowns.values() if x is not values):  # which may sum these up
            inside = defaultdict[Any, list[Any]](list)
            for key, rows in groups.items():
                if len(values_there := {other[row] for row in rows}) == 1:
                    inside[values_there.pop()].append(key)
            lines += inside.values()
        shown = rule.choose(groups, lines)
        result.hidden[name] = rule.round(len(posts) - sum(map(len, shown.values())))
        for value in sorted(shown, key=lambda x: (-often[x], x is None, DAYS.get(x, x))):
            by_whom = users[rows := shown[value]]
            weights = 1 / np.bincount(by_whom)[by_whom] if name == TYPICAL else None  # 1 a user
            found = shares.estimate(rows, weights)
            found = found if name == CHANGE else shares.draw(found, rows, weights, whole)
            result.by.setdefault(name, []).append(cell(value or "", rows, found, name in by))
    if change is not None:
        halves = {x.value: x for x in result.by.pop(CHANGE, ())}
        if not halves.keys() >= {"before", "after"}:
            raise SgmftError(TEXTS["one side of a day"], day=change, least=least)
        before, after = halves["before"], halves["after"]
        result.change = change, before, after, Change.between(before.found, after.found)
    _write(Path(output), result, pick_language(settings.language), Path(source.table).name)
    return result


def _read_periods(times: Sequence[Time], change: str | None, block: int) -> Breakdowns:
    """Return the period of each post, by the name of the breakdown; None of those without."""
    days = [day for day, _ in times]
    known = any(hour for _, hour in times)  # else they are days, which programs write as midnights
    hours = [f"{hour:02}:00" if known and hour is not None else None for _, hour in times]
    starts = [x and f"{int(x[:2]) // block * block:02}:00" for x in hours]
    weekdays = [[*DAYS][day.weekday()] if day else None for day in days]
    found: Breakdowns = {
        "hour": hours,
        TYPICAL: hours,
        "weekday": weekdays,
        GRID: [x and y and f"{x} {y}" for x, y in zip(weekdays, starts, strict=True)],
        "week": [str(day - timedelta(day.weekday())) if day else None for day in days],
        "month": [f"{day:%Y-%m}" if day else None for day in days],
    }
    found = {name: values for name, values in found.items() if any(values)}
    if change is not None:
        found[CHANGE] = [("before", "after")[str(day) >= change] if day else None for day in days]
    return found


def _read_table(source: Source) -> tuple[list[str], Iterator[Prediction], bool]:
    """Read labels by hand, or what `predict` wrote: probabilities by the columns at its end."""
    posts = source.read_posts()
    columns = [*dict.fromkeys(name for post in posts for name in post.row)]
    labels = sorted({post.label for post in posts if post.label is not None})
    by_hand = is_predicted(columns) and source.columns.label not in (None, "label")
    shares = [name[2:] for name in columns if name.startswith("p_") and not by_hand]
    if predicted := is_predicted(columns) and not by_hand:
        added = columns[len(columns) - columns[::-1].index("warning") :]
        labels = [name[2:] for name in added if name.startswith("p_")]
    elif labels and {*labels} <= {*shares}:  # without its empty columns
        labels, predicted = shares, True
    elif len(labels) > MOST_LABELS:
        raise SgmftError(TEXTS["many labels"], table=source.table, count=len(labels))

    def read(post: Post) -> Prediction:
        cells = ((read_cell(post, f"p_{label}") or "").replace(",", ".") for label in labels)
        given = np.array([float(post.label == label) for label in labels])
        probs = np.array([*map(to_number, cells)]) if predicted else given
        error, reason = (read_cell(post, x) if predicted else "" for x in ("error", "abstained"))
        if not error and not post.label and not reason:
            error = "has no label"
        elif not error and not ((probs >= 0).all() and abs(probs.sum() - 1) < ROUNDED):
            error = "its probabilities, of the columns p_..., are not numbers that add up to one"
        elif not error and post.label and not given.any():
            error = Message("the model never learned the label {label!r}", label=post.label)
        if error:
            return Prediction(replace(post, error=error), None, None, None)
        good = replace(post, error=None)  # as pictures need not be there
        if post.label and (reason or given @ probs < probs.max()):
            why = Message(TEXTS["given by hand"], label=post.label)
            good = replace(good, warnings=(*post.warnings, why))
            probs, reason = given, None
        return Prediction(good, post.label, probs / probs.sum(), None, abstained=reason or None)

    return labels, map(read, posts), not predicted


def _read_time(post: Post, offset: float) -> tuple[Time, list[Message]]:
    """Return the day and the hour of a post, None for what its time does not say, and warnings."""
    text = (post.time or "").strip()
    in_utc = re.fullmatch(TIMES["utc"], text) is not None
    one, other = (x + timedelta(hours=offset * in_utc) for x in parse_time(text))
    day = one.date() if one.date() == other.date() else None
    time = day, one.hour if one.hour == other.hour else None
    template = "its time is in UTC, and {offset:g} hours were added: see --utc-offset"
    if time == (None, None):
        template = "the time {time!r} cannot be read" if text else "has no time"
    elif re.fullmatch(TIMES["serial"], text):
        template = "the time {time} is taken for days of a spreadsheet, {found:%Y-%m-%d %H:%M}"
    elif not in_utc:
        return time, []
    return time, [Message(template, offset=offset, time=text, found=one)]


def _choose_examples(predictions: Sequence[Prediction]) -> dict[str, list[str]]:
    """Return texts of the surest posts of each label, without links, names and long numbers."""
    found = defaultdict[str, list[str]](list)
    for p in sorted(predictions, key=lambda p: -(p.probability or 0)):
        text = " ".join(_PERSONAL.sub("…", p.post.text).split())
        if p.label and text and len(found[p.label]) < EXAMPLES:
            found[p.label].append(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
    return found


def _write(folder: Path, result: Insight, language: str, name: str) -> None:
    tables: dict[str, list[dict[str, Any]]] = {"shares": []}
    for by, cells in {"": [result.total], **result.by}.items():
        for cell in cells:
            users = {"users": cell.users} if result.has_users else {}
            for label, *figures in zip(result.labels, *cell.found[:4], strict=True):
                row = {"by": by, "value": cell.value, "label": label, "posts": cell.posts} | users
                tables["shares"].append(row | dict(zip(Shares._fields, figures, strict=False)))
    if result.change is not None:
        _, before, after, found = result.change
        lines = zip(result.labels, before.found.share, after.found.share, *found, strict=True)
        names = ("label", "before", "after", *Change._fields)
        tables["change"] = [dict(zip(names, row, strict=True)) for row in lines]
    earlier = "change.csv", "change.parquet", "figures/[0-9]*.svg"
    for old in [file for name in earlier for file in folder.glob(name)]:
        old.unlink()
    for table, rows in tables.items():
        for suffix in ("csv", "parquet"):
            with open_writer(folder / f"{table}.{suffix}", [*rows[0]]) as writer:
                writer.write(rows)
    page = render("evaluation/templates/insight.html", found=result, language=language, name=name)
    write_file(folder / "insight.html", page.encode(errors="replace"))
    for number, figure in enumerate(_FIGURE.findall(page), 1):
        write_file(folder / "figures" / f"{number}.svg", figure.encode(errors="replace"))
