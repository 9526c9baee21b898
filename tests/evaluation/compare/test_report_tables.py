import math

import pytest

from sgmft.evaluation.compare.report import (
    duration,
    format_percent,
    p_value,
    signed,
    thousands,
    verdict,
    view_table,
)
from sgmft.evaluation.compare.results import ResultRow, ResultTable
from sgmft.evaluation.compare.statistics import Difference, Estimate, Summary
from sgmft.evaluation.metrics import ClassScore

REFERENCE = "SG-MFT (default)"


def summary(accuracy=0.8, sd=0.01, seeds=3, **options):
    spread = Estimate(accuracy, sd, accuracy - 0.03, accuracy + 0.03)
    options = {"per_class": [ClassScore("家", 1.0, 0.5, accuracy - 0.1, 12)], **options}
    return Summary(seeds, 1680, spread, spread, Estimate(1 - accuracy, sd, 0.0, 1.0), **options)


def line(title, accuracy=0.8, gap=None, p=0.5, **options):
    against = None if gap is None else Difference(gap, gap - 0.02, gap + 0.02, p / 2, p)
    return ResultRow(title.lower(), title, summary=summary(accuracy), against=against, **options)


def table(*lines):
    return ResultTable("1", "Systems", "About them.", lines, REFERENCE)


BASE = line(REFERENCE, 0.85)


def column(shown, start):
    place = next(k for k, name in enumerate(shown.main.header) if name.startswith(start))
    return [entry.cells[place - 1] for entry in shown.main.entries]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_percent(0.87294), "87.3"),
        (format_percent(math.nan), "–"),
        (signed(0.0312), "+3.1"),
        (signed(-0.0312), "−3.1"),
        (signed(-0.0004), "0.0"),
        (signed(0.0004), "0.0"),
        (p_value(0.2134), "p = 0.213"),
        (p_value(0.001), "p = 0.001"),
        (p_value(0.0009), "p < 0.001"),
        (thousands(None), ""),
        (thousands(0), "0"),
        (thousands(512), "512"),
        (thousands(45_310), "45.3 k"),
        (thousands(999_960), "1.0 M"),
        (thousands(123_456_789), "123 M"),
        (duration(None), ""),
        (duration(0.44), "0.4 s"),
        (duration(9.97), "10 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(83.2), "1 min 23 s"),
        (duration(3_900), "1 h 05 min"),
    ],
)
def test_figures_as_words(text, expected):
    assert text.replace("\xa0", " ") == expected


def test_cells_of_a_finished_row():
    shown = view_table(
        table(
            line("A", 0.812, -0.0382, 0.0004, parameters=1_234_567, seconds=83.0, paper=86.59),
            line("B", 0.84, -0.01, 0.213, setting="learning_rate=0.001", note="as printed"),
            BASE,
        )
    )
    assert shown.main.title == "Table 1. Systems" and shown.main.about == "About them."
    assert shown.main.header == [
        "System",
        "Accuracy, %",
        "95 % interval",
        "Against SG-MFT (default), points",
        "Macro-F1, %",
        "Calibration error, %",
        "Parameters",
        "Training time",
        "Paper (other data), %",
        "Chosen in trials",
    ]
    texts = [[cell.text.replace("\xa0", " ") for cell in e.cells] for e in shown.main.entries]
    assert texts[0] == [
        *("81.2 ± 1.0", "78.2 to 84.2", "−3.8", "81.2 ± 1.0", "18.8 ± 1.0"),
        *("1.2 M", "1 min 23 s", "86.59", "–"),
    ]
    assert texts[1][5:] == ["–", "–", "–", "learning_rate=0.001"]
    against = column(shown, "Against")
    assert [cell.strong for cell in against] == [True, False, False]
    assert against[0].more == ("−5.8 to −1.8", "p < 0.001, lower")
    assert against[1].more == ("−3.0 to +1.0", "p = 0.213, within chance")
    assert against[2].text == "reference"
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
    failed = ResultRow("a", "A", paper=80.1, failed=["seed 0: no memory", "seed 0: no memory", "x"])
    shown = view_table(table(failed, ResultRow("b", "B"), line("C", gap=0.0), BASE))
    first, second, third, _ = shown.main.entries
    assert first.cells[0].text == "failed: seed 0: no memory; x"
    assert second.cells[0].text == "not run"
    assert first.cells[-1].text == "80.10"
    for entry in (first, second, third):
        assert sum(cell.span for cell in entry.cells) == len(shown.main.header) - 1
    assert "Without figures: A (failed), B (not run)." in shown.verdict
    assert [grid.entries[0].title for grid in shown.details] == ["C"]
    nothing = view_table(table(failed, ResultRow("b", "B")))
    assert nothing.verdict == "No row of this table is finished."
    assert nothing.basis == "" and not nothing.details
    assert all(
        sum(cell.span for cell in entry.cells) == len(nothing.main.header) - 1
        for entry in nothing.main.entries
    )


def test_a_row_of_which_some_runs_failed_says_so_in_a_footnote_shared_by_the_same_words():
    some = line("A", gap=0.0, failed=["seed 1: no memory"], note="a note")
    shown = view_table(table(line("B", gap=0.0, note="a note"), some, BASE))
    assert [list(entry.notes) for entry in shown.main.entries] == [[1], [1, 2], []]
    assert shown.notes[1] == "Not all of its runs finished: seed 1: no memory"


def test_one_seed_has_no_deviation():
    one = ResultRow("a", "A", summary=summary(0.8, math.nan, seeds=1))
    shown = view_table(table(one))
    assert column(shown, "Accuracy")[0].text == "80.0"
    assert shown.basis.startswith("One run each")
    both = view_table(table(one, BASE))
    assert "1 to 3 runs" in both.basis


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [line("A", gap=0.01), line("B", gap=-0.01, p=0.05), BASE],
            "Highest accuracy: SG-MFT (default), 85.0 %. No system differs from SG-MFT (default) "
            "by more than chance (Holm-corrected p ≥ 0.05).",
        ),
        (
            [line("A", gap=-0.01, p=0.21), BASE],
            "Highest accuracy: SG-MFT (default), 85.0 %. A does not differ from SG-MFT (default) "
            "by more than chance (p = 0.210).",
        ),
        (
            [
                line("A", 0.9, 0.05, 0.01),
                line("B", 0.7, -0.02, 0.01),
                line("C", 0.6, -0.25, 0.0001),
                line("D", 0.8, -0.01),
                BASE,
            ],
            "Highest accuracy: A, 90.0 %. Higher than SG-MFT (default) by more than chance "
            "(Holm-corrected p < 0.05): A (+5.0 points). Lower: C (−25.0 points), B (−2.0 points)."
            " Not told apart from it: D.",
        ),
        (
            [*(line(name, 0.7, -0.1, 0.01) for name in "ABCDEFG"), BASE],
            "Highest accuracy: SG-MFT (default), 85.0 %. Lower than SG-MFT (default) by more than "
            "chance (Holm-corrected p < 0.05): A (−10.0 points), B (−10.0 points), C (−10.0 "
            "points), D (−10.0 points) and 3 more.",
        ),
        (
            [line("A", 0.8), line("B", 0.7), ResultRow("c", REFERENCE, failed=["x"])],
            "Highest accuracy: A, 80.0 %. Not compared with SG-MFT (default): A, B. Without "
            "figures: SG-MFT (default) (failed).",
        ),
        ([BASE], ""),
    ],
)
def test_verdict(lines, words):
    assert verdict(table(*lines)).replace("\xa0", " ") == words


def test_no_difference_is_no_difference_whatever_its_p():
    assert "No system" in verdict(table(line("A", gap=0.0, p=0.0), line("B", gap=0.1, p=math.nan)))


def test_each_label_and_each_group():
    scores = [ClassScore("家", 1.0, 1.0, 0.5, 12), ClassScore("", 1.0, 1.0, 0.25, 1)]
    users = {f"u{k}": (100 - k, k / 50) for k in range(50)}
    one = ResultRow("a", "A", summary=summary(per_class=scores, groups={"user": users, "kind": {}}))
    two = ResultRow(
        "b", "B", summary=summary(0.7, groups={"user": {"u1": (99, 0.9), "": (200, 0.1)}})
    )
    labels, by_user, by_kind = view_table(table(one, two)).details
    assert labels.header == ["System", "家 (12)", "(empty) (1)"]
    assert [[c.text for c in e.cells] for e in labels.entries] == [["50.0", "25.0"], ["60.0", "–"]]
    assert [[c.strong for c in e.cells] for e in labels.entries] == [[False, True], [True, False]]
    assert by_user.title == "Accuracy by user, %" and "40 largest of 51" in by_user.about
    assert by_user.header == ["Value", "Posts", "A", "B"] and len(by_user.entries) == 40
    first, second, third = by_user.entries[:3]
    assert (first.title, [c.text for c in first.cells]) == ("(empty)", ["200", "–", "10.0"])
    assert second.title == "u0"
    assert [(c.text, c.strong) for c in third.cells[1:]] == [("2.0", False), ("90.0", True)]
    assert by_kind.entries == []
