"""A disk that is full or read-only: a sentence with the fix, nothing half, then the same end."""

from hashlib import sha256
from pathlib import Path

import pytest

from faults import COMPARE, comparison_of, fill, model_of, mounted, shards_of

pytestmark = pytest.mark.usefixtures("tiny")
EPOCHS = ("--preset", "elements", "--set", "epochs=3", "--set", "width=16", "--set", "heads=2")
STORE, TINY = ("--features", "STORE"), ("--encoder", "tiny")
JOBS = {  # words, of which TO is the disk, and what each command leaves on it
    "encode": (("encode", "TABLE", "-o", "TO/f", *TINY), "f"),
    "train": (("train", "TABLE", "-o", "TO/m", *TINY, *STORE), "m"),
    "train in epochs": (("train", "TABLE", "-o", "TO/m", *TINY, *STORE, *EPOCHS), "m"),
    "train, store": (("train", "TABLE", "-o", "MODEL", *TINY, "--features", "TO/f"), "f"),
    "predict": (("predict", "GIVEN", "TABLE", "-o", "TO/p.csv", *STORE), "p.csv"),
    "predict, parquet": (("predict", "GIVEN", "TABLE", "-o", "TO/p.parquet", *STORE), "p.parquet"),
    "compare": (("compare", "TABLE", "-o", "TO/c", *TINY, *STORE, *COMPARE, "--workers", "1"), "c"),
}
READ = {"f": shards_of, "m": model_of, "c": comparison_of}


@pytest.fixture
def words(job, table, small_model, tmp_path):
    """The command of a job with its output in a folder."""
    small_model.save_pretrained(tmp_path / "given")
    places = {"TABLE": table, "STORE": tmp_path / "store", "GIVEN": tmp_path / "given"}
    places["MODEL"] = tmp_path / "m2"
    return lambda to: [
        to / word[3:] if word.startswith("TO/") else places.get(word, word) for word in JOBS[job][0]
    ]


def result(job, to):
    name = JOBS[job][1]
    return READ.get(name, Path.read_bytes)(to / name)


QUICK = ("encode", "train", "predict")
SOME = [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in JOBS]


@pytest.mark.parametrize("job", SOME)
def test_a_full_disk(job, words, run, tmp_path):
    calm = tmp_path / "calm"
    assert run(*words(calm)).returncode == 0
    refused = 0
    with mounted(tmp_path / "disk"):
        disk = tmp_path / "disk"
        for pages in (0, 3):
            filler = fill(disk, pages)
            ended = run(*words(disk))
            if ended.returncode:
                *_, last = ended.stderr.splitlines()
                assert ended.returncode == 2 and last.startswith("sgmft: ") and str(disk) in last
                assert "make room" in last
                refused += 1
                assert_nothing_half(disk)
            filler.unlink()
        assert refused
        assert run(*words(disk)).returncode == 0
        assert result(job, disk) == result(job, calm)
        assert not list(disk.rglob(".*.tmp")) and not list(disk.rglob(".*.part"))


def assert_nothing_half(disk):
    assert not list(disk.rglob(".*.tmp")) and not list(disk.rglob(".*.part"))
    for name in ("p.csv", "p.parquet", "m/config.json", "c/report.html"):
        assert not (disk / name).exists()
    for path in disk.glob("f/*/part-*.parquet"):
        assert sha256(path.read_bytes()).hexdigest()[:16] in path.name


@pytest.mark.parametrize("job", SOME)
def test_a_read_only_disk(job, words, run, tmp_path):
    with mounted(tmp_path / "disk") as change:
        disk = tmp_path / "disk"
        change("ro")
        refused = run(*words(disk))
        *_, last = refused.stderr.splitlines()
        assert refused.returncode == 2 and last.startswith("sgmft: ") and str(disk) in last
        assert "Read-only file system" in last and "another folder" in last
        change("rw")
        assert run(*words(disk)).returncode == 0
        assert result(job, disk)
