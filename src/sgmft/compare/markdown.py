"""The report of a comparison in GitHub-flavoured Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from sgmft.compare.formats import NOTHING, SPACE
from sgmft.compare.results import FigurePart
from sgmft.compare.wording import GUIDE, MAP_GUIDE, Cell, Entry, Grid, Shown


def to_markdown(
    *,
    title: str,
    tables: Sequence[Shown],
    figures: Sequence[FigurePart],
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


def _figure(figure: FigurePart) -> Iterator[str]:
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
