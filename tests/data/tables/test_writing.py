import datetime
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, strategies as st

from sgmft.data.tables import open_table, open_writer, parquet, read_posts
from sgmft.data.tables.cells import says_nothing
from sgmft.data.tables.columns import NAMES, fold_name
from sgmft.errors import SgmftError

FORMATS = ["csv", "tsv", "jsonl", "ndjson", "parquet"]  # of xlsx see test_xlsx.py
awkward = st.text(max_size=12) | st.sampled_from(
    ["a\nb", "a\r\nb", "\r", '"', 'x"y', ",", ";", "\t", "😀", " a ", "=1+1", "\ufeff", "\0", "|"]
)


def write(path: Path, batches: list[list[dict]], columns: list[str]) -> list[dict]:
    with open_writer(path, columns) as writer:
        for rows in batches:
            writer.write(rows)
    return [row.values for row in open_table(path).rows]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("columns", [["text", "label"], ["text"]])  # one keeps empty rows, too
@given(rows=st.lists(st.tuples(awkward, awkward), min_size=1, max_size=5))
def test_texts_come_back(tmp_path, suffix, columns, rows):
    # more of them may stand where UTF-16 without a mark has its zeros
    assume(sum(text.count("\0") for row in rows for text in row) <= 3)
    # a row of names of columns is a header again, and left out with a warning
    assume(not any(all(fold_name(x) in NAMES for x in row[: len(columns)]) for row in rows))
    records = [dict(zip(columns, row, strict=False)) for row in rows]
    path = tmp_path / f"out.{suffix}"
    assert write(path, [records], columns) == records
    texts = ["" if says_nothing(text) else text for text, _ in rows]
    assert [post.text for post in read_posts(path)] == texts
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


cells = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
batches_of_cells = st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=4)


@given(batches=batches_of_cells)
def test_jsonl_keeps_every_value(tmp_path, batches):
    rows = [[{"text": value} for value in batch] for batch in batches]
    read = write(tmp_path / "out.jsonl", rows, ["text"])
    assert json.dumps(read) == json.dumps([row for batch in rows for row in batch])


@given(batches=batches_of_cells)
def test_parquet_takes_any_values_in_any_order(tmp_path, batches):
    values = [value for batch in batches for value in batch]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "GROUP_ROWS", 2)
        rows = [[{"text": value} for value in batch] for batch in batches]
        read = [row["text"] for row in write(tmp_path / "out.parquet", rows, ["text"])]
    assert len(read) == len(values)
    for got, wanted in zip(read, values, strict=True):
        if wanted is None or isinstance(wanted, str):
            assert got == wanted
        elif isinstance(got, str):
            assert json.loads(got) == wanted
        else:
            assert got == wanted
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], "int64"),
        ([1, 0.5], "double"),
        ([2**53 + 1, 0.5], "string"),
        ([0.5, 2**53 + 1], "string"),
        ([True, 1], "string"),
        ([None, 1], "int64"),
        ([None, None], "string"),
        ([2**80], "string"),
        ([[], ["a"]], "list<element: string>"),
        ([datetime.date(2024, 5, 1)], "date32[day]"),
        ([{"a": 1}], "string"),
    ],
)
def test_parquet_types(tmp_path, monkeypatch, values, kind):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1)
    write(tmp_path / "t.parquet", [[{"text": value} for value in values]], ["text"])
    assert str(pq.read_schema(tmp_path / "t.parquet").field("text").type) == kind


def test_parquet_keeps_the_hours_when_dates_are_mixed(tmp_path):
    day, hour = datetime.date(2024, 5, 1), datetime.datetime(2024, 5, 1, 7, 30)
    rows = [{"text": day}, {"text": hour}]
    read = write(tmp_path / "o.parquet", [rows], ["text"])
    assert [row["text"] for row in read] == ["2024-05-01", "2024-05-01 07:30:00"]


def test_parquet_of_no_rows(tmp_path):
    assert write(tmp_path / "out.parquet", [], ["text", "label"]) == []
    assert open_table(tmp_path / "out.parquet").columns == ["text", "label"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_kinds_of_values(tmp_path, suffix):
    row = {
        "text": "家\ud800",
        "image": [Path("a.jpg"), "b.jpg"],
        "p": np.float32(0.5),
        "n": float("nan"),
        "yes": True,
        "far": float("-inf"),
        "raw": b"caf\xe9",
    }
    (read,) = write(tmp_path / f"o.{suffix}", [[row]], [*row, "gone"])
    delimited = suffix in ("csv", "tsv")
    assert read == {
        "text": "家�",
        "image": '["a.jpg", "b.jpg"]' if delimited else ["a.jpg", "b.jpg"],
        "p": "0.5" if delimited else 0.5,
        "n": "" if delimited else None,
        "yes": "true" if delimited else True,
        "far": float("-inf") if suffix == "parquet" else "-inf",
        "raw": r"caf\xe9",
        "gone": "" if delimited else None,
    }
    (post,) = read_posts(tmp_path / f"o.{suffix}")
    assert post.images == (tmp_path / "a.jpg", tmp_path / "b.jpg")


def test_csv_is_for_excel_and_formulas_stay(tmp_path):
    write(tmp_path / "o.csv", [[{"text": "=1+1"}]], ["text"])
    assert (tmp_path / "o.csv").read_bytes() == b"\xef\xbb\xbftext\r\n=1+1\r\n"


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_exception_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"o.{suffix}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), open_writer(path, ["text"]) as writer:
        writer.write([{"text": "new"}])
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "o.csv"
    with open_writer(path, ["text"]) as writer:
        writer.write([{"text": "a"}])
        assert not path.exists()
    assert path.exists() and list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    mine, other = tmp_path / ".out[1].csv.0a.tmp", tmp_path / ".out.csv.0b.tmp"
    for leftover in (mine, other):
        leftover.write_text("half a")
    write(tmp_path / "out[1].csv", [[{"text": "a"}]], ["text"])
    assert not mine.exists() and other.exists(), "of this file, and no other"


def test_a_link_keeps_pointing(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "o.csv"
    link.symlink_to(tmp_path / "real" / "o.csv")
    write(link, [[{"text": "a"}]], ["text"])
    assert link.is_symlink() and (tmp_path / "real" / "o.csv").exists()


def test_standard_output(capfdbinary):
    with open_writer("-", ["text", "label"]) as writer:
        writer.write([{"text": "家\n"}])
    assert json.loads(capfdbinary.readouterr().out) == {"text": "家\n", "label": None}
    assert not sys.stdout.closed


@pytest.mark.parametrize(
    ("name", "columns", "error", "match"),
    [
        ("o.xls", ["a"], SgmftError, r"\.csv, \.tsv, \.jsonl"),
        ("folder", ["a"], SgmftError, "is no table sgmft can write"),
        ("d.csv", ["a"], SgmftError, "is a folder"),
        ("o.csv", ["a", "a"], ValueError, "named twice"),
        ("o.csv", ["b"], ValueError, "none of the columns"),
        ("file/o.csv", ["a"], SgmftError, "cannot be written"),
    ],
)
def test_mistakes(tmp_path, name, columns, error, match):
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error, match=match), open_writer(tmp_path / name, columns) as writer:
        writer.write([{"a": 1}])
    assert not (tmp_path / "o.csv").exists()
