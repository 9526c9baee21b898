"""What a comparison runs: every row can be built, and the paper's figures are the paper's."""

import pytest

from sgmft.errors import SgmftError
from sgmft.evaluation.compare.catalogue import make_plan, read_catalogue
from sgmft.evaluation.compare.runs import Run
from sgmft.models.base import ClosedFormModel
from sgmft.models.fusions import FUSIONS
from sgmft.models.network import Network
from sgmft.models.registry import DEFAULT as REFERENCE, METHODS
from sgmft.utils.templates import render

ALL = "1,2,3,4,5"
ROWS, TABLES, FIGURES = read_catalogue()


def test_tables_show_the_papers_own_figures():
    printed = {
        "1": [84.56, 86.62, 86.59, 85.24, 86.25, 87.29],
        "2": [78.23, 84.91, 85.74, 86.94, 87.29],
        "3": [86.32, 86.35, 86.47, 87.29],
        "4": [86.88, 87.29],
        "2e": [78.23, 84.91, 85.74, 86.94, 87.29],
        "4e": [86.88, 87.29],
    }
    for number, figures in printed.items():
        assert [
            TABLES[number].paper[x] for x in TABLES[number].rows if x in TABLES[number].paper
        ] == figures
    assert not TABLES["5"].paper


@pytest.mark.parametrize(
    ("tables", "methods", "said"),
    [
        (
            "1,2,3",
            None,
            ["mPLUG, BridgeTower, the attention", "(Tables 2, 4", "penalties", "printed"],
        ),
        ("3", "co-attention", [": the attention"]),
        ("1", "mplug,text-only", [": mPLUG.", "penalties"]),
    ],
)
def test_notes_are_of_rows_that_are_there(tables, methods, said):
    plan = make_plan(tables, "", methods, epochs=2)
    notes = render("evaluation/templates/compare_notes.txt", plan=plan)
    every = {"mPLUG", "BridgeTower", "the attention", "(Tables 2, 4", "penalties", "printed"}
    assert all(words in notes for words in said)
    assert not [words for words in every if words in notes and words not in "".join(said)]
    assert "\n\n" not in notes and 'column "Reads"' in notes


def test_table_1_has_every_method_and_every_preset():
    expected = {*METHODS, "sgmft-tokens", "sgmft-distilled", "sgmft-paper"} - {
        "word-average",
        "sgmft",
    }
    expected |= {"default-lexical", "linear-probe-ngrams", "late-average-ngrams"}
    without = {"no-attributes", "probe-no-attributes", "low-rank-no-attributes"}
    assert set(TABLES["1"].rows) == expected | without
    assert without.isdisjoint(make_plan("1", "").tables[0].rows)
    assert without < set(make_plan("1", "", attributes=["hour"]).tables[0].rows)
    shown = [ROWS[key] for key in (*TABLES["1"].rows, *TABLES["5"].rows)]
    presets = {row.preset for row in shown if row.method == "sgmft"}
    assert presets == set(METHODS["sgmft"].presets)


@pytest.mark.parametrize("key", ROWS)
def test_every_row_has_settings_its_method_knows(key):
    row = ROWS[key]
    preset = Run("folder", row, "compact/light", most_epochs=3).preset
    assert preset.train.epochs == 3
    assert row.like is None or ROWS[row.like].like is None
    width = 3 if METHODS[row.method].encoder == "cnn" else 64
    fields = {"classes": 3, "text_width": width, "image_width": 64}
    method = METHODS[row.method]
    model = method.network(method.config(**fields, **preset.model))
    assert isinstance(model, (ClosedFormModel, Network))


def test_ablation_rows_differ_from_the_full_model_in_one_thing():
    def model(key):
        return dict(Run("folder", ROWS[key], "x").preset.model)

    for base, changes in {
        "sgmft-tokens": {
            "clip-sim": {"fusion": "sum"},
            "clip-sfm": {"sim": False},
            "clip": {"sim": False, "fusion": "sum"},
            "image-wise": {"guided": "image"},
            "merge-attention": {"fusion": "merge-attention"},
        },
        REFERENCE: {
            "default-gate": {"gate": "constant"},
            "default-power": {"power": 0.0},
            "default-joint": {"joint": False},
            "default-lexical": {"lexical": False},
            "cleaning-paper": {},
        },
        "elements": {
            "elements-tokens": {"view": "tokens"},
            "elements-clip": {"sim": False, "fusion": "sum"},
            "elements-clip-sfm": {"sim": False},
            "elements-clip-sim": {"fusion": "sum"},
            "elements-image-wise": {"guided": "image"},
            "elements-head": {"key_width": "head"},
            "elements-w4": {"element_width": 4},
            "elements-w16": {"element_width": 16},
            "elements-softmax": {"gate": "softmax"},
            "elements-temperature-1": {"temperature": 1.0},
            "elements-unscaled": {"scale": "none"},
        },
    }.items():
        for key, change in changes.items():
            assert model(key) == model(base) | change
            assert (model(key) != model(base)) == bool(change)


def test_table_5_has_every_part_and_choice():
    shown = list(TABLES["5"].rows)
    kinds = ("default-", "elements", "cleaning-", "grid-")
    ablated = {*TABLES["2e"].rows, *TABLES["4e"].rows} - {"elements"}
    assert set(shown) == {key for key in ROWS if key.startswith(kinds)} - ablated | {
        REFERENCE,
        "sgmft-tokens",
    }
    parts = [ROWS[key] for key in shown if key.startswith("default-")]
    assert len(parts) == 4
    for row in parts:  # solved as the default is: nothing is tried
        assert (row.method, row.preset, row.like) == (REFERENCE, None, None)
        assert Run("folder", row, "x").preset.val_size == 0
    choices = [ROWS[key] for key in shown if key.startswith("elements-")]
    assert {(row.preset, row.like) for row in choices} == {("elements", "elements")}


def test_methods_picks_rows_and_keeps_what_they_are_tested_against(monkeypatch):
    plan = make_plan(ALL, "6,8,9", "mplug,clip")
    shown = [["mplug", REFERENCE], ["clip", "sgmft-tokens"]]
    assert [list(table.rows) for table in plan.tables] == shown
    keys = [row.key for row in plan.rows()]
    assert keys == ["mplug", REFERENCE, "clip", "sgmft-tokens"]
    assert [list(figure.rows) for figure in plan.figures] == [["clip"]]
    monkeypatch.setitem(FUSIONS, "mine", FUSIONS["sum"])  # a user's own is a row of table 3
    rows, tables, _ = read_catalogue()
    assert tables["3"].rows[-1] == "mine" and rows["mine"].settings == {"fusion": "mine"}


def test_every_row_that_learns_from_labels_may_balance_them():
    plan = make_plan("1", "", balanced=True)
    weighed = {row.method for row in plan.rows() if row.settings.get("class_weights")}
    assert {row.method for row in plan.rows()} - weighed == {"zero-shot"}


def test_what_cannot_be_planned_is_refused():
    for message, arguments in {
        "no table '7'": ("7", ""),
        "no figure '7'": (ALL, "7"),
        "no method to compare 'nothing'": (ALL, "", "nothing"),
        "row 'sgmft' is now called 'gated-experts'": (ALL, "", "sgmft"),
        "none of the rows": ("2", "", "mplug"),
        "no table ''": ("", ""),
        "no table '6'": ("6", ""),
        "encoder 'cnn' gives words": ("6", "", None, ["compact", "cnn"]),
    }.items():
        with pytest.raises(SgmftError, match=message):
            make_plan(*arguments)


MINE = """
[rows.half]
title = "A mixture by halves"
settings = { power = 1.0, gate = "constant" }
table = "9"

[rows.wide]
method = "sgmft"
preset = "elements"
settings = { element_width = 2 }
like = "elements"

[tables.9]
title = "Of mine"
rows = ["linear-probe", "gated-experts"]
"""


def test_rows_and_tables_of_a_users_own(tmp_path):
    path = tmp_path / "rows.toml"
    path.write_text(MINE, "utf-8")
    plan = make_plan("9,1", "", "half,wide,linear-probe", file=path)
    assert [list(x.rows) for x in plan.tables] == [
        ["linear-probe", REFERENCE, "half"],
        ["linear-probe", REFERENCE, "wide"],
    ]
    assert [row.key for row in plan.rows()] == [
        "linear-probe",
        REFERENCE,
        "half",
        "wide",
        "elements",
    ]
    half, wide = plan.known["half"], plan.known["wide"]
    assert (half.method, half.settings) == (REFERENCE, {"power": 1.0, "gate": "constant"})
    assert wide.title == "wide" and Run("folder", wide, "x").preset.model["element_width"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rows.a\n", "rows.toml cannot be read: "),
        ("[row.a]\n", "rows.toml has no part 'row': .* Did you mean 'rows'?"),
        ("rows = 3\n", r"rows.toml, row 3: begin it with \[rows.NAME\]"),
        ("[rows.a]\nmetod = 'mplug'\n", "row a has no key 'metod': .* Did you mean 'method'?"),
        ("[rows.a]\npatch_grid = 'two'\n", "row a: patch_grid must be a whole number, not 'two'"),
        ("[rows.a]\nmethod = 'mplog'\n", "row a: There is no method 'mplog': .* mean 'mplug'?"),
        (
            "[rows.a]\nsettings.gate = 'odd'\n",
            "row a: --set gate=odd: expected similarity or",
        ),
        ("[rows.a]\nsettings.gates = 'x'\n", "row a: gated-experts has no setting 'gates'"),
        ("[rows.a]\nlike = 'elephants'\n", "row a: There is no row 'elephants': .* 'elements'?"),
        (
            "[rows.a]\nmethod = 'unis-mmc'\nlike = 'a'\n",
            "row a: like: 'a' has no trials of its own",
        ),
        ("[rows.a]\ncleaning = 'papr'\n", "row a: .*no cleaning 'papr'"),
        ("[rows.a]\ntable = '8'\n", "Row a: there is no table '8'"),
        ("[tables.7]\nrows = ['gated']\n", "table 7: There is no row 'gated'"),
        ("[rows.a]\nencoder = 'cnn'\n", "row a: The encoder 'cnn' gives words"),
    ],
)
def test_a_file_of_rows_that_is_wrong_is_refused_by_row_and_key(tmp_path, text, message):
    (tmp_path / "rows.toml").write_text(text)
    with pytest.raises(SgmftError, match=message):
        make_plan("1", "", file=tmp_path / "rows.toml")
