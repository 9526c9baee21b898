"""Predictions as a folder of shards: whole and in order, however often the job was stopped."""

import json
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from sgmft.data.posts import Post
from sgmft.data.source import Source
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.jobs.cluster.pieces import Piece, run_here
from sgmft.jobs.cluster.ray import MAX_ATTEMPTS, attempt, clear_attempts
from sgmft.jobs.predict import ModelFolder, predict_table
from sgmft.locator.abstention import Abstention

ROWS = 10


@pytest.fixture(scope="module")
def model(small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    return ModelFolder(str(folder))


@pytest.fixture
def parts(tmp_path):
    """Three tables of 37 rows in all, two of them bad, with columns that only some have."""
    words = ["sofa bed", "exam desk", "boss office"]
    rows = [{"text": words[i % 3], "n": i} for i in range(37)]
    rows[4]["n"] = 4.5
    rows[20] = {"text": "", "label": "School", "tags": ["a"]}
    rows[36] = {"text": "", "image": "missing.png", "n": 2}
    (tmp_path / "parts").mkdir()
    for name, some in (("a", rows[:12]), ("b", rows[12:34]), ("c", rows[34:])):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / "parts" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path / "parts"


def read(folder):
    return pa.concat_tables([pq.read_table(x) for x in sorted(folder.glob("part-*.parquet"))])


@pytest.fixture
def out(tmp_path):
    """The folder of shards."""
    return tmp_path / "out"


@pytest.fixture
def predict(model, parts, out):
    """Predicts a table, by default the three parts, to shards of ten rows."""

    def predict(table=parts, output=out, source=(), **options):
        source = Source(str(table), **dict(source))
        return predict_table(source, output, model, **{"shard_rows": ROWS} | options)

    return predict


def test_shards_in_order_are_the_table_that_is_written_as_one(predict, parts, small_model, out):
    rules, whole = Abstention(min_probability=0.4), out.with_suffix(".parquet")
    summary = predict(abstain=rules)
    assert summary == predict_table(Source(str(parts)), whole, small_model, abstain=rules)
    one, many = pq.read_table(whole), read(out)
    assert many.column_names == one.column_names and many.schema.types == one.schema.types
    for ours, theirs in zip(many.to_pylist(), one.to_pylist(), strict=True):
        # Numbers to rounding: the batches are others.
        assert ours == {k: pytest.approx(x, abs=1e-5) for k, x in theirs.items()}
    assert summary.posts == 37 and sum(summary.errors.values()) == 2


def test_all_shards_have_one_schema_and_are_read_as_one_dataset(predict, out):
    import duckdb

    predict()
    shards = sorted(out.glob("part-*.parquet"))
    pieces = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert [x.name[:17] for x in shards] == [f"part-0000{x}-00000{y}" for x, y in pieces]
    assert len({tuple(pq.read_schema(x)) for x in shards}) == 1
    found = duckdb.sql(f"select count(*), count(label) from '{out}/*.parquet'").fetchall()
    assert found == [(37, 35)]


def test_a_stopped_job_goes_on_and_ends_as_one_that_was_not(predict, out, tmp_path):
    def stopped(task):
        for number, summary in enumerate(run_here(task), 1):
            yield summary
            if number == 2:
                raise KeyboardInterrupt

    def refusing(task):
        assert [piece for table in range(len(task.sources)) for piece in task.pieces(table)] == []
        yield from ()

    predict(output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        predict(engine=stopped)
    kept = {x: x.stat().st_mtime_ns for x in out.glob("part-*")}
    assert len(kept) == 2
    counts = []
    summary = predict(on_predicted=counts.append)
    assert counts == [10, 12, 22, 32, 34, 37], "what was done before is counted too"
    assert {x: x.stat().st_mtime_ns for x in kept} == kept, "and is not done again"
    for shard in (tmp_path / "whole").glob("part-*"):
        assert shard.read_bytes() == (out / shard.name).read_bytes()
    assert predict(engine=refusing) == summary


@given(st.data())
def test_a_damaged_shard_is_named_set_aside_and_written_again(model, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "t.csv").write_text("text\nsofa\nexam desk\nboss\n", encoding="utf-8")
    predict = partial(predict_table, Source(str(folder / "t.csv")), folder / "out", model)
    predict()
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
        predict()
    assert shard.read_bytes() == whole
    assert (folder / "out" / f"_damaged-{shard.name}").read_bytes() == bytes(damaged)


def test_a_shard_damaged_before_the_end_is_not_called_done(predict, out):
    def damaging(task):
        for summary in run_here(task):
            yield summary
            for shard in out.glob("part-00001-000001-*"):
                shard.write_bytes(shard.read_bytes()[:-1])

    with (
        pytest.warns(SgmftWarning, match="part-00001-000001-"),
        pytest.raises(SgmftError, match="of 37 rows that were written only 27 are whole: run the"),
    ):
        predict(engine=damaging)
    assert not (out / "_done.json").exists()
    assert predict().posts == 37
    assert json.loads((out / "_done.json").read_text())["posts"] == 37


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"abstain": Abstention(min_probability=0.5)}, "rules"),
        ({"shard_rows": ROWS + 1}, "rows"),
        ({"source": {"where": {"n": "1"}}}, "where"),
        ({}, "tables"),
    ],
)
def test_another_jobs_folder_is_refused(predict, parts, out, options, differs):
    predict()
    if differs == "tables":
        with (parts / "a.jsonl").open("a") as file:
            file.write('{"text": "one more"}\n')
    with pytest.raises(SgmftError, match=rf"another job's result, which differs in {differs}:"):
        predict(**options)
    (out / "_job.json").write_text('{"model": ')
    with pytest.raises(SgmftError, match=r"_job\.json is damaged"):
        predict()


def test_what_cannot_be_predicted_in_pieces(predict, parts, out):
    with pytest.raises(SgmftError, match="holds other files"):
        predict(output=parts)
    for table, message in (("-", "read once only"), ("missing.csv", "There is no file")):
        with pytest.raises(SgmftError, match=message):
            predict(table)
        assert not out.exists()
    with pytest.raises(SgmftError, match=r"b\.jsonl, row 9: nothing to go on"):
        predict(source={"strict": True})


def test_parquet_keeps_its_types(predict, out, tmp_path):
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
    predict(tmp_path / "t.parquet")
    found = read(out)
    kinds = {field.name: str(field.type) for field in found.schema}
    assert (kinds["when"], kinds["day"]) == ("timestamp[us, tz=UTC]", "date32[day]")
    assert (kinds["small"], kinds["share"], kinds["nested"]) == ("int64", "double", "string")
    assert found["tags"].to_pylist() == [["a"], []]
    assert found["nested"].to_pylist() == ['{"a": 1}', None]
    assert found["input_label"].to_pylist() == ["x", "y"]
    assert found["when"].to_pylist() == pq.read_table(tmp_path / "t.parquet")["when"].to_pylist()


def test_times_that_python_has_no_word_for_are_texts(predict, out, tmp_path):
    late = pa.array([0, 253_402_300_800], pa.timestamp("s"))  # the year 10000
    days = pa.array([-(10**6), 1], pa.int32()).cast(pa.date32())
    given = {"text": pa.array(["sofa", "desk"]), "late": late, "day": days}
    given["ok"] = pa.array([0, 1], pa.timestamp("s"))
    pq.write_table(pa.table(given), tmp_path / "t.parquet")
    predict(tmp_path / "t.parquet")
    found = read(out)
    assert found["late"].to_pylist()[1].startswith("10000-01-01")
    kinds = [str(found.schema.field(name).type) for name in ("late", "day", "ok")]
    assert kinds == ["string", "string", "timestamp[us]"]


# --- pieces under which workers die

POSTS = [Post("a", place="0.jsonl, row 41"), Post("b", place="0.jsonl, row 42")]
held = []  # attempts that never end, as of workers that are killed under a piece


def die(folder, piece):
    held.append(attempt(folder, piece))
    held[-1].__enter__()


def test_the_piece_is_named_when_its_workers_have_died_too_often(tmp_path):
    piece, other = Piece((0, 4), iter(POSTS)), Piece((0, 41), POSTS)  # as they come
    for _ in range(MAX_ATTEMPTS):
        with attempt(tmp_path, other):
            die(tmp_path, piece)
    with pytest.raises(SgmftError, match=r"posts from 0\.jsonl, row 41 to 0\.jsonl, row 42"):
        die(tmp_path, piece)
    with attempt(tmp_path, other):
        pass
    assert len([*tmp_path.iterdir()]) == MAX_ATTEMPTS, "what ended leaves nothing"
    clear_attempts(tmp_path)  # a job that is given again begins to count anew
    with attempt(tmp_path, piece):
        pass
    assert not [*tmp_path.iterdir()]
