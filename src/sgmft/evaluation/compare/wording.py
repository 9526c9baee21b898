"""What the report says of a table, as words: its cells, footnotes and verdict, for any format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sgmft.evaluation.compare.statistics import Difference, Estimate, Line, Summary, Table
from sgmft.evaluation.report import MOST_VALUES

NOTHING = "–"

_MINUS = "\N{MINUS SIGN}"

SPACE = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """0.1234 -> "12.3", or "–" for what is no number."""
    return f"{100 * share:.1f}" if math.isfinite(share) else NOTHING


def signed(share: float) -> str:
    """0.1234 -> "+12.3", in percentage points; what rounds to nothing has no sign."""
    text = f"{100 * share:+.1f}" if math.isfinite(share) else NOTHING
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", _MINUS)


def p_value(value: float) -> str:
    """0.0123 -> "p = 0.012"."""
    if math.isnan(value):
        return "p undefined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def count(number: int | None) -> str:
    """1234567 -> "1.2 M"; nothing for None."""
    if number is None:
        return ""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            value = number / unit
            return f"{value:.{0 if value >= 99.5 else 1}f}{SPACE}{name}"
    return str(number)


def duration(seconds: float | None) -> str:
    """83.2 -> "1 min 23 s"; nothing for None."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}{SPACE}s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}{SPACE}min {rest:02}{SPACE}s"
    return f"{hours}{SPACE}h {minutes:02}{SPACE}min"


SIGNIFICANT = 0.05
"""A difference is called one where its Holm-corrected p is below this."""

GUIDE = (
    "Accuracy, macro-F1 and calibration error are means over runs that differ in their seed, with "
    "the standard deviation over those runs. The 95 % interval says how much the accuracy would "
    "move with other posts of the same kind (bootstrap over the test posts).",
    "“Against” is the accuracy less that of the reference on the same posts, in percentage points, "
    "with its 95 % interval and the p-value of a paired test, corrected (Holm) for the number of "
    "rows tested in the table. “Higher” and “lower” stand where p is below 0.05; “within chance” "
    "means that these posts cannot tell the two apart, not that they are equal.",
    "Macro-F1 counts a rare label as much as a frequent one. Calibration error: how far the "
    "probabilities are from the share of answers that are right; lower is better.",
    "“Paper (other data)” quotes the accuracy printed in the paper (arXiv 2405.05760), which is of "
    "its own, unpublished posts: only the order of its rows can be set beside ours.",
    "Parameters: trainable ones. Training time: median of one run, trials not counted.",
)

MAP_GUIDE = (
    "A point is a test post, and near points are alike; places, distances between groups and axes "
    "of a t-SNE map mean nothing. Silhouette, from −1 to 1: how much nearer posts are to those of "
    "their own label than to those of the nearest other one. Separation: scatter between labels "
    "over scatter within them (Fisher's criterion, trace of S_b over trace of S_w). Higher is "
    "clearer, for both."
)


class Cell(NamedTuple):
    """A cell: a figure, lines of small print, and what makes it stand out."""

    text: str
    more: Sequence[str] = ()
    best: bool = False  # of its column
    strong: bool = False
    span: int = 1  # columns


class Entry(NamedTuple):
    """A row: its name, the numbers of its footnotes, and its cells."""

    title: str
    cells: Sequence[Cell]
    notes: Sequence[int] = ()


class Grid(NamedTuple):
    """A table ready to be set; `header` begins with the column of names."""

    title: str
    header: Sequence[str]
    entries: Sequence[Entry]
    about: str = ""


class Shown(NamedTuple):
    """A table of the report with all that stands around it."""

    main: Grid
    notes: Sequence[str]  # footnotes 1, 2, ...
    basis: str
    verdict: str
    details: Sequence[Grid]


def show(table: Table) -> Shown:
    """Put a table into words; a column in which no row has anything is left out."""
    notes: list[str] = []
    header: list[str] = []
    rows: list[list[Cell]] = [[] for _ in table.lines]
    figures = 0  # columns that a row without figures leaves to the reason why
    for place, (name, column) in enumerate(_columns(table).items()):
        if any(cell.text for cell in column) or place == 0:
            header.append(name)
            figures += place < 5
            for row, cell in zip(rows, column, strict=True):
                row.append(cell if cell.text else Cell(NOTHING))
    entries = []
    for line, row in zip(table.lines, rows, strict=True):
        if line.summary is None:
            row[:figures] = [Cell(_state(line), span=figures)]
        entries.append(Entry(line.title, row, _footnotes(line, notes)))
    main = Grid(f"Table {table.number}. {table.title}", ["System", *header], entries, table.about)
    finished = [(line.title, line.summary) for line in table.lines if line.summary is not None]
    details = [*_per_class(finished), *_groups(finished)]
    return Shown(main, notes, _basis([found for _, found in finished]), verdict(table), details)


def verdict(table: Table) -> str:
    """Say in a sentence or two which rows differ from the reference, and in which direction."""
    finished = [(line, line.summary) for line in table.lines if line.summary is not None]
    if not finished:
        return "No row of this table is finished."
    words = []
    if len(finished) > 1:
        line, found = max(finished, key=lambda pair: pair[1].accuracy.mean)
        words.append(f"Highest accuracy: {line.title}, {percent(found.accuracy.mean)}{SPACE}%.")
    compared = [(line, line.against) for line, _ in finished if line.against is not None]
    words += _differences(compared, table.reference)
    alone = [line for line, _ in finished if line.against is None and not is_reference(line, table)]
    if alone:
        words.append(f"Not compared with {table.reference}: {_listed(x.title for x in alone)}.")
    left = [line for line in table.lines if line.summary is None]
    if left:
        reasons = (f"{line.title} ({'failed' if line.failed else 'not run'})" for line in left)
        words.append(f"Without figures: {_listed(reasons)}.")
    return " ".join(words)


def _differences(compared: Sequence[tuple[Line, Difference]], base: str) -> list[str]:
    differing = [(line, gap) for line, gap in compared if differs(gap)]
    rest = [line.title for line, gap in compared if not differs(gap)]
    if not compared:
        return []
    if not differing and len(compared) == 1:
        p = p_value(compared[0][1].p_holm)
        return [f"{rest[0]} does not differ from {base} by more than chance ({p})."]
    level = f"{SIGNIFICANT:.2f}"
    if not differing:
        return [f"No system differs from {base} by more than chance (Holm-corrected p ≥ {level})."]
    words: list[str] = []
    for side, sign in (("Higher", 1), ("Lower", -1)):
        named = [
            f"{line.title} ({signed(gap.value)} points)"
            for line, gap in sorted(differing, key=lambda pair: -abs(pair[1].value))
            if gap.value * sign > 0
        ]
        if named:
            than = f" than {base} by more than chance (Holm-corrected p < {level})"
            words.append(f"{side}{'' if words else than}: {_listed(named)}.")
    if rest:
        words.append(f"Not told apart from it: {_listed(rest)}.")
    return words


def _columns(table: Table) -> dict[str, list[Cell]]:
    """Return the columns of the main table; the first five are of the summary."""
    found = [line.summary for line in table.lines]
    macro_f1 = [s.macro_f1 if s else None for s in found]
    calibration_error = [s.calibration_error if s else None for s in found]
    return {
        "Accuracy, %": _scores([s.accuracy if s else None for s in found]),
        "95 % interval": [Cell(_interval(s.accuracy) if s else "") for s in found],
        f"Against {table.reference}, points": [_against(line, table) for line in table.lines],
        "Macro-F1, %": _scores(macro_f1),
        "Calibration error, %": _scores(calibration_error, lowest=True),
        "Parameters": [Cell(count(line.parameters)) for line in table.lines],
        "Training time": [Cell(duration(line.seconds)) for line in table.lines],
        # as the paper prints it, which is to a hundredth
        "Paper (other data), %": [
            Cell("" if line.paper is None else f"{line.paper:.2f}") for line in table.lines
        ],
        "Chosen in trials": [Cell(line.setting) for line in table.lines],
    }


def _scores(spreads: Sequence[Estimate | None], lowest: bool = False) -> list[Cell]:
    means = [spread.mean for spread in spreads if spread and math.isfinite(spread.mean)]
    best = (min(means) if lowest else max(means)) if len(means) > 1 else math.nan
    cells = []
    for spread in spreads:
        text = percent(spread.mean) if spread else ""
        if spread and math.isfinite(spread.sd):
            text += f"{SPACE}±{SPACE}{percent(spread.sd)}"
        cells.append(Cell(text, best=spread is not None and spread.mean == best))
    return cells


def _against(line: Line, table: Table) -> Cell:
    if line.summary is None:
        return Cell("")
    if line.against is None:
        return Cell("reference" if is_reference(line, table) else "")
    gap = line.against
    says = ("higher" if gap.value > 0 else "lower") if differs(gap) else "within chance"
    between = f"{signed(gap.low)} to {signed(gap.high)}"
    more = (between, f"{p_value(gap.p_holm)}, {says}")
    return Cell(signed(gap.value), more, strong=differs(gap))


def is_reference(line: Line, table: Table) -> bool:
    """Whether the other rows of the table are tested against this one."""
    return line.title == table.reference


def differs(gap: Difference) -> bool:
    """Whether more than chance is needed to explain the difference."""
    return gap.p_holm < SIGNIFICANT and gap.value != 0


def _state(line: Line) -> str:
    return f"failed: {_reasons(line)}" if line.failed else "not run"


def _reasons(line: Line) -> str:
    return "; ".join(dict.fromkeys(line.failed))


def _footnotes(line: Line, notes: list[str]) -> list[int]:
    """Return the numbers of a row's footnotes; `notes` grows by those that are new."""
    own = [line.note] if line.note else []
    if line.summary is not None and line.failed:
        own.append(f"Not all of its runs finished: {_reasons(line)}")
    notes += [note for note in own if note not in notes]
    return [notes.index(note) + 1 for note in own]


def _basis(found: Sequence[Summary]) -> str:
    """Say how many seeds and posts are behind the figures."""
    if not found:
        return ""
    seeds = sorted({summary.seeds for summary in found})
    posts = max(summary.posts for summary in found)
    if seeds == [1]:
        return f"One run each, so that no figure tells runs apart; {posts:,} test posts."
    runs = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"Mean ± standard deviation of {runs} runs with different seeds; {posts:,} test posts."


def _per_class(finished: Sequence[tuple[str, Summary]]) -> list[Grid]:
    support = {score.label: score.support for _, s in finished for score in s.per_class}
    rows = [{score.label: score.f1 for score in s.per_class} for _, s in finished]
    if not support:
        return []
    header = ["System", *(f"{label or '(empty)'} ({posts:,})" for label, posts in support.items())]
    best = {label: max(row.get(label, -1.0) for row in rows) for label in support}
    entries = [
        Entry(title, [_share(row.get(label), best[label], rows) for label in support])
        for (title, _), row in zip(finished, rows, strict=True)
    ]
    about = "In brackets, the test posts that truly are it. Bold: the highest of its column."
    return [Grid("F1 of each label, %", header, entries, about)]


def _groups(finished: Sequence[tuple[str, Summary]]) -> list[Grid]:
    """Return a table for each column: its values, the largest first, as rows; systems beside."""
    grids = []
    for column in dict.fromkeys(column for _, s in finished for column in s.groups):
        rows = [summary.groups.get(column, {}) for _, summary in finished]
        posts = {value: number for row in rows for value, (number, _) in row.items()}
        largest = sorted(posts, key=lambda value: -posts[value])[:MOST_VALUES]
        entries = []
        for value in largest:
            shares = [row[value][1] if value in row else None for row in rows]
            best = max(share for share in shares if share is not None)
            cells = [_share(share, best, rows) for share in shares]
            entries.append(Entry(value or "(empty)", [Cell(f"{posts[value]:,}"), *cells]))
        about = "Bold: the highest of its row."
        if len(posts) > MOST_VALUES:
            about = f"The {MOST_VALUES} largest of {len(posts):,} values. {about}"
        header = ["Value", "Posts", *(title for title, _ in finished)]
        grids.append(Grid(f"Accuracy by {column}, %", header, entries, about))
    return grids


def _share(value: float | None, best: float, among: Sequence[object]) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(percent(value), strong=value == best and len(among) > 1)


def _interval(spread: Estimate) -> str:
    return f"{percent(spread.low)}{SPACE}to{SPACE}{percent(spread.high)}"


def _listed(names: Iterable[str]) -> str:
    """Join names, the first few of many."""
    names = list(names)
    more = len(names) - 4
    return ", ".join(names) if more < 2 else f"{', '.join(names[:4])} and {more} more"
