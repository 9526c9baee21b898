"""A feature store that several processes fill, and clocks that are wrong, or jump."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recording_encoder import RecordingEncoder, equal_features
from sgmft.data.posts import Post
from sgmft.features.encode import encode_posts
from sgmft.features.store import FeatureStore
from sgmft.utils.files import leftovers, make_whole, write_whole

POSTS = [Post(f"第{i}天在家") for i in range(90)]
FEW = POSTS[:8]

# Tells that it is ready, and begins when it is told to; then tells the time.
SCRIPT = """
import sys, time
from test_store_in_use import POSTS, encode
folder, chunk, first, last = sys.argv[1], *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
encode(folder, POSTS[first:last], chunk)
print(time.time())
"""


def encode(folder, posts, chunk):
    """Encode into a store; the store, the chunks, and the encoder that was asked."""
    encoder = RecordingEncoder()
    store = FeatureStore(folder, encoder.info, tokens=True)
    return store, list(encode_posts(posts, encoder, tokens=True, store=store, chunk=chunk)), encoder


def start(folder, chunk, first, last, clock=()):
    """Start a process that encodes some posts; it is ready."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    process = subprocess.Popen(
        [*clock, sys.executable, "-c", SCRIPT, *map(str, (folder, chunk, first, last))],
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def finish(*processes):
    """Have them encode at the same time; what their clocks say in the end."""
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(*process.communicate(timeout=600), process.returncode) for process in processes]
    assert [(errors, code) for _, errors, code in ended] == [("", 0)] * len(ended)
    return [float(output) for output, _, _ in ended]


@pytest.mark.parametrize(
    "shares", [[(0, 61), (33, 90)], pytest.param([(0, 90), (0, 90)], marks=pytest.mark.slow)]
)
def test_the_store_is_as_one_process_would_have_written_it(tmp_path, shares):
    finish(*(start(tmp_path / "both", 5, *share) for share in shares))
    alone, chunks, encoder = encode(tmp_path / "alone", POSTS, 5)
    keys = [key for chunk in chunks for key in chunk.keys]
    both = FeatureStore(tmp_path / "both", encoder.info, tokens=True)
    assert len(both) == len(alone) == len(POSTS)
    assert all(map(equal_features, both.read(keys), alone.read(keys)))
    assert not list(both.folder.glob(".*"))
    if shares[0] == shares[1]:
        files = [{x.name for x in store.folder.iterdir()} for store in (alone, both)]
        assert files[0] == files[1]


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_a_process_whose_clock_is_wrong_loses_nothing(tmp_path):
    """Three days ahead, then three behind what is there, then right again: nothing is redone."""
    seen = []
    for shift in ("+3d", "-3d"):
        (now,) = finish(start(tmp_path, 2, 0, len(FEW), ("faketime", "-f", shift)))
        assert abs(now - time.time()) > 2 * 86_400
        seen.append({x: x.stat().st_ino for x in tmp_path.rglob("*") if x.is_file()})
    assert seen[0] == seen[1] and len(seen[0]) == 1 + len(FEW) // 2
    assert not encode(tmp_path, FEW, 2)[2].texts


@pytest.mark.parametrize("days", [-400, 400])
def test_a_store_opened_under_another_clock_while_one_writes(tmp_path, monkeypatch, days):
    now, replace = time.time, Path.replace

    def open_another(path: Path, target: Path) -> Path:  # just before the shard gets its name
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(time, "time", lambda: now() + days * 86_400)
        FeatureStore(tmp_path, RecordingEncoder().info, tokens=True)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", open_another)
    _, (chunk,), encoder = encode(tmp_path, FEW, 256)
    again = FeatureStore(tmp_path, encoder.info, tokens=True)
    assert len(again) == len(FEW)
    assert all(map(equal_features, again.read(chunk.keys), chunk.rows))


def test_a_file_whose_temporary_is_taken_is_written_again(tmp_path):
    written = []

    def write(temporary):
        temporary.write_bytes(b"whole")
        written.append(temporary)
        if len(written) == 1:  # as a process with a clock that is wrong does
            for leftover in leftovers(tmp_path):
                leftover.unlink()

    make_whole(tmp_path / "file", write)
    assert len(set(written)) == 2 and not leftovers(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_folder_that_is_gone_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "gone" / "file", b"x")
