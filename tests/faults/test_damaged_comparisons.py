"""Damaged files of a comparison are named, and their work is done again."""

import pytest

from faults import comparison_of
from sgmft.data.source import Source
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.evaluation.compare.catalogue import make_plan
from sgmft.jobs.compare import compare_table

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def compare(table, tmp_path):
    """Runs a comparison, in the same folder each time; the folder."""

    def run(**options):
        asked = {"encoder": "tiny", "seeds": 1, "trials": 2, "epochs": 2, "workers": 1}
        plan = make_plan("1", "", "linear-probe,unis-mmc", **asked, **options)
        folder = tmp_path / "c"
        compare_table(Source(str(table)), folder, plan, features=tmp_path / "features")
        return folder

    return run


@pytest.mark.slow
def test_a_damaged_file_is_named_and_made_again(compare):
    folder = compare()
    wanted = comparison_of(folder)
    patterns = {"cells/*-seed0-*.json": -1, "cells/*-trial-*.json": -1, "predictions/*": 0}
    paths = [sorted(folder.glob(pattern))[i] for pattern, i in patterns.items()]  # of two rows
    whole = [path.read_bytes() for path in paths]

    def change(data):
        if data.startswith(b"{"):  # a number that could well be
            return data.replace(b'"epochs": ', b'"epochs": 1')
        return data[:60] + bytes([data[60] ^ 1]) + data[61:]

    for damage in (lambda data: data[: len(data) // 2], change):
        for path, data in zip(paths, whole, strict=True):
            path.write_bytes(damage(data))
        with pytest.warns(SgmftWarning) as warned:
            compare()
        for path in paths:
            again = f"{path} is damaged: its work is done again"
            assert any(again in str(one.message) for one in warned)
        assert comparison_of(folder) == wanted
        assert paths[-1].read_bytes() == whole[-1]


@pytest.mark.slow
def test_a_damaged_list_of_posts_is_written_anew(compare):
    folder = compare()
    wanted, cells = comparison_of(folder), {x: x.stat().st_ino for x in folder.glob("cells/*")}
    path = folder / "data.json"
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(SgmftError, match=r"data\.json is damaged: leave --finished-only out"):
        compare(finished_only=True)
    with pytest.warns(SgmftWarning, match=f"{path} is damaged"):
        compare()
    assert comparison_of(folder) == wanted
    assert {x: x.stat().st_ino for x in folder.glob("cells/*")} == cells  # found again


def test_half_a_list_of_posts_of_a_killed_process_is_no_obstacle(compare, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".data.json.0123.tmp").write_bytes(b"{")
    assert (compare() / "report.html").exists()
