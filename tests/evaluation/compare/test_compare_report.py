import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from html_page import Page
from sgmft.errors import SgmftError
from sgmft.evaluation.compare.figures import ReportFigure, TsnePanel, render_panels, save_panels
from sgmft.evaluation.compare.report import _ticks, escape_markdown, escape_paragraph, write_report
from sgmft.evaluation.compare.results import ResultRow, ResultTable
from sgmft.evaluation.compare.statistics import Difference, Estimate, Summary
from sgmft.evaluation.metrics import ClassScore

EVIL = "<script>alert('&')</script>|`*b*` [x](http://evil.example) _i_ $y$"
REFERENCE = "SG-MFT (default)"
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def summary(accuracy, sd=0.01, seeds=3, label="家"):
    spread = Estimate(accuracy, sd, accuracy - 0.03, accuracy + 0.02)
    return Summary(
        seeds,
        680,
        spread,
        spread,
        Estimate(0.05, sd, 0.04, 0.06),
        [ClassScore(label, 1.0, 0.5, 0.66, 12), ClassScore("学校", 1.0, 0.5, 0.7, 3)],
        {"user": {label: (12, accuracy), "": (3, 0.5)}},
    )


def comparison(word="one word", number="1"):
    """A table with every kind of row; `word` stands wherever a user's words can."""
    gap = Difference(-0.042, -0.06, -0.02, 0.0001, 0.0004)
    lines = [
        ResultRow("a", word, 86.59, summary(0.8, label=word), gap, 1_200_000, 61.0, word, word),
        ResultRow("b", "Failed", 86.62, failed=[f"seed 0: {word}"]),
        ResultRow("c", "Missing"),
        ResultRow(
            "d", "One seed", summary=summary(0.83, math.nan, 1), against=gap._replace(p_holm=0.4)
        ),
        ResultRow("e", REFERENCE, 87.29, summary(0.842), None, 4_000, 3.2, "", "own", [word]),
    ]
    return ResultTable(number, word, word, lines, REFERENCE)


def figure(number="6", word="Image-wise"):
    panels = [
        TsnePanel(f"{k}{number}", word, [[0, 1], [1, k]], ["家", word], 0.5, 2) for k in (2, 3)
    ]
    return panels, ReportFigure(number, word, render_panels(panels), [f"figure-{number}.png"])


def written(folder, word="one word", **options):
    path = write_report(
        folder,
        title=word,
        tables=[comparison(word, "1"), comparison(word, "5")],
        figures=[figure("6", word)[1], figure("9", word)[1]],
        data={"posts": "3,400", word: word},
        commands=["sgmft compare posts.csv", f"# {word}"],
        versions={"torch": "2.8", word: word},
        notes=[word, "a note"],
        **options,
    )
    return Page(path.read_text("utf-8")), (path.parent / "report.md").read_text("utf-8")


def parsed_tables(text):
    """Tables of a Markdown text as rows of cells, each the text that a reader sees."""
    tables, row = [], []
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            tables[-1].append(row)
        elif token.type == "inline" and tables and token.level > 3:
            row.append("".join(seen(token)))
    return tables


def seen(inline):
    for token in inline.children:
        if token.type in ("text", "code_inline", "text_special"):
            yield token.content


def test_report_shows_every_part(tmp_path):
    folder = tmp_path / "new" / "folder"
    page, text = written(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "report.md"]
    flat = " ".join(page.text.replace("\xa0", " ").split())
    for words in (
        "Table 1. one word",
        "Table 5. one word",
        "Figure 6. one word",
        "Highest accuracy: SG-MFT (default), 84.2 %. Lower than SG-MFT (default) by more than "
        "chance (Holm-corrected p < 0.05): one word (−4.2 points). Not told apart from it: One "
        "seed. Without figures: Failed (failed), Missing (not run).",
        "sgmft compare posts.csv # one word",
        "F1 of each label, %",
        "Accuracy by user, %",
    ):
        assert words in flat
        assert words in " ".join(text.replace("\xa0", " ").replace("\\", "").split())
    main = next(table for table in page.tables if table[0][0][0] == "System")
    assert [cell.strip() for cell, _ in main[0]][-2:] == [
        "Paper (other data), %",
        "Chosen in trials",
    ]
    rows = {
        row[0][0]: [" ".join(cell.replace("\xa0", " ").split()) for cell, _ in row] for row in main
    }
    assert rows["one word1"][1:5] == [
        *("80.0 ± 1.0", "77.0 to 82.0", "−4.2−6.0 to −2.0p < 0.001, lower", "80.0 ± 1.0"),
    ]
    assert rows["Failed"][1:3] == ["failed: seed 0: one word", "–"]
    assert rows["Missing"][1] == "not run"
    assert rows["One seed"][1] == "83.0"
    assert rows["SG-MFT (default)2, 3"][1] == "84.2 ± 1.0 best"
    assert len(page.all("details")) == 2 + 2 * 2


def test_every_row_has_as_many_cells_as_its_header(tmp_path):
    page, text = written(tmp_path, EVIL)
    wide = [table for table in page.tables if len(table[0]) > 2]
    for table in wide:
        assert {sum(span for _, span in row) for row in table} == {len(table[0])}
    tables = parsed_tables(text)
    assert len(tables) == 2 + 2 * 3
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
    main = tables[1]
    assert main[0][0] == "System" and [row[0].split()[0] for row in main[2:4]] == [
        "Failed",
        "Missing",
    ]
    assert main[1][0].startswith(EVIL) and main[1][9] == EVIL
    assert main[1][3].replace("\xa0", " ") == "−4.2 (−6.0 to −2.0; p < 0.001, lower)"
    assert tables[3][1][0] == EVIL  # value of a group
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)


def test_nothing_a_user_wrote_acts(tmp_path):
    page, text = written(tmp_path, EVIL)
    assert page.text.count(EVIL) >= 20
    page.check_harmless()
    assert not page.all("img") and not page.all("b>")
    assert "url(" not in page.source
    tokens = [token for top in MARKDOWN.parse(text) for token in (top, *(top.children or []))]
    assert not [token for token in tokens if token.type in ("link_open", "em_open", "code_inline")]
    raw = "".join(token.content for token in tokens if token.type.startswith("html"))
    assert set(re.findall(r"<(\w+)", raw)) == {"details", "summary", "sup"}
    assert sum(token.type == "heading_open" for token in tokens) == 1 + 6 + 2 + 2
    [fence] = [token for token in tokens if token.type == "fence"]
    assert fence.content.splitlines() == ["sgmft compare posts.csv", f"# {EVIL}"]


def test_identifiers_are_unique_and_links_lead_somewhere(tmp_path):
    page, _ = written(tmp_path)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in page.tags:
        for name in ("href", "xlink:href"):
            assert attributes.get(name, f"#{names[0]}")[1:] in names


def test_markdown_links_figures_by_their_png(tmp_path):
    panels, part = figure()
    files = save_panels(panels, tmp_path, "figure 6")
    part = ReportFigure("6", "t", part.svg, [file.name for file in files])
    write_report(tmp_path, title="t", tables=[], figures=[part], data={}, versions={})
    text = (tmp_path / "report.md").read_text("utf-8")
    images = [
        child.attrs["src"]
        for token in MARKDOWN.parse(text)
        for child in token.children or []
        if child.type == "image"
    ]
    assert images == ["figure%206.png"]
    assert part.svg in (tmp_path / "report.html").read_text("utf-8")


def test_chart_places_accuracies_on_one_axis(tmp_path):
    page, _ = written(tmp_path)
    texts = [attributes for attributes in page.all("text") if "%" in attributes["x"]]
    assert len(texts) % 2 == 0 and texts[0]["x"] == "0.0%"
    circles = [a for a in page.all("circle") if a["class"].startswith("dot")]
    assert [a["class"] for a in circles] == ["dot apart", "dot within"] * 2
    # the axis goes from 76 to 88 %: ends are 77.0 and 86.2 %
    assert [a["cx"] for a in circles[:2]] == ["33.33%", "58.33%"]
    assert next(a["x1"] for a in page.all("line") if a["class"] == "reach") == "8.33%"
    one = ResultTable("1", "t", "a", [ResultRow("a", "A", summary=summary(0.8))], REFERENCE)
    path = write_report(tmp_path, title="t", tables=[one], data={}, versions={})
    assert not Page(path.read_text("utf-8")).all("circle")


@given(st.floats(0, 100), st.floats(0, 100))
def test_ticks_hold_what_they_should_and_are_few(one, other):
    ticks = _ticks(min(one, other), max(one, other))
    assert ticks[0] <= min(one, other) and max(one, other) <= ticks[-1]
    assert 2 <= len(ticks) <= 7 and ticks[0] >= 0 and ticks[-1] <= 100
    assert len({b - a for a, b in pairwise(ticks)}) == 1


@given(st.text())
def test_escaped_text_reads_as_it_was(text):
    shown = "".join(c if c.isprintable() or c == "\xa0" else " " for c in text).strip(" ")
    table = f"| {escape_markdown(text)} | x |\n| --- | --- |\n| {escape_markdown(text)} | y |"
    [rows] = parsed_tables(table)
    assert [row[1] for row in rows] == ["x", "y"]
    assert all(row[0].strip() == shown.strip() for row in rows)


@given(st.text() | st.from_regex(r"\A\s*([-+*#>=]+|\d+[.)])\s.*\Z"))
def test_a_paragraph_begins_nothing_else(text):
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    tokens = MARKDOWN.parse(f"- x {escape_markdown(text)}\n- {escape_paragraph(text)}")
    [_, last] = [" ".join("".join(seen(t)).split()) for t in tokens if t.type == "inline"] + (
        [] if shown else [""]
    )
    assert last == shown
    kinds = {token.type.split("_")[0] for token in tokens}
    assert kinds <= {"bullet", "list", "paragraph", "inline"}


def test_an_empty_report(tmp_path):
    path = write_report(tmp_path, title="t", tables=[], data={}, versions={})
    page = Page(path.read_text("utf-8"))
    assert "0 tables, 0 figures" in page.text and not page.all("section")
    assert (tmp_path / "report.md").read_text("utf-8") == "# t\n"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SgmftError, match="cannot be written"):
        write_report(tmp_path / "file", title="t", tables=[], data={}, versions={})
