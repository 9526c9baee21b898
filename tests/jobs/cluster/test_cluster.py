"""Jobs on a real Ray cluster of two nodes on this machine, one of which is lost."""

import json
import os
import signal
import sys
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgmft import SemanticLocator, read_posts
from sgmft.data.source import JobSummary, Source
from sgmft.errors import SgmftError
from sgmft.jobs.cluster.pieces import PieceTask
from sgmft.jobs.cluster.ray import RayEngine
from sgmft.jobs.encode import encode_table
from sgmft.jobs.predict import ModelFolder, predict_table

ray = pytest.importorskip("ray", reason="needs the extra sgmft[scale]")

from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture(scope="module")
def parts(tmp_path_factory, sample):
    """Three tables of 300 texts in all, every one another, one row bad."""
    folder = tmp_path_factory.mktemp("parts")
    texts = [json.loads(line)["text"] for line in sample.read_text("utf-8").splitlines()]
    rows = [{"id": f"p{i}", "text": f"{texts[i % len(texts)]} 第{i}天"} for i in range(300)]
    rows[150]["text"] = ""
    for k, start in enumerate((0, 90, 200)):
        some = rows[start : (90, 200, 300)[k]]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (folder / f"{k}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one processor each; the second is there to be lost by the last test."""
    memory = {"object_store_memory": 80 * 2**20, "num_cpus": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # not starved by the tests beside it
        head = {**memory, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.doomed = cluster.add_node(**memory)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture
def engine(cluster):
    engine = RayEngine(cluster.address, workers=1)
    yield engine
    engine.close()


def read(folder):
    shards = [pq.read_table(x) for x in sorted(folder.glob("part-*.parquet"))]
    return pa.concat_tables(shards).to_pylist() if shards else []


def wait_for(there, process):
    end = time.monotonic() + 300
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing was written in five minutes"
        time.sleep(0.05)


def count(loaded, source, piece):
    return iter([JobSummary(len(piece.posts))])


@pytest.mark.slow
def test_workers_load_the_plugin_of_an_encoder(engine, counts, parts, tmp_path):
    posts = [replace(x, label="AB"[i % 2]) for i, x in enumerate(read_posts(parts / "0.jsonl"))]
    locator = SemanticLocator("counts").fit(posts)
    locator.save_pretrained(tmp_path / "model")
    source, model = Source(str(parts / "0.jsonl")), ModelFolder(str(tmp_path / "model"))
    predict_table(source, tmp_path / "out", model, engine=engine)
    assert [row["label"] for row in read(tmp_path / "out")] == locator.predict(posts)


@pytest.mark.parametrize(
    ("output", "words", "expected"),
    [
        (
            "out",
            ["--engine", "ray", "--address", "127.0.0.1:1"],
            "There is no Ray cluster at 127.0.0.1:1",
        ),
        ("out", ["--engine", "spark"], "There is no engine 'spark': use local, ray"),
        ("out", ["--workers", 2], "--address and --workers are for --engine ray"),
        ("o.csv", ["--engine", "ray"], "is one file: for shards, give the name of a folder"),
    ],
)
def test_engines_that_are_not_there(run, trained, parts, tmp_path, output, words, expected):
    done = run("predict", trained, parts, "-o", tmp_path / output, *words)
    assert done.returncode == 2 and expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_is_wrong_with_a_table_is_told_in_its_own_words(engine, tmp_path):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.raises(SgmftError, match=r"^There is no file .*missing\.csv"):
        table = Source(str(tmp_path / "missing.csv"))
        how = {"load": bool, "work": count}
        list(engine(PieceTask(sources=[table], folder=tmp_path, rows=10, **how)))


@pytest.mark.slow
def test_features_encoded_on_a_cluster_are_those_encoded_here(parts, engine, tmp_path):
    source = Source(str(parts))
    here, there = (SemanticLocator(features=tmp_path / name) for name in ("here", "there"))
    summary, theirs = encode_table(source, here, tokens=False)
    same, ours = encode_table(source, there, tokens=False, engine=engine)
    assert same == summary and [ours] == [*(tmp_path / "there").glob("*-pooled-*")]
    keys = [sorted(row["key"] for row in read(x)) for x in (ours, theirs)]
    assert keys[0] == keys[1] and len(keys[0]) == 299
    posts = read_posts(parts)
    stored, fresh = (x.encode(posts, tokens=False).features for x in (there, here))
    assert abs(stored.text - fresh.text).max() < 1e-5


@pytest.mark.slow
def test_a_killed_job_and_a_lost_node_cost_no_post_and_repeat_none(
    parts, trained, cluster, start, tmp_path
):
    out = tmp_path / "out"
    words = ["predict", trained, parts, "-o", out, "--shard-rows", 10]
    words += ["--engine", "ray", "--address", cluster.address]
    job = start(*words)
    wait_for(lambda: len([*out.glob("part-*")]) >= 2, job)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    kept = {x.name: x.stat().st_mtime_ns for x in out.glob("part-*")}
    job = start(*words)
    wait_for(lambda: len([*out.glob("part-*")]) >= len(kept) + 3, job)
    cluster.remove_node(cluster.doomed, allow_graceful=False)
    _, stderr = job.communicate(timeout=300)
    assert job.returncode == 0, stderr
    assert "1 of 300 rows could not be used" in stderr and "Traceback" not in stderr
    assert kept.items() <= {x.name: x.stat().st_mtime_ns for x in out.glob("part-*")}.items()
    locator = SemanticLocator.from_pretrained(trained)
    predict_table(Source(str(parts)), tmp_path / "here.jsonl", locator)
    here = [json.loads(line) for line in (tmp_path / "here.jsonl").open(encoding="utf-8")]
    there = read(out)
    assert [row["id"] for row in there] == [f"p{i}" for i in range(300)]
    for ours, theirs in zip(there, here, strict=True):
        assert all(ours[name] == theirs[name] for name in ("id", "label", "error"))
        if theirs["error"] is None:
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
