"""The report of a comparison: one page that needs nothing beside it, and the same in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from sgmft.compare.formats import percent
from sgmft.compare.markdown import to_markdown
from sgmft.compare.results import FigurePart, Table
from sgmft.compare.wording import GUIDE, MAP_GUIDE, differs, is_reference, show
from sgmft.errors import SgmftError
from sgmft.files import why, write_whole
from sgmft.templates import render


def write_report(
    folder: str | Path,
    *,
    title: str,
    tables: Sequence[Table],
    figures: Sequence[FigurePart] = (),
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
        "compare.html",
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
        raise SgmftError(f"The report cannot be written to {folder}: {why(error)}.") from error
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
