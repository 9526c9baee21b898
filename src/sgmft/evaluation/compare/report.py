"""The report of a comparison: one page that needs nothing beside it, and the same in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from sgmft.evaluation.compare.figures import ReportFigure
from sgmft.evaluation.compare.report_tables import (
    NOTHING,
    SPACE,
    Cell,
    Grid,
    differs,
    format_percent,
    view_table,
)
from sgmft.evaluation.compare.results import ResultTable
from sgmft.utils.files import write_whole, writing
from sgmft.utils.templates import render


def write_report(
    folder: str | Path,
    *,
    title: str,
    tables: Sequence[ResultTable],
    figures: Sequence[ReportFigure] = (),
    data: Mapping[str, str],
    commands: Sequence[str] = (),
    versions: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html` and `report.md`, and return the page's path.

    Whatever they are given is shown as it is: nothing in it acts as HTML or as Markdown.

    Args:
        folder: made if need be; files of these names are replaced.
        tables, figures: in the order they are shown. The page holds the figures' SVG text; the
            Markdown links their PNG files, which stand in the folder already.
        data, versions: of the data set and of the software, name -> value.
        commands: with which the report can be made again.
        notes: what a reader must keep in mind; stands before the tables.
    """
    folder = Path(folder)
    values = {
        "title": title,
        "tables": list(zip(map(view_table, tables), map(_chart, tables), strict=True)),
        "figures": [(figure, Markup(figure.svg)) for figure in figures],
        "data": data,
        "commands": commands,
        "versions": versions,
        "notes": notes,
    }
    page = render("evaluation/templates/compare.html", **values)
    text = render("evaluation/templates/compare.md", **values, **_MARKDOWN)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "report.html", page.encode(errors="replace"))
        write_whole(folder / "report.md", text.encode(errors="replace"))
    return folder / "report.html"


def _chart(table: ResultTable) -> dict[str, Any] | None:
    """Return accuracies with their intervals, or None where there is nothing to set side by side.

    Places are percentages of the chart's width.
    """
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

    def place(share: float) -> float:
        return round(100 * (100 * share - ticks[0]) / (ticks[-1] - ticks[0]), 2)

    bars, base = [], None
    for line, accuracy in found:
        kind = "apart" if line.against and differs(line.against) else "within"
        if line.title == table.reference:
            kind, base = "base", place(accuracy.mean)
        bar = {"title": line.title, "text": format_percent(accuracy.mean), "kind": kind}
        shares = {"at": accuracy.mean, "low": accuracy.low, "high": accuracy.high}
        bars.append(bar | {end: place(share) for end, share in shares.items()})
    return {"bars": bars, "ticks": [(place(t / 100), str(t)) for t in ticks], "base": base}


def _ticks(least: float, most: float) -> list[int]:
    """Return two to seven round percentages that hold both between them."""
    for step in (1, 2, 5, 10, 20):
        first, last = math.floor(least / step), max(math.ceil(most / step), 1)
        if last - first <= 6:
            break
    first = min(first, last - 1)
    return [step * place for place in range(first, last + 1)]


def escape_markdown(text: str) -> str:
    """Return text on one line in which nothing acts as Markdown or HTML, in a table or outside."""
    text = "".join(c if c.isprintable() or c == SPACE else " " for c in text).strip(" ")
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # within a word it means nothing


def escape_paragraph(text: str) -> str:
    """Escape what would begin a heading or a list, too."""
    return re.sub(r"^(?=[#+=-])|^(\d+)(?=[.)](\s|$))", r"\1\\", escape_markdown(text))


def _markdown_grid(grid: Grid) -> str:
    rows = []
    for entry in grid.entries:
        marks = ", ".join(map(str, entry.notes))
        name = escape_markdown(entry.title) + (f" <sup>{marks}</sup>" if marks else "")
        rows.append([name, *map(_markdown_cell, entry.cells)])
    return _ruled([escape_markdown(name) for name in grid.header], rows, "---:")


def _markdown_pairs(values: Mapping[str, str]) -> str:
    return _ruled(["", ""], [map(escape_markdown, pair) for pair in values.items()], "---")


def _ruled(header: Sequence[str], rows: Iterable[Iterable[str]], ruler: str) -> str:
    lines = [header, ["---", *[ruler] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    if cell.strong or cell.best:
        text = f"**{text}**"
    if cell.best:
        text += " (best)"
    if cell.more:
        text += f" ({escape_markdown('; '.join(cell.more))})"
    return text + f" | {NOTHING}" * (cell.span - 1)  # Markdown has no cells over several columns


def _fenced(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def _image_of(files: Sequence[str]) -> str:
    images = [name for name in files if name.lower().endswith(".png")]
    return quote((images or list(files))[0])


_MARKDOWN = {
    "escape": escape_markdown,
    "paragraph": escape_paragraph,
    "grid": _markdown_grid,
    "pairs": _markdown_pairs,
    "fenced": _fenced,
    "image_of": _image_of,
}
