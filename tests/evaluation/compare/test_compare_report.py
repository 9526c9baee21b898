"""The report of a comparison: its tables in words, and the page and the Markdown that show them."""

import math
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, strategies as st
from markdown_it import MarkdownIt

from html_page import EVIL as SCRIPT, Page
from sgmft.errors import SgmftError
from sgmft.evaluation.compare.figures import ReportFigure, TsnePanel, render_panels, save_panels
from sgmft.evaluation.compare.report import (
    LATEX,
    _chart,
    escape_latex,
    escape_markdown,
    escape_paragraph,
    format_percent,
    p_value,
    signed,
    verdict,
    view_table,
    write_report,
)
from sgmft.evaluation.compare.results import ResultRow, ResultTable
from sgmft.evaluation.compare.statistics import Difference, Estimate, Summary
from sgmft.evaluation.metrics import ClassScore, Group

EVIL = f"{SCRIPT}|`*b*` [x](http://evil.example) _i_ $y$"
REFERENCE = "SG-MFT (default)"
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def summary(accuracy=0.8, sd=0.01, seeds=3, **options):
    spread = Estimate(accuracy, sd, accuracy - 0.03, accuracy + 0.03)
    options = {"per_class": [ClassScore("家", 1.0, 0.5, accuracy - 0.1, 12, 0.2, 0.8)], **options}
    return Summary(seeds, 1680, spread, spread, Estimate(1 - accuracy, sd, 0.0, 1.0), **options)


def line(title, accuracy=0.8, gap=None, p=0.5, **options):
    against = None if gap is None else Difference(gap, gap - 0.02, gap + 0.02, p / 2, p)
    options = {"summary": summary(accuracy), **options}
    return ResultRow(title.lower(), title, against=against, **options)


def table(*lines, number="1", word="Systems"):
    return ResultTable(number, word, "About them.", lines, REFERENCE)


BASE = line(REFERENCE, 0.85)


def column(shown, start):
    place = next(k for k, name in enumerate(shown.main.header) if name.startswith(start))
    return [entry.cells[place - 1] for entry in shown.main.entries]


def test_figures_as_words():
    for form, cases in {
        format_percent: {0.87294: "87.3", math.nan: "–"},
        signed: {0.0312: "+3.1", -0.0312: "−3.1", -0.0004: "0.0", 0.0004: "0.0"},
        p_value: {0.2134: "p = 0.213", 0.001: "p = 0.001", 0.0009: "p < 0.001"},
    }.items():  # fmt: skip
        assert {x: form(x).replace("\xa0", " ") for x in cases} == cases


def test_cells_of_a_finished_row():
    shown = view_table(
        table(
            line("A", 0.812, -0.0382, 0.0004, parameters=1_234_567, seconds=83.0, paper=86.59),
            line("B", 0.84, -0.01, 0.213, setting="learning_rate=0.001", note="as printed"),
            BASE,
        )
    )
    assert shown.main.title == "Table 1. Systems" and shown.main.about == "About them."
    assert "|".join(shown.main.header) == (
        "System|Accuracy, %|95 % interval|Against SG-MFT (default), points|Macro-F1, %|"
        "Calibration error, %|Parameters|Training time, s|Paper (other data), %|Chosen in trials"
    )
    texts = [[cell.text.replace("\xa0", " ") for cell in e.cells] for e in shown.main.entries]
    assert texts[0] == [
        *("81.2 ± 1.0", "78.2 to 84.2", "−3.8", "81.2 ± 1.0", "18.8 ± 1.0"),
        *("1,234,567", "83.0", "86.59", "–"),
    ]
    assert texts[1][5:] == ["–", "–", "–", "learning_rate=0.001"]
    against = column(shown, "Against")
    assert [cell.strong for cell in against] == [True, False, False]
    assert against[0].more == ["−5.8 to −1.8", "p < 0.001, lower"]
    assert against[1].more == ["−3.0 to +1.0", "p = 0.213, within chance"]
    assert against[2].text == "reference"
    over_posts = replace(
        shown_line := line("A", gap=0.1), against=replace(shown_line.against, p_posts=0.02)
    )
    assert column(view_table(table(over_posts)), "Against")[0].more[-1] == "over posts p = 0.020"
    for name in ("Accuracy", "Macro", "Calibration"):
        assert [cell.best for cell in column(shown, name)] == [False, False, True]
    assert [list(entry.notes) for entry in shown.main.entries] == [[], [1], []]
    assert shown.notes == ["as printed"]
    assert "3 runs" in shown.basis and "1,680 test posts" in shown.basis


def test_a_column_in_which_no_row_has_anything_is_left_out():
    header = view_table(table(line("A", gap=0.0), BASE)).main.header
    assert header[-1] == "Calibration error, %"
    alone = view_table(table(line("A")))
    assert not any("Against" in name for name in alone.main.header)
    assert not any(cell.best for entry in alone.main.entries for cell in entry.cells)


def test_rows_without_figures():
    failed = ResultRow("a", "A", paper=80.1, failed=["seed 0: no memory"] * 2 + ["x"])
    shown = view_table(table(failed, ResultRow("b", "B"), line("C", gap=0.0), BASE))
    first, second, _, _ = shown.main.entries
    assert first.cells[0].text == "failed: seed 0: no memory; x"
    assert second.cells[0].text == "not run"
    assert first.cells[-1].text == "80.10"
    assert "Without figures: A (failed), B (not run)." in shown.verdict
    assert [grid.entries[0].title for grid in shown.details] == ["C"]
    nothing = view_table(table(failed, ResultRow("b", "B")))
    assert nothing.verdict == "No row of this table is finished."
    assert nothing.basis == "" and not nothing.details
    for main in (shown.main, nothing.main):
        for entry in main.entries:
            assert sum(cell.span for cell in entry.cells) == len(main.header) - 1


def test_notes_and_numbers_of_runs():
    some = line("A", gap=0.0, failed=["seed 1: no memory"], note="a note")
    shown = view_table(table(line("B", gap=0.0, note="a note"), some, BASE))
    assert [list(entry.notes) for entry in shown.main.entries] == [[1], [1, 2], []]
    assert shown.notes[1] == "Not all of its runs finished: seed 1: no memory"
    one = line("A", summary=summary(0.8, math.nan, seeds=1))
    shown = view_table(table(one))
    assert column(shown, "Accuracy")[0].text == "80.0"  # without a deviation
    assert shown.basis.startswith("One run each")
    assert "1 to 3 runs" in view_table(table(one, BASE)).basis
    splits = view_table(table(line("A", summary=replace(summary(), splits=5)))).basis
    assert splits.startswith(
        "Mean ± standard deviation of the runs with 3 seeds in each of 5 splits"
    )


BEST = f"Highest accuracy: {REFERENCE}, 85.0 %."
CHANCE = f"{REFERENCE} by more than chance"
REAL = f"{CHANCE} (Holm-corrected p < 0.05)"
NONE = f"{BEST} No system differs from {CHANCE} (Holm-corrected p ≥ 0.05)."


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line("A", gap=0.01), line("B", gap=-0.01, p=0.05)], NONE),
        ([line("A", gap=0.0, p=0.0), line("B", gap=0.1, p=math.nan)], NONE),
        ([line("A", gap=-0.01, p=0.21)], f"{BEST} A does not differ from {CHANCE} (p = 0.210)."),
        (
            [line("A", 0.9, 0.05, 0.01), line("B", 0.7, -0.02, 0.01), line("C", 0.6, -0.25, 1e-4),
             line("D", 0.8, -0.01)],
            f"Highest accuracy: A, 90.0 %. Higher than {REAL}: A (+5.0 points). Lower: C (−25.0 "
            "points), B (−2.0 points). Not told apart from it: D.",
        ),
        (
            [line(name, 0.7, -0.1, 0.01) for name in "ABCDEFG"],
            f"{BEST} Lower than {REAL}: A (−10.0 points), B (−10.0 points), C (−10.0 points), "
            "D (−10.0 points) and 3 more.",
        ),
        ([], ""),
    ],
)  # fmt: skip
def test_verdict(lines, words):
    assert verdict(table(*lines, BASE)).replace("\xa0", " ") == words


def test_the_lead_over_rows_that_read_the_same():
    own, fewer = {"reads": "text, n-grams"}, {"reads": "text"}
    base = line(REFERENCE, 0.85, **own)
    lines = line("A", gap=-0.03, p=0.001, **fewer), line("B", gap=-0.01, **own)
    said = "Of the other rows with the same inputs, B is the highest (−1.0 points, within chance)."
    assert verdict(table(*lines, base)).endswith(said)
    assert column(view_table(table(*lines, base)), "Reads")[1].text == "text, n-grams"
    for alike in (lines[:1], lines[1:]):  # none reads the same, or all do
        assert "what it reads" not in verdict(table(*alike, base))


def test_verdict_without_the_reference():
    lines = line("A", 0.8), line("B", 0.7), ResultRow("c", REFERENCE, failed=["x"])
    assert verdict(table(*lines)).replace("\xa0", " ") == (
        f"Highest accuracy: A, 80.0 %. Not compared with {REFERENCE}: A, B. Without figures: "
        f"{REFERENCE} (failed)."
    )


def test_each_label_and_each_group():
    scores = [
        ClassScore("家", 1.0, 1.0, 0.5, 12, 0.2, 0.8),
        ClassScore("", 1.0, 1.0, 0.25, 1, 0.2, 0.8),
    ]
    scores.append(ClassScore("车", 0.0, 0.0, 0.0, 0, 0.2, 0.8))
    figures = {"balanced_accuracy": 0.75, "auroc": 0.912, "log_loss": 0.5123}
    users = {f"u{k}": Group(100 - k, k / 50) for k in range(50)}
    one = line(
        "A", summary=summary(per_class=scores, groups={"user": users, "kind": {}}, **figures)
    )
    groups = {"user": {"u1": Group(99, 0.9), "": Group(200, 0.1)}}
    two = line("B", summary=summary(0.7, groups=groups))
    labels, by_user, by_kind = view_table(table(one, two)).details
    further = ["Balanced accuracy", "AUROC", "Log loss"]
    assert labels.header == ["System", *further, "家 (12)", "(empty) (1)", "车 (0)"]
    cells = [["75.0", "91.2", "0.512", "50.0", "25.0", "–"], ["–", "–", "–", "60.0", "–", "–"]]
    assert [[c.text for c in e.cells] for e in labels.entries] == cells
    strong = [[True, True, False, False, True, False], [*[False] * 3, True, False, False]]
    assert [[c.strong for c in e.cells] for e in labels.entries] == strong
    assert by_user.title == "Accuracy by user, %" and "40 largest of 51" in by_user.about
    assert by_user.header == ["Value", "Posts", "A", "B"] and len(by_user.entries) == 40
    first, second, third = by_user.entries[:3]
    assert (first.title, [c.text for c in first.cells]) == ("(empty)", ["200", "–", "10.0"])
    assert second.title == "u0"
    assert [(c.text, c.strong) for c in third.cells[1:]] == [("2.0", False), ("90.0", True)]
    assert by_kind.entries == []


def comparison(word, number):
    """A table with every kind of row; `word` stands wherever a user's words can."""
    scores = [
        ClassScore(word, 1.0, 0.5, 0.66, 12, 0.2, 0.8),
        ClassScore("学校", 1.0, 0.5, 0.7, 3, 0.2, 0.8),
    ]
    shown = summary(
        0.8, per_class=scores, groups={"user": {word: Group(12, 0.8), "": Group(3, 0.5)}}
    )
    options = {"paper": 86.59, "parameters": 1_200_000, "seconds": 61.0, "setting": word}
    lines = [
        line(word, gap=-0.042, p=0.0004, summary=shown, note=word, **options),
        ResultRow("b", "Failed", 86.62, failed=[f"seed 0: {word}"]),
        ResultRow("c", "Missing"),
        line("One seed", gap=-0.042, p=0.4, summary=summary(0.83, math.nan, 1)),
        line(REFERENCE, 0.842, parameters=4_000, note="own", failed=[word]),
    ]
    return table(*lines, number=number, word=word)


def figure(number="6", word="Image-wise"):
    look = ([[0, 1], [1, 2]], ["家", word], 0.5, 2)
    panels = [TsnePanel(f"{k}{number}", word, *look) for k in (2, 3)]
    return panels, ReportFigure(
        number, word, render_panels(panels), [f"figure-{number}.{x}" for x in ("svg", "pdf", "png")]
    )


def written(folder, word="one word", language="en"):
    path = write_report(
        folder,
        language=language,
        title=word,
        tables=[comparison(word, "1"), comparison(word, "5")],
        figures=[figure("6", word)[1], figure("9", word)[1]],
        data={"posts": "3,400", word: word},
        commands=["sgmft compare posts.csv", f"# {word}"],
        versions={"torch": "2.8", word: word},
        notes=[word, "a note"],
    )
    return Page(path.read_text("utf-8")), (path.parent / "report.md").read_text("utf-8")


def parsed_tables(text):
    """Tables of a Markdown text as rows of cells, each the text that a reader sees."""
    tables = []
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and token.level > 3:
            tables[-1][-1].append(seen(token))
    return tables


def seen(inline):
    shown = ("text", "code_inline", "text_special")
    return "".join(token.content for token in inline.children if token.type in shown)


def test_report_shows_every_part(tmp_path):
    folder = tmp_path / "new" / "folder"
    page, text = written(folder)
    names = ["paper.tex", "report.html", "report.md", "tables"]
    assert sorted(file.name for file in folder.iterdir()) == names
    flat = " ".join(page.text.replace("\xa0", " ").split())
    for words in (
        "Table 1. one word",
        "Table 5. one word",
        "Figure 6. one word",
        "Highest accuracy: SG-MFT (default), 84.2 %. Lower than SG-MFT (default) by more than "
        "chance (Holm-corrected p < 0.05): one word (−4.2 points). Not told apart from it: One "
        "seed. Without figures: Failed (failed), Missing (not run).",
        "sgmft compare posts.csv # one word",
        "F1 of each label and figures over labels, %",
        "Accuracy by user, %",
    ):
        assert words in flat
        assert words in " ".join(text.replace("\xa0", " ").replace("\\", "").split())
    main = next(table for table in page.tables if table[0][0][0] == "System")
    rows = {row[0][0]: [" ".join(cell.split()) for cell, _ in row] for row in main}
    cells = ["80.0 ± 1.0", "77.0 to 83.0", "−4.2−6.2 to −2.2p < 0.001, lower", "80.0 ± 1.0"]
    assert rows["one word1"][1:5] == cells
    assert rows["Failed"][1:3] == ["failed: seed 0: one word", "–"]
    assert rows["SG-MFT (default)2, 3"][1] == "84.2 ± 1.0 best"
    assert len(page.all("details")) == 2 + 2 * 2


def test_in_chinese_it_has_the_same_numbers_and_names(tmp_path):
    english, chinese = (written(tmp_path / x, "x7", x) for x in ("en", "zh"))
    for one, other in zip(english, chinese, strict=True):
        numbers = [Page(str(getattr(x, "source", x))).numbers() for x in (one, other)]
        assert numbers[0] == numbers[1]
    page, text = chinese
    for words in ("相对“SG-MFT (default)”（百分点）", "失败：", "没有数字的有：Failed（失败）"):
        assert words in page.text and words in text.replace("\\", "")
    assert "−6.2 至 −2.2" in page.text and "p < 0.001，更低" in page.text
    assert "x7" in page.text and not re.search(r"\b(chance|points|of|the)\b", page.text)
    evil, _ = written(tmp_path / "evil", EVIL, "zh")
    evil.check_harmless()


def test_every_row_has_as_many_cells_as_its_header(tmp_path):
    page, text = written(tmp_path, EVIL)
    wide = [table for table in page.tables if len(table[0]) > 2]
    for table in wide:
        assert {sum(span for _, span in row) for row in table} == {len(table[0])}
    tables = parsed_tables(text)
    assert len(tables) == 2 + 2 * 3
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
    main = tables[0]
    assert [row[0].split()[0] for row in (main[0], *main[2:4])] == ["System", "Failed", "Missing"]
    assert main[1][0].startswith(EVIL) and main[1][9] == EVIL
    assert main[1][3].replace("\xa0", " ") == "−4.2 (−6.2 to −2.2; p < 0.001, lower)"
    assert tables[2][1][0] == EVIL  # value of a group
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
    panels, part = figure()
    files = save_panels(panels, tmp_path, "figure 6")
    part = ReportFigure("6", "t", part.svg, [file.name for file in files])
    write_report(tmp_path, title="t", tables=[], figures=[part], data={}, versions={})
    assert "](figure%206.png)" in (tmp_path / "report.md").read_text("utf-8")
    assert part.svg in (tmp_path / "report.html").read_text("utf-8")


def latex_rows(text):
    """Rows of a table in LaTeX as cells; a cell's text is what a reader sees of `escape_latex`."""
    body = re.split(r"\\midrule\n(?:\\endhead\n)?", text)[-1].split("\\bottomrule")[0]
    return [[read_latex(x) for x in row.split(" & ")] for row in body.split(r" \\" + "\n")[:-1]]


def read_latex(text):
    text = re.sub(r"\$\^\{(\*+)\}\$|^\\textbf\{(.*)\}$|^\{\}", r"\1\2", text)
    for sign, command in LATEX.items():
        if command[-2:] == "{}" or command[0] == "$":
            text = text.replace(command, sign)
    return re.sub(r"\\([#$%&_{}])", r"\1", text).replace("--", "–")


def test_latex_has_every_table_with_marks_and_every_figure(tmp_path):
    written(tmp_path, EVIL)
    paper = (tmp_path / "paper.tex").read_text("utf-8")
    inputs = re.findall(r"\\input\{(.*)\}", paper)
    assert [f"{name}.tex" for name in inputs] == [
        f"tables/{x}.tex" for x in ("table-1", "table-5", "hyperparameters")
    ]
    assert re.findall(r"\\includegraphics\[.*\]\{(.*)\}", paper) == ["figure-6.pdf", "figure-9.pdf"]
    table = (tmp_path / "tables" / "table-1.tex").read_text("utf-8")
    evil, failed, *_, last = latex_rows(table)
    assert evil[0] == EVIL and evil[1:3] == ["80.0~±~1.0", "−4.2***"] and "***" not in last[2]
    assert failed[1:] == ["–"] * 5 + ["86.62"] and last[0] == REFERENCE
    settings = latex_rows((tmp_path / "tables" / "hyperparameters.tex").read_text("utf-8"))
    assert [row[0] for row in settings] == [EVIL, "Failed", "Missing", "One seed", REFERENCE]
    for file in (tmp_path / "paper.tex", *(tmp_path / "tables").iterdir()):
        text = re.sub(r"\\[{}]", "", file.read_text("utf-8"))
        assert text.count("{") == text.count("}")


@given(st.text())
@example(EVIL)
def test_nothing_acts_as_latex(text):
    known = r"\\(text\w+|dots)\{\}|\$(\\pm|\\times|-)\$|\\[#$%&_{}]|~"
    left = re.sub(known, "", escape_latex(text))
    assert not set(left) & set("\\#$%&_{}^~\n")


@pytest.mark.parametrize(("engine", "word"), [("pdflatex", EVIL), ("lualatex", "家与学校 – 图像…")])
@pytest.mark.slow
def test_the_document_builds(tmp_path, engine, word):
    if shutil.which(engine) is None:
        pytest.skip("needs LaTeX")
    for number in "69":
        save_panels(figure()[0], tmp_path, f"figure-{number}")
    written(tmp_path, word)
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    told = done.stdout.decode(errors="replace")
    assert done.returncode == 0, told[-2000:]
    assert "multiply" not in told


def test_chart_places_accuracies_on_one_axis(tmp_path):
    page, _ = written(tmp_path)
    texts = [attributes for attributes in page.all("text") if "%" in attributes["x"]]
    assert len(texts) % 2 == 0 and texts[0]["x"] == "0.0%"
    circles = [a for a in page.all("circle") if a["class"].startswith("dot")]
    assert [a["class"] for a in circles] == ["dot apart", "dot within"] * 2
    # the axis goes from 76 to 88 %: ends are 77.0 and 87.2 %
    assert [a["cx"] for a in circles[:2]] == ["33.33%", "58.33%"]
    assert next(a["x1"] for a in page.all("line") if a["class"] == "reach") == "8.33%"
    path = write_report(tmp_path, title="t", tables=[table(BASE)], data={}, versions={})
    assert not Page(path.read_text("utf-8")).all("circle")


@given(st.floats(0, 100), st.floats(0, 100))
def test_ticks_hold_what_they_should_and_are_few(one, other):
    lines = []
    for share in (one / 100, other / 100):
        row = line("A", share)
        found = replace(row.summary, accuracy=Estimate(share, 0.0, share, share))
        lines.append(replace(row, summary=found))
    ticks = _chart(table(*lines))["ticks"]
    assert ticks[0] <= min(one, other) + 1e-9 and max(one, other) - 1e-9 <= ticks[-1]
    assert 2 <= len(ticks) <= 8 and ticks[0] >= 0 and ticks[-1] <= 100
    assert len({b - a for a, b in pairwise(ticks)}) == 1


@given(st.text())
def test_escaped_text_reads_as_it_was(text):
    shown = "".join(c if c.isprintable() or c == "\xa0" else " " for c in text).strip(" ")
    table = f"| {escape_markdown(text)} | x |\n| --- | --- |\n| {escape_markdown(text)} | y |"
    [rows] = parsed_tables(table)
    assert [row[1] for row in rows] == ["x", "y"]
    assert all(row[0].strip() == shown.strip() for row in rows)


@given(st.text() | st.from_regex(r"\A\s*([-+*#>=]+|\d+[.)])\s.*\Z"))
@example("\xa0")
def test_a_paragraph_begins_nothing_else(text):
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    tokens = MARKDOWN.parse(f"- x {escape_markdown(text)}\n- {escape_paragraph(text)}")
    found = [" ".join(seen(t).split()) for t in tokens if t.type == "inline"]
    [_, last] = found + [""] * (2 - len(found))  # nothing of a blank text, but for a hard space
    assert last == shown
    kinds = {token.type.split("_")[0] for token in tokens}
    assert kinds <= {"bullet", "list", "paragraph", "inline"}


def test_an_empty_report_and_a_place_that_cannot_be_written(tmp_path):
    path = write_report(tmp_path, title="t", tables=[], data={}, versions={})
    page = Page(path.read_text("utf-8"))
    assert "0 tables, 0 figures" in page.text and not page.all("section")
    assert (tmp_path / "report.md").read_text("utf-8") == "# t\n"
    with pytest.raises(SgmftError, match="cannot be written"):
        write_report(path, title="t", tables=[], data={}, versions={})
