"""A disk that is full or read-only: a sentence with the cure, nothing half, then the same end."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from faults import COMPARE, command, comparison_of, fill, model_of, mounted, shards_of
from small_tables import rows as rows
from small_tables import table as table

pytestmark = pytest.mark.usefixtures("tiny")
EPOCHS = ("--preset", "elements", "--set", "epochs=3", "--set", "width=16", "--set", "heads=2")


@pytest.fixture
def jobs(table, small_model, tmp_path) -> dict[str, tuple[Callable[..., tuple[Any, ...]], Any]]:
    """Each command with its output in a folder, and what it leaves there."""
    small_model.save_pretrained(tmp_path / "given")
    store = ("--features", tmp_path / "store")
    tiny = ("--encoder", "tiny")
    return {
        "encode": (lambda to: ("encode", table, "-o", to / "f", *tiny), shards_at("f")),
        "train": (lambda to: ("train", table, "-o", to / "m", *tiny, *store), model_at("m")),
        "train in epochs": (
            lambda to: ("train", table, "-o", to / "m", *tiny, *store, *EPOCHS),
            model_at("m"),
        ),
        "train, store": (
            lambda to: ("train", table, "-o", tmp_path / "m2", *tiny, "--features", to / "f"),
            shards_at("f"),
        ),
        "predict": (
            lambda to: ("predict", tmp_path / "given", table, "-o", to / "p.csv", *store),
            lambda to: (to / "p.csv").read_bytes(),
        ),
        "predict, parquet": (
            lambda to: ("predict", tmp_path / "given", table, "-o", to / "p.parquet", *store),
            lambda to: (to / "p.parquet").read_bytes(),
        ),
        "compare": (
            lambda to: ("compare", table, "-o", to / "c", *tiny, *store, *COMPARE, "--workers", 1),
            lambda to: comparison_of(to / "c"),
        ),
        "sample": (
            lambda to: ("sample", to / "s", "--posts", 20),
            lambda to: (to / "s" / "posts.jsonl").read_bytes(),
        ),
    }


def shards_at(name: str) -> Callable[[Path], Any]:
    return lambda to: shards_of(to / name)


def model_at(name: str) -> Callable[[Path], Any]:
    return lambda to: model_of(to / name)


JOBS = (
    "encode",
    "train",
    "train in epochs",
    "train, store",
    "predict",
    "predict, parquet",
    "compare",
    "sample",
)


@pytest.mark.parametrize("job", JOBS)
def test_a_full_disk(job, jobs, tmp_path, monkeypatch, capsys):
    words, result = jobs[job]
    calm = tmp_path / "calm"
    assert command(monkeypatch, *words(calm)) == 0
    refused = 0
    with mounted(tmp_path / "disk"):
        disk = tmp_path / "disk"
        for pages in (0, 3):
            filler = fill(disk, pages)
            capsys.readouterr()
            code = command(monkeypatch, *words(disk))
            *_, last = capsys.readouterr().err.splitlines()
            if code:
                assert code == 2 and last.startswith("sgmft: ") and str(disk) in last
                assert "make room" in last
                refused += 1
                assert_nothing_half(disk)
            filler.unlink()
        assert refused
        assert command(monkeypatch, *words(disk)) == 0
        assert result(disk) == result(calm)
        assert not list(disk.rglob(".*.tmp")) and not list(disk.rglob(".*.part"))


def assert_nothing_half(disk: Path) -> None:
    assert not list(disk.rglob(".*.tmp")) and not list(disk.rglob(".*.part"))
    for name in ("p.csv", "p.parquet", "m/config.json", "c/report.html"):
        assert not (disk / name).exists()
    for path in disk.glob("f/*/part-*.parquet"):
        assert sha256(path.read_bytes()).hexdigest()[:16] in path.name


@pytest.mark.parametrize("job", JOBS)
def test_a_read_only_disk(job, jobs, tmp_path, monkeypatch, capsys):
    words, result = jobs[job]
    with mounted(tmp_path / "disk") as change:
        disk = tmp_path / "disk"
        change("ro")
        assert command(monkeypatch, *words(disk)) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("sgmft: ") and str(disk) in said[-1]
        assert "Read-only file system" in said[-1] and "another folder" in said[-1]
        change("rw")
        assert command(monkeypatch, *words(disk)) == 0
        assert result(disk)
