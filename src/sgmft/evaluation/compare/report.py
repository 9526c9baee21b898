"""The report of a comparison: one page that needs nothing beside it, and the same in Markdown."""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.ticker import MaxNLocator

from sgmft.errors import Message
from sgmft.evaluation.compare.figures import ReportFigure
from sgmft.evaluation.compare.results import ResultRow, ResultTable
from sgmft.evaluation.compare.statistics import Difference, Estimate, Summary
from sgmft.evaluation.figures import MOST_VALUES
from sgmft.utils.files import write_file
from sgmft.utils.templates import render

NOTHING = "–"
SPACE = "\N{NO-BREAK SPACE}"
SIGNIFICANT = 0.05  # a difference is called one where its Holm-corrected p is below this
LATEX = tomllib.loads(Path(__file__).with_name("latex.toml").read_text("utf-8"))
OFF_PAPER = ("95 % interval", "Reads", "Training time, s", "Chosen in trials")  # columns, in LaTeX
ESTIMATES = 5  # columns that a row without figures leaves to the reason why


class Cell(NamedTuple):
    """A figure, lines of small print, and what makes it stand out."""

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
    about: str = ""  # as in the guide, of figures by label


class TableView(NamedTuple):
    """A table of the report with all that stands around it."""

    main: Grid
    notes: Sequence[str]  # footnotes 1, 2, ...
    basis: str
    verdict: str
    details: Sequence[Grid]


def write_report(
    folder: Path,
    *,
    title: str,
    tables: Sequence[ResultTable],
    figures: Sequence[ReportFigure] = (),  # their PNG files stand in the folder already
    data: Mapping[str, str],
    commands: Sequence[str] = (),  # with which the report can be made again
    versions: Mapping[str, str],
    notes: Sequence[str] = (),  # what a reader must keep in mind
    language: str = "en",  # of page and Markdown, or zh
) -> Path:
    """Write `report.html`, `report.md`, tables/*.tex and `paper.tex`; return the page's path.

    Whatever they are given is shown as it is: nothing in it acts as HTML, Markdown or LaTeX. The
    page holds the figures' SVG text, the Markdown links their PNG files, the document PDF files.
    """
    views = [(view_table(table, language), _chart(table)) for table in tables]
    values: dict[str, Any] = {"title": title, "tables": views, "figures": figures, "data": data}
    values |= {"commands": "\n".join(commands), "versions": versions, "notes": notes}
    values |= {"differs": differs, "share": format_percent, "language": language}
    fence = next("`" * n for n in count(3) if "`" * n not in values["commands"])
    own = {"escape": escape_markdown, "paragraph": escape_paragraph, "fence": fence}
    texts = {"report.html": render("evaluation/templates/compare.html", **values)}
    texts["report.md"] = render("evaluation/templates/compare.md", **values, **own)
    texts |= _latex(tables, values)
    for path, text in texts.items():
        write_file(folder / path, text.encode(errors="replace"))
    return folder / "report.html"


def _latex(tables: Sequence[ResultTable], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield paths and texts: the tables, every row's settings, and a document with all of them."""
    for table in tables:
        columns = _columns(table).items()
        kept = {x: y for x, y in columns if x not in OFF_PAPER and any(cell.text for cell in y)}
        basis = _basis([line.summary for line in table.lines if line.summary is not None])
        shown = {"table": table, "columns": kept, "basis": basis, "escape": escape_latex}
        yield f"tables/table-{table.number}.tex", render("evaluation/templates/table.tex", **shown)
    lines = {line.key: line for table in tables for line in table.lines}.values()
    for name, path in (("hyperparameters.tex", "tables/hyperparameters.tex"), ("paper.tex",) * 2):
        own = {**values, "tables": tables, "lines": lines, "escape": escape_latex}
        yield path, render(f"evaluation/templates/{name}", **own)


def view_table(table: ResultTable, language: str = "en") -> TableView:
    """Return a table as the report shows it; a column in which no row has anything is left out."""
    every = _columns(table)
    first, *_ = every
    columns = {n: cells for n, cells in every.items() if n == first or any(c.text for c in cells)}
    estimates = sum(name in columns for name in list(every)[:ESTIMATES])
    notes: list[str] = []
    entries = []
    for i, line in enumerate(table.lines):
        cells = [column[i] if column[i].text else Cell(NOTHING) for column in columns.values()]
        own = [line.note] if line.note else []
        reasons = "; ".join(dict.fromkeys(line.failed))
        if line.summary is None:
            state = Message("failed: {reason}", reason=reasons) if line.failed else "not run"
            cells[:estimates] = [Cell(state, span=estimates)]
        elif line.failed:
            own.append(Message("Not all of its runs finished: {reason}", reason=reasons))
        notes += [note for note in own if note not in notes]
        entries.append(Entry(line.title, cells, [notes.index(note) + 1 for note in own]))
    main = Grid(f"Table {table.number}. {table.title}", ["System", *columns], entries, table.about)
    titles = [line.title for line in table.lines if line.summary is not None]
    summaries = [line.summary for line in table.lines if line.summary is not None]
    details = [*_by_label(titles, summaries), *_by_group(titles, summaries)]
    return TableView(main, notes, _basis(summaries, language), verdict(table, language), details)


def verdict(table: ResultTable, language: str = "en") -> str:
    """Return a sentence or two on which rows differ from the reference, and in which direction."""
    functions = {"differs": differs, "signed": signed, "p_value": p_value, "language": language}
    values = {"table": table, "percent": format_percent, "level": f"{SIGNIFICANT:.2f}"}
    text = render("evaluation/templates/compare_verdict.txt", **values, **functions)
    return re.sub("[ \n]+", " ", text).strip()


def differs(gap: Difference) -> bool:
    """Whether more than chance is needed to explain the difference."""
    return gap.p_holm < SIGNIFICANT and gap.value != 0


def _columns(table: ResultTable) -> dict[str, list[Cell]]:
    """Return the columns of the main table; the first five are of the summary."""
    lines = table.lines
    found = [line.summary for line in lines]
    errors = [x.calibration_error if x else None for x in found]
    ends = [(x.accuracy.low, x.accuracy.high) if x else () for x in found]
    intervals = [f"{SPACE}to{SPACE}".join(map(format_percent, each)) for each in ends]

    return {
        "Accuracy, %": _estimates([x.accuracy if x else None for x in found]),
        "95 % interval": list(map(Cell, intervals)),
        f"Against {table.reference}, points": [_against(x, table.reference) for x in lines],
        "Macro-F1, %": _estimates([x.macro_f1 if x else None for x in found]),
        "Calibration error, %": _estimates(errors, lowest=True),
        "Reads": [Cell(x.reads) for x in lines],
        "Parameters": [Cell("" if x.parameters is None else f"{x.parameters:,}") for x in lines],
        "Training time, s": [Cell("" if x.seconds is None else f"{x.seconds:,.1f}") for x in lines],
        # as the paper prints it, which is to a hundredth
        "Paper (other data), %": [Cell("" if x.paper is None else f"{x.paper:.2f}") for x in lines],
        "Chosen in trials": [Cell(x.setting) for x in lines],
    }


def _estimates(estimates: Sequence[Estimate | None], lowest: bool = False) -> list[Cell]:
    means = [estimate.mean for estimate in estimates if estimate and math.isfinite(estimate.mean)]
    best = (min(means) if lowest else max(means)) if len(means) > 1 else math.nan
    cells = []
    for estimate in estimates:
        text = format_percent(estimate.mean) if estimate else ""
        if estimate and math.isfinite(estimate.sd):
            text += f"{SPACE}±{SPACE}{format_percent(estimate.sd)}"
        cells.append(Cell(text, best=estimate is not None and estimate.mean == best))
    return cells


def _against(line: ResultRow, reference: str) -> Cell:
    gap = line.against
    if line.summary is None or gap is None:
        return Cell("reference" if line.summary and line.title == reference else "")
    word = ("higher" if gap.value > 0 else "lower") if differs(gap) else "within chance"
    more = [f"{signed(gap.low)} to {signed(gap.high)}", f"{p_value(gap.p_holm)}, {word}"]
    if gap.p_posts is not None:
        more.append(f"over posts {p_value(gap.p_posts)}")
    return Cell(signed(gap.value), more, strong=differs(gap))


def _basis(found: Sequence[Summary], language: str = "en") -> str:
    if not found:
        return ""
    most, seeds = max(found, key=lambda x: x.posts), sorted({x.seeds for x in found})
    values = {"seeds": seeds, "splits": most.splits, "posts": most.posts, "language": language}
    return render("evaluation/templates/compare_basis.txt", **values).strip()


def _by_label(titles: Sequence[str], summaries: Sequence[Summary]) -> Iterator[Grid]:
    """Yield the table of figures over labels, and of F1 by label: systems as rows."""
    support = {x.label: x.support for summary in summaries for x in summary.per_class}
    # without test posts a label has no F1, rather than one of 0
    rows = [{x.label: x for x in summary.per_class if x.support} for summary in summaries]
    columns = {
        "Balanced accuracy": _shares([x.balanced_accuracy for x in summaries]),
        "AUROC": _shares([x.auroc for x in summaries]),
        "Log loss": [Cell(f"{x.log_loss:.3f}".replace("nan", NOTHING)) for x in summaries],
    }
    for label, posts in support.items():
        columns[f"{label or '(empty)'} ({posts:,})"] = _shares(
            [row[label].f1 if label in row else None for row in rows],
            [(row[label].low, row[label].high) if label in row else None for row in rows],
        )
    entries = [Entry(title, cells) for title, *cells in zip(titles, *columns.values(), strict=True)]
    if support:
        yield Grid("F1 of each label and figures over labels, %", ["System", *columns], entries)


def _by_group(titles: Sequence[str], summaries: Sequence[Summary]) -> Iterator[Grid]:
    """Yield a table for each column: its values, the largest first, as rows; systems beside."""
    for column in dict.fromkeys(name for summary in summaries for name in summary.groups):
        rows = [summary.groups.get(column, {}) for summary in summaries]
        posts = {value: group.posts for row in rows for value, group in row.items()}
        entries = []
        for value in sorted(posts, key=lambda value: -posts[value])[:MOST_VALUES]:
            shares = _shares([row[value].accuracy if value in row else None for row in rows])
            entries.append(Entry(value or "(empty)", [Cell(f"{posts[value]:,}"), *shares]))
        about = "Bold: the highest of its row."
        if len(posts) > MOST_VALUES:
            largest = "The {most} largest of {values:,} values. {reason}"
            about = Message(largest, most=MOST_VALUES, values=len(posts), reason=about)
        yield Grid(f"Accuracy by {column}, %", ["Value", "Posts", *titles], entries, about)


def _shares(
    values: Sequence[float | None], ends: Sequence[tuple[float, float] | None] | None = None
) -> list[Cell]:
    known = [math.nan if x is None else x for x in values]
    best = max(filter(math.isfinite, known), default=math.nan) if len(known) > 1 else math.nan
    more = [[" to ".join(map(format_percent, x))] if x else [] for x in ends or [None] * len(known)]
    pairs = zip(known, more, strict=True)
    return [Cell(format_percent(x), own, strong=x == best) for x, own in pairs]


def format_percent(share: float) -> str:
    """0.1234 -> "12.3", or "–" for what is no number."""
    return f"{100 * share:.1f}" if math.isfinite(share) else NOTHING


def signed(share: float) -> str:
    """0.1234 -> "+12.3", in percentage points; what rounds to nothing has no sign."""
    if not math.isfinite(share):
        return NOTHING
    points = round(100 * share, 1)
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}") if points else "0.0"


def p_value(value: float) -> str:
    """0.0123 -> "p = 0.012"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _chart(table: ResultTable) -> dict[str, Any] | None:
    found = [(x, x.summary.accuracy) for x in table.lines if x.summary is not None]
    found = [(x, y) for x, y in found if all(map(math.isfinite, (y.mean, y.low, y.high)))]
    if len(found) < 2:
        return None
    ends = [100 * share for _, x in found for share in (x.mean, x.low, x.high)]
    first, axis = min(math.floor(min(ends)), 99), MaxNLocator(6, steps=[1, 2, 5, 10], integer=True)
    ticks = list(map(int, axis.tick_values(first, max(math.ceil(max(ends)), first + 1))))
    return {"lines": [x for x, _ in found], "ticks": ticks, "reference": table.reference}


def escape_latex(text: str) -> str:
    """Return text on one line in which nothing acts as LaTeX, and signs that every font has."""
    return "".join(LATEX.get(c, c if c.isprintable() else " ") for c in text)


def escape_markdown(text: str) -> str:
    """Return text on one line in which nothing acts as Markdown or HTML, in a table or outside."""
    text = "".join(c if c.isprintable() or c == SPACE else " " for c in text).strip(" ")
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)  # within a word it means nothing


def escape_paragraph(text: str) -> str:
    """Escape what would begin a heading or a list, too."""
    return re.sub(r"^(?=[#+=-])|^(\d+)(?=[.)](\s|$))", r"\1\\", escape_markdown(text))
