"""A table in, a table of predictions out: nothing lost, nothing out of order, nothing half done."""

import json
from contextlib import contextmanager

import numpy as np
import pytest

import sgmft.jobs.predict
from sgmft.data.source import Source
from sgmft.data.synthetic.sample import write_sample
from sgmft.data.tables import Columns, open_writer
from sgmft.errors import SgmftError
from sgmft.jobs.predict import predict_table
from small_posts import LABELS
from small_tables import file_names, read_rows, write_rows
from small_tables import rows as rows
from small_tables import table as table

ADDED = ["label", "probability", "p_Home", "p_School", "p_Work", "error"]
SUFFIXES = ["csv", "jsonl", "parquet"]


@pytest.mark.parametrize("end", SUFFIXES)
@pytest.mark.parametrize("start", SUFFIXES)
def test_every_row_and_column_comes_back_in_order(
    rows, small_posts, small_model, tmp_path, start, end
):
    table = write_rows(rows, small_posts[0].images[0].parent / f"posts.{start}")
    output = tmp_path / "new" / f"out.{end}"
    seen = []
    summary = predict_table(Source(str(table)), output, small_model, on_predicted=seen.append)
    found = read_rows(output)
    kept = ["id", "text", "image", "input_label", "城市", "likes"]
    assert list(found[0]) == [*kept, *ADDED]
    assert len(found) == summary.posts == seen[-1] == 12
    for row, before in zip(found, rows, strict=True):
        old = [before["label" if name == "input_label" else name] for name in kept]
        assert [row[name] or "" for name in kept] == old
    assert found[3]["error"] == "there is no file gone.jpg" and found[3]["label"] is None
    assert found[3]["p_Home"] is None
    assert summary.errors == {"there is no file …": 1}
    good = [row for row in found if row["error"] is None]
    assert len(good) == 11
    posts = [post for i, post in enumerate(small_posts[:12]) if i != 3]
    probs = [[float(row[f"p_{place}"]) for place in LABELS] for row in good]
    np.testing.assert_allclose(probs, small_model.predict_proba(posts), rtol=1e-6)
    assert [row["label"] for row in good] == small_model.predict(posts)
    assert [float(row["probability"]) for row in good] == [max(chance) for chance in probs]


def test_damaged_rows_come_back_with_a_reason(small_model, tmp_path):
    table = write_sample(tmp_path / "posts", posts=7, damaged=16)
    summary = predict_table(Source(str(table)), tmp_path / "out.jsonl", small_model)
    found = read_rows(tmp_path / "out.jsonl")
    assert len(found) == summary.posts == 23
    lines = table.read_text("utf-8").splitlines()
    assert [row["id"] or row["line"] for row in found] == [
        json.loads(line)["id"] if line.endswith("}") else line for line in lines
    ]
    reasons = {row["damage"]: row["error"] for row in found[7:] if row["damage"]}
    good = {"unknown-label", "nul-in-text", "cmyk-jpeg", "16-bit-png", "animated-gif"}
    good |= {"exif-rotated", "emoji-only"}  # light cleaning keeps emoji
    assert {kind for kind, reason in reasons.items() if reason is None} == good
    (broken,) = (row for row in found if row["line"] is not None)
    assert "not JSON" in broken["error"]
    for kind, word in {
        "truncated-jpeg": "cut off",
        "zero-byte-file": "is empty",
        "text-named-jpg": "is not a picture",
        "missing-file": "there is no file",
        "outside-folder": "outside",
        "huge-png": "pixels",
        "duplicate-id": "already that of row 1",
        "nothing": "nothing to go on",
    }.items():
        assert word in reasons[kind]
    for row in found:
        assert (row["label"] is None) == (row["error"] is not None) == (row["p_Work"] is None)
    assert sum(summary.errors.values()) == sum(row["error"] is not None for row in found) == 9
    with pytest.raises(SgmftError, match=r"posts\.jsonl, row \d+: .+"):
        predict_table(Source(str(table), strict=True), tmp_path / "strict.csv", small_model)
    assert not (tmp_path / "strict.csv").exists()


def test_an_output_can_be_predicted_again(table, small_model, tmp_path):
    first, second = table.with_name("first.csv"), table.with_name("second.csv")
    predict_table(Source(str(table)), first, small_model)
    predict_table(Source(str(first)), second, small_model)
    found = read_rows(second)
    assert len(set(found[0])) == len(found[0])
    once, original = read_rows(first), read_rows(table)
    for row, one, zero in zip(found, once, original, strict=True):
        assert row["input_input_label"] == one["label"] == row["label"]
        assert row["input_label"] == one["input_label"] == (zero["label"] or None)
        assert row["input_probability"] == one["probability"]


@pytest.mark.parametrize("end", SUFFIXES)
def test_an_output_is_whole_or_not_there(table, small_model, tmp_path, end):
    def stop(done):
        raise KeyboardInterrupt

    path = tmp_path / f"out.{end}"
    for earlier in (None, "an earlier one"):
        if earlier is not None:
            path.write_text(earlier)
        with pytest.raises(KeyboardInterrupt):
            predict_table(Source(str(table)), path, small_model, on_predicted=stop)
        assert file_names(tmp_path) == ([path.name] if earlier else [])
    assert path.read_text() == earlier
    predict_table(Source(str(table)), path, small_model)
    assert file_names(tmp_path) == [path.name] and len(read_rows(path)) == 12


@pytest.mark.parametrize("whole", [True, False], ids=["a file", "a folder of parts"])
def test_a_table_is_not_replaced_by_its_own_output(rows, small_model, tmp_path, whole):
    table = write_rows(rows, tmp_path / "parts" / "own.csv")
    before = table.read_bytes()
    (tmp_path / "link.csv").symlink_to(table)
    for output in (table, tmp_path / "link.csv"):
        with pytest.raises(SgmftError, match=r"csv is the table that is read: give .* a new name"):
            predict_table(Source(str(table if whole else table.parent)), output, small_model)
    assert table.read_bytes() == before


def test_memory_holds_a_chunk_whatever_the_table(small_model, tmp_path, monkeypatch):
    """Rows are written while others are not yet read: at most two chunks lie between."""
    count = 1500
    table = write_rows([{"text": f"sofa bed {i}"} for i in range(count)], tmp_path / "big.jsonl")
    taken, written, lags = 0, 0, []

    class Watched(Source):
        def iter_posts(self):
            nonlocal taken
            for post in super().iter_posts():
                taken += 1
                yield post

    @contextmanager
    def watched(path, columns):
        def counted(rows):
            nonlocal written
            lags.append(taken - written)
            written += len(rows)
            write(rows)

        with open_writer(path, columns) as writer:
            write, writer.write = writer.write, counted
            yield writer

    monkeypatch.setattr(sgmft.jobs.predict, "open_writer", watched)
    predict_table(Watched(str(table)), tmp_path / "out.csv", small_model)
    assert taken == written == count
    assert len(lags) >= 5 and max(lags) <= 512
    texts = [row["text"] for row in read_rows(tmp_path / "out.csv")]
    assert texts == [f"sofa bed {i}" for i in range(count)]


def test_outputs_that_cannot_be(table, small_model, tmp_path):
    for path in (tmp_path / "out.xlsx", tmp_path):
        with pytest.raises(SgmftError, match="end its name in"):
            predict_table(Source(str(table)), path, small_model)
    with pytest.raises(SgmftError, match=r"has no column 'txt'.* id, text, image, label"):
        source = Source(str(table), columns=Columns(text="txt"))
        predict_table(source, tmp_path / "out.csv", small_model)
    assert file_names(tmp_path) == []
