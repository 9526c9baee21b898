"""Predictions as a folder of shards: whole and in order, however often the job was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.jobs.cluster.pieces import PieceTask, run_here
from sgmft.jobs.predict import ModelFolder, predict_table
from sgmft.locator.abstention import Abstention

ROWS = 10


@pytest.fixture(scope="module")
def model(small_model: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    return ModelFolder(str(folder))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Three tables of 37 rows in all, two of them bad, with columns that only some have."""
    folder = tmp_path / "parts"
    folder.mkdir()
    words = ["sofa bed", "exam desk", "boss office"]
    rows: list[dict[str, Any]] = [{"text": words[i % 3], "n": i} for i in range(37)]
    rows[4]["n"] = 4.5
    rows[20] = {"text": "", "label": "School", "tags": ["a"]}
    rows[36] = {"text": "bed", "image": "missing.png", "n": 2}
    for name, some in (("a", rows[:12]), ("b", rows[12:34]), ("c", rows[34:])):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(x) for x in sorted(folder.glob("part-*.parquet"))])


def predict(parts: Path, output: Path, model: ModelFolder, **more: Any) -> JobSummary:
    return predict_table(Source(str(parts)), output, model, **{"shard_rows": ROWS} | more)


def stopping_after(count: int) -> Callable[[PieceTask], Iterator[JobSummary]]:
    """An engine that is stopped after so many pieces."""

    def engine(task: PieceTask) -> Iterator[JobSummary]:
        for number, summary in enumerate(run_here(task), 1):
            yield summary
            if number == count:
                raise KeyboardInterrupt

    return engine


def test_shards_in_order_are_the_table_that_is_written_as_one(
    parts: Path, model: ModelFolder, small_model: Any, tmp_path: Path
) -> None:
    rules = Abstention(min_probability=0.4)
    summary = predict(parts, tmp_path / "out", model, abstain=rules)
    source = Source(str(parts))
    assert summary == predict_table(source, tmp_path / "one.parquet", small_model, abstain=rules)
    one, many = pq.read_table(tmp_path / "one.parquet"), read(tmp_path / "out")
    assert many.column_names == one.column_names
    assert many.schema.types == one.schema.types
    for ours, theirs in zip(many.to_pylist(), one.to_pylist(), strict=True):
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            if isinstance(value, float):  # to rounding: the batches are others
                value, theirs[name] = round(value, 5), round(theirs[name], 5)
            assert value == theirs[name]
    assert summary.posts == 37 and sum(summary.errors.values()) == 2


def test_all_shards_have_one_schema_and_are_read_as_one_dataset(
    parts: Path, model: ModelFolder, tmp_path: Path
) -> None:
    import duckdb

    predict(parts, tmp_path / "out", model)
    shards = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert [x.name[:17] for x in shards] == [
        f"part-0000{table}-00000{number}"
        for table, number in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]
    ]
    assert len({tuple(pq.read_schema(x)) for x in shards}) == 1
    found = duckdb.sql(f"select count(*), count(label) from '{tmp_path}/out/*.parquet'").fetchall()
    assert found == [(37, 35)]


def test_a_stopped_job_goes_on_and_ends_as_one_that_was_not(
    parts: Path, model: ModelFolder, tmp_path: Path
) -> None:
    predict(parts, tmp_path / "whole", model)
    with pytest.raises(KeyboardInterrupt):
        predict(parts, tmp_path / "out", model, engine=stopping_after(2))
    kept = {x: x.stat().st_mtime_ns for x in (tmp_path / "out").glob("part-*")}
    assert len(kept) == 2
    counts: list[int] = []
    predict(parts, tmp_path / "out", model, on_predicted=counts.append)
    assert counts == [10, 12, 22, 32, 34, 37], "what was done before is counted too"
    assert {x: x.stat().st_mtime_ns for x in kept} == kept, "and is not done again"
    for shard in (tmp_path / "whole").glob("part-*"):
        assert shard.read_bytes() == (tmp_path / "out" / shard.name).read_bytes()


def test_a_finished_job_is_not_done_again(parts: Path, model: ModelFolder, tmp_path: Path) -> None:
    def refusing(task: PieceTask) -> Iterator[JobSummary]:
        assert [piece for table in range(len(task.sources)) for piece in task.pieces(table)] == []
        yield from ()

    first = predict(parts, tmp_path / "out", model)
    assert predict(parts, tmp_path / "out", model, engine=refusing) == first


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_damaged_shard_is_named_set_aside_and_written_again(
    model: ModelFolder, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "t.csv").write_text("text\nsofa\nexam desk\nboss\n", encoding="utf-8")
    predict(folder / "t.csv", folder / "out", model)
    [shard] = (folder / "out").glob("part-*")
    whole = shard.read_bytes()
    if data.draw(st.booleans(), "truncated"):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1), "length")]
    else:
        at = data.draw(st.integers(0, len(whole) * 8 - 1), "bit")
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
    shard.write_bytes(damaged)
    with pytest.warns(SgmftWarning, match=shard.name):
        predict(folder / "t.csv", folder / "out", model)
    assert shard.read_bytes() == whole
    assert (folder / "out" / f"_damaged-{shard.name}").read_bytes() == bytes(damaged)


def test_a_shard_damaged_before_the_end_is_not_called_done(
    parts: Path, model: ModelFolder, tmp_path: Path
) -> None:
    def damaging(task: PieceTask) -> Iterator[JobSummary]:
        for summary in run_here(task):
            yield summary
            for shard in (tmp_path / "out").glob("part-00001-000001-*"):
                shard.write_bytes(shard.read_bytes()[:-1])

    with (
        pytest.warns(SgmftWarning, match="part-00001-000001-"),
        pytest.raises(SgmftError, match="of 37 rows that were written only 27 are whole: run the"),
    ):
        predict(parts, tmp_path / "out", model, engine=damaging)
    assert not (tmp_path / "out" / "_done.json").exists()
    assert predict(parts, tmp_path / "out", model).posts == 37
    assert json.loads((tmp_path / "out" / "_done.json").read_text())["posts"] == 37


@pytest.mark.parametrize("change", ["rules", "rows", "input", "where"])
def test_another_jobs_folder_is_refused(
    parts: Path, model: ModelFolder, tmp_path: Path, change: str
) -> None:
    predict(parts, tmp_path / "out", model)
    more: dict[str, Any] = {"shard_rows": ROWS}
    source = Source(str(parts))
    if change == "rules":
        more["abstain"] = Abstention(min_probability=0.5)
    elif change == "rows":
        more["shard_rows"] = ROWS + 1
    elif change == "input":
        with (parts / "a.jsonl").open("a") as file:
            file.write('{"text": "one more"}\n')
    else:
        source = Source(str(parts), where={"n": "1"})
    named = {"input": "tables"}.get(change, change)
    with pytest.raises(SgmftError, match=rf"another job's result, which differs in {named}:"):
        predict_table(source, tmp_path / "out", model, **more)


def test_a_folder_with_other_files_is_refused(
    parts: Path, model: ModelFolder, tmp_path: Path
) -> None:
    with pytest.raises(SgmftError, match="holds other files"):
        predict(parts, parts, model)


def test_a_damaged_description_of_the_job_is_named(
    parts: Path, model: ModelFolder, tmp_path: Path
) -> None:
    predict(parts, tmp_path / "out", model)
    (tmp_path / "out" / "_job.json").write_text('{"model": ')
    with pytest.raises(SgmftError, match=r"_job\.json is damaged"):
        predict(parts, tmp_path / "out", model)


def test_strict_stops_at_the_first_bad_row(parts: Path, model: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(SgmftError, match=r"b\.jsonl, row 9: nothing to go on"):
        predict_table(Source(str(parts), strict=True), tmp_path / "out", model, shard_rows=ROWS)


def test_parquet_keeps_its_types(model: ModelFolder, tmp_path: Path) -> None:
    given = {
        "text": pa.array(["sofa", "desk"]),
        "when": pa.array([0, 1], pa.timestamp("ms", "UTC")),
        "day": pa.array([1, None], pa.date32()),
        "small": pa.array([1, 2], pa.int8()),
        "share": pa.array([0.5, None], pa.float32()),
        "tags": pa.array([["a"], []]),
        "nested": pa.array([{"a": 1}, None]),
        "label": pa.array(["x", "y"]),
    }
    pq.write_table(pa.table(given), tmp_path / "t.parquet")
    predict(tmp_path / "t.parquet", tmp_path / "out", model)
    found = read(tmp_path / "out")
    kinds = {field.name: str(field.type) for field in found.schema}
    assert [kinds[name] for name in ("when", "day", "small", "share", "nested")] == [
        "timestamp[us, tz=UTC]",
        "date32[day]",
        "int64",
        "double",
        "string",
    ]
    assert found["tags"].to_pylist() == [["a"], []]
    assert found["nested"].to_pylist() == ['{"a": 1}', None]
    assert found["input_label"].to_pylist() == ["x", "y"]
    assert found["when"].to_pylist() == pq.read_table(tmp_path / "t.parquet")["when"].to_pylist()


def test_times_that_python_has_no_word_for_are_texts(model: ModelFolder, tmp_path: Path) -> None:
    late = pa.array([0, 253_402_300_800], pa.timestamp("s"))  # the year 10000
    days = pa.array([-(10**6), 1], pa.int32()).cast(pa.date32())
    given = {"text": pa.array(["sofa", "desk"]), "late": late, "day": days}
    given["ok"] = pa.array([0, 1], pa.timestamp("s"))
    pq.write_table(pa.table(given), tmp_path / "t.parquet")
    predict(tmp_path / "t.parquet", tmp_path / "out", model)
    found = read(tmp_path / "out")
    assert found["late"].to_pylist()[1].startswith("10000-01-01")
    assert [str(found.schema.field(name).type) for name in ("late", "day", "ok")] == [
        "string",
        "string",
        "timestamp[us]",
    ]


@pytest.mark.parametrize("table", ["missing.csv", "-"])
def test_what_cannot_be_read_in_pieces_is_said(
    model: ModelFolder, tmp_path: Path, table: str
) -> None:
    expected = "read once only" if table == "-" else "There is no file"
    with pytest.raises(SgmftError, match=expected):
        predict_table(Source(table), tmp_path / "out", model)
    assert not (tmp_path / "out").exists()
