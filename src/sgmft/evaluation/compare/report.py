"""The report of a comparison: one page that needs nothing beside it, and the same in Markdown."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from sgmft.errors import SgmftError
from sgmft.evaluation.compare.statistics import ReportFigure, Table
from sgmft.evaluation.compare.wording import (
    GUIDE,
    MAP_GUIDE,
    NOTHING,
    SPACE,
    Cell,
    Entry,
    Grid,
    Shown,
    differs,
    is_reference,
    percent,
    show,
)
from sgmft.utils.files import error_reason, write_whole
from sgmft.utils.templates import render


def to_markdown(
    *,
    title: str,
    tables: Sequence[Shown],
    figures: Sequence[ReportFigure],
    data: Mapping[str, str],
    commands: Sequence[str],
    versions: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """Return the report as text; figures are links to the PNG files beside it.

    Whatever it is given is shown as it is: nothing in it acts as Markdown or as HTML.
    """
    blocks = [f"# {escape(title)}"]
    if tables:
        lines = [f"- **{escape(t.main.title)}:** {escape(t.verdict)}" for t in tables]
        blocks += ["## In short", "\n".join(lines)]
    if data:
        blocks += ["## The data", _pairs(data)]
    if notes:
        blocks += ["## To keep in mind", "\n".join(f"- {_paragraph(note)}" for note in notes)]
    if tables:
        blocks += ["## How to read the tables", "\n".join(f"- {_paragraph(x)}" for x in GUIDE)]
    for table in tables:
        blocks += _table(table)
    for figure in figures:
        blocks += _figure(figure)
    if figures:
        blocks.append(_paragraph(MAP_GUIDE))
    if commands:
        blocks += ["## Commands", _fenced("\n".join(commands))]
    if versions:
        blocks += ["## Versions", _pairs(versions)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(table: Shown) -> Iterator[str]:
    yield f"## {escape(table.main.title)}"
    yield _paragraph(table.main.about)
    yield _grid(table.main)
    yield "\n".join(f"{number}. {_paragraph(note)}" for number, note in enumerate(table.notes, 1))
    yield _paragraph(table.basis)
    yield f"**{escape(table.verdict)}**"
    for grid in table.details:
        yield f"<details>\n<summary>{html.escape(' '.join(grid.title.split()))}</summary>"
        yield _paragraph(grid.about)
        yield _grid(grid)
        yield "</details>"


def _figure(figure: ReportFigure) -> Iterator[str]:
    heading = escape(f"Figure {figure.number}. {figure.title}")
    yield f"## {heading}"
    yield _paragraph(figure.about)
    pictures = [name for name in figure.files if name.lower().endswith(".png")]
    for name in (pictures or list(figure.files))[:1]:
        yield f"![{heading}]({quote(name)})"


def _grid(grid: Grid) -> str:
    rows = [[_name(entry), *map(_text, entry.cells)] for entry in grid.entries]
    return _set([escape(name) for name in grid.header], rows, "---:")


def _pairs(values: Mapping[str, str]) -> str:
    return _set(["", ""], [[escape(name), escape(text)] for name, text in values.items()], "---")


def _set(header: Sequence[str], rows: Iterable[Sequence[str]], ruler: str) -> str:
    lines = [header, ["---", *[ruler] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(entry: Entry) -> str:
    marks = ", ".join(map(str, entry.notes))
    return escape(entry.title) + (f" <sup>{marks}</sup>" if marks else "")


def _text(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.strong or cell.best:
        text = f"**{text}**"
    if cell.best:
        text += " (best)"
    if cell.more:
        text += f" ({escape('; '.join(cell.more))})"
    return text + f" | {NOTHING}" * (cell.span - 1)  # Markdown has no cells over several columns


def escape(text: str) -> str:
    """Return text on one line in which nothing acts as Markdown or HTML, in a table or outside."""
    text = "".join(c if c.isprintable() or c == SPACE else " " for c in text).strip(" ")
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # within a word it means nothing


def _paragraph(text: str) -> str:
    """Escape what would begin a heading or a list, too."""
    return re.sub(r"^(?=[#+=-])|^(\d+)(?=[.)](\s|$))", r"\1\\", escape(text))


def _fenced(text: str) -> str:
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def write_report(
    folder: str | Path,
    *,
    title: str,
    tables: Sequence[Table],
    figures: Sequence[ReportFigure] = (),
    data: Mapping[str, str],
    commands: Sequence[str] = (),
    versions: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html` and `report.md`, and return the page's path.

    Args:
        folder: made if need be; files of these names are replaced.
        tables, figures: in the order they are shown. The page holds the figures' SVG text; the
            Markdown links their PNG files, which stand in the folder already.
        data: what there is to say about the data set, name -> value.
        commands: with which the report can be made again.
        versions: of the software, name -> version.
        notes: what a reader must keep in mind; stands before the tables.

    Raises:
        SgmftError: the folder cannot be written.
    """
    folder = Path(folder)
    shown = [show(table) for table in tables]
    page = render(
        "evaluation/templates/compare.html",
        title=title,
        tables=list(zip(shown, map(_chart, tables), strict=True)),
        figures=[(figure, Markup(figure.svg)) for figure in figures],
        data=data,
        commands=commands,
        versions=versions,
        notes=notes,
        guide=GUIDE,
        map_guide=MAP_GUIDE,
    )
    text = to_markdown(
        title=title,
        tables=shown,
        figures=figures,
        data=data,
        commands=commands,
        versions=versions,
        notes=notes,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "report.html", page.encode(errors="replace"))
        write_whole(folder / "report.md", text.encode(errors="replace"))
    except OSError as error:
        raise SgmftError(
            f"The report cannot be written to {folder}: {error_reason(error)}."
        ) from error
    return folder / "report.html"


class _Bar(NamedTuple):
    """An accuracy on a chart; places are percentages of its width."""

    title: str
    text: str
    at: float
    low: float
    high: float
    kind: str  # "base", "apart" from it, or "within" chance of it


class _Chart(NamedTuple):
    """Accuracies with their intervals, in the order of the table."""

    bars: Sequence[_Bar]
    ticks: Sequence[tuple[float, str]]
    base: float | None  # place of the reference


def _chart(table: Table) -> _Chart | None:
    """Return the chart of a table, or None where there is nothing to set side by side."""
    found = [
        (line, line.summary.accuracy)
        for line in table.lines
        if line.summary is not None
        and all(map(math.isfinite, (line.summary.accuracy.mean, *line.summary.accuracy[2:])))
    ]
    if len(found) < 2:
        return None
    ends = [share for _, accuracy in found for share in (accuracy.mean, *accuracy[2:])]
    ticks = _ticks(100 * min(ends), 100 * max(ends))
    start, width = ticks[0], ticks[-1] - ticks[0]

    def place(share: float) -> float:
        return round(100 * (100 * share - start) / width, 2)

    bars, base = [], None
    for line, accuracy in found:
        kind = "apart" if line.against and differs(line.against) else "within"
        at, low, high = place(accuracy.mean), place(accuracy.low), place(accuracy.high)
        if is_reference(line, table):
            kind, base = "base", at
        bars.append(_Bar(line.title, percent(accuracy.mean), at, low, high, kind))
    return _Chart(bars, [(place(tick / 100), str(tick)) for tick in ticks], base)


def _ticks(least: float, most: float) -> list[int]:
    """Return two to seven round percentages that hold both between them."""
    for step in (1, 2, 5, 10, 20):
        first, last = math.floor(least / step), max(math.ceil(most / step), 1)
        if last - first <= 6:
            break
    first = min(first, last - 1)
    return [step * place for place in range(first, last + 1)]
