"""The fusion module of docs/compare.md does what it says, and is a row of a real comparison."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from sgmft.errors import SgmftError
from sgmft.models import registry
from sgmft.models.fusions import FUSIONS
from test_readme import blocks


@pytest.fixture
def plugin(tmp_path):
    """The example's file; what it registers is taken away again."""
    (code,) = [block for block in blocks("docs/compare.md", "python") if "FUSIONS[" in block]
    (tmp_path / "gated_sum.py").write_text(code)
    loaded, before = registry.LOADED.copy(), FUSIONS.copy()
    registry.LOADED.clear()
    yield tmp_path / "gated_sum.py"
    registry.LOADED[:] = loaded
    FUSIONS.clear()
    FUSIONS.update(before)


def test_the_example_is_the_formula_it_prints(plugin):
    from sgmft.models import fusions

    registry.load_plugin(plugin)
    registry.load_plugin(plugin)  # a second time does nothing
    assert [str(plugin)] == registry.LOADED
    module = fusions.FUSIONS["gated-sum"](4, None, 2)
    text, image = torch.randn(3, 5, 4), torch.randn(3, 2, 4)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] + [False] * 4])
    fused = module(text, image, mask, torch.ones(3, 2, dtype=torch.bool))
    for b, words in enumerate((5, 2, 1)):
        t, v = text[b, :words].mean(0), image[b].mean(0)
        z = torch.sigmoid(module.gate.weight @ torch.cat([t, v]) + module.gate.bias)
        torch.testing.assert_close(fused[b], z * t + (1 - z) * v)


@pytest.mark.slow
def test_a_comparison_on_the_command_line(plugin, run, sample, store, tmp_path):
    words = ["--plugin", plugin, "compare", sample, "-o", tmp_path / "report", "--tables", "3"]
    words += ["--figures", "8", "--methods", "gated-sum,sgmft-tokens", "--seeds", 1]
    words += ["--trials", 1, "--epochs", 1, "--features", store, "--by", "informative"]
    done = run(*words, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "gated-sum" in done.stderr and "SG-MFT (tokens)" in done.stderr
    assert str(tmp_path / "report" / "report.html") in done.stderr
    files = {file.name for file in (tmp_path / "report").iterdir()}
    assert {"report.html", "report.md", "results.json", "predictions.parquet"} <= files
    assert {"figure-8.svg", "figure-8.pdf", "figure-8.png", "runs.csv", "paper.tex"} <= files
    (table,) = json.loads((tmp_path / "report" / "results.json").read_text("utf-8"))
    lines = {line["key"]: line for line in table["lines"]}
    rows = pq.read_table(tmp_path / "report" / "predictions.parquet").to_pylist()
    assert {row["row"] for row in rows} == set(lines) == {"gated-sum", "sgmft-tokens"}
    labels = [name for name in rows[0] if name.startswith("p_")]
    for key, line in lines.items():
        mine = [row for row in rows if row["row"] == key]
        right = [max(labels, key=row.get) == f"p_{row['true_label']}" for row in mine]
        assert line["summary"]["accuracy"]["mean"] == pytest.approx(sum(right) / len(right))
        groups = line["summary"]["groups"]["informative"].values()
        assert sum(group["posts"] for group in groups) == len(mine)
        assert line["against"] is None or {"value", "p", "p_holm"} < line["against"].keys()
        assert {"view", "learning_rate"} < line["settings"].keys()
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "gated-sum" in page and "sgmft --plugin" in page


@pytest.mark.slow
def test_a_folder_grows_row_by_row_and_can_be_looked_at(run, sample, store, tmp_path):
    """Text cleaned by the paper is another encoder setting; neither makes the other forgotten."""
    words = ["compare", sample, "-o", tmp_path / "r", "--figures", "", "--seeds", 1, "--trials", 1]
    words += ["--features", store, "--workers", 1]
    for tables, methods in (("1", "text-only"), ("5", "cleaning-paper")):
        done = run(*words, "--tables", tables, "--methods", methods, "--epochs", 1)
        assert done.returncode == 0, done.stderr
    done = run(*words, "--tables", "1,5", "--epochs", 1, "--finished-only")
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "r" / "results.json").read_text("utf-8"))
    found = {line["key"] for table in tables for line in table["lines"] if line["summary"]}
    assert found == {"text-only", "gated-experts", "cleaning-paper"}
    other = run("compare", sample, "-o", tmp_path / "new", "--finished-only")
    assert other.returncode == 2 and "Nothing is finished" in other.stderr


@pytest.mark.slow
def test_splits_are_written_for_others(run, sample, store, tmp_path):
    words = ["compare", sample, "--tables", "1", "--figures", "", "--methods", "text-only"]
    words += ["--seeds", 1, "--features", store, "--workers", 1, "-o"]
    done = run(*words, tmp_path / "one", "--folds", 2, "--split-seed", 3, "--split-by", "label")
    assert done.returncode == 0, done.stderr
    done = run(*words, tmp_path / "two", "--splits", tmp_path / "one" / "splits.csv")
    assert done.returncode == 0, done.stderr
    (tmp_path / "one" / "cells").rename(tmp_path / "cells")  # all is done again, and alike
    done = run("compare", "--config", tmp_path / "one" / "config.toml", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "cells").iterdir())) == 4
    one, two = ((tmp_path / x / "splits.csv").read_bytes() for x in ("one", "two"))
    assert one == two and one.count(b"test") >= 26
    cells = [{x.name for x in (tmp_path / name / "cells").iterdir()} for name in ("one", "two")]
    assert cells[0] == cells[1] and len(cells[0]) == 2 * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tables 9", "There is no table '9'"),
        ("--methods nobody", "no method to compare 'nobody'"),
        ("--by season", "no column 'season'"),
        ("--test split", "write it as NAME=VALUE"),
        ("--test split=never", "split=never: both are needed"),
        ("-o .", "choose a new folder"),
        ("--test split=test --folds 2", "--test and --folds do not go together"),
        ("--splits thesis.txt", "thesis.txt"),
    ],
)
def test_mistakes_on_the_command_line(run, sample, store, tmp_path, words, message):
    (tmp_path / "thesis.txt").write_text("mine")
    words = ["compare", sample, "-o", "report", "--features", store, *words.split()]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_plugin_that_is_not_there_or_broken(tmp_path):
    with pytest.raises(SgmftError, match="no Python file"):
        registry.load_plugin(tmp_path / "nothing.py")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(SgmftError, match="ZeroDivisionError"):
        registry.load_plugin(tmp_path / "broken.py")
