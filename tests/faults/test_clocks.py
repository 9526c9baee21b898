"""Clocks that are wrong, or jump: nothing that is being written is lost."""

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

POSTS = [Post(f"第{i}天在家") for i in range(8)]


def test_a_file_whose_temporary_is_taken_is_written_again(tmp_path):
    written = []

    def write(temporary: Path) -> None:
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


@pytest.mark.parametrize("days", [-400, 400])
def test_a_store_opened_under_another_clock_while_one_writes(tmp_path, monkeypatch, days):
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path, encoder.info, tokens=True)
    now, replace = time.time, Path.replace

    def open_another(path: Path, target: Path) -> Path:  # just before the shard gets its name
        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(time, "time", lambda: now() + days * 86_400)
        FeatureStore(tmp_path, encoder.info, tokens=True)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", open_another)
    (chunk,) = encode_posts(POSTS, encoder, tokens=True, store=store)
    again = FeatureStore(tmp_path, encoder.info, tokens=True)
    assert len(again) == len(POSTS)
    assert all(map(equal_features, again.read(chunk.keys), chunk.rows))


SCRIPT = """
import sys, time
from recording_encoder import RecordingEncoder
from test_clocks import POSTS
from sgmft.features.encode import encode_posts
from sgmft.features.store import FeatureStore
encoder = RecordingEncoder()
store = FeatureStore(sys.argv[1], encoder.info, tokens=True)
for chunk in encode_posts(POSTS, encoder, tokens=True, store=store, chunk=2):
    pass
print(time.time())
"""


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_a_process_whose_clock_is_wrong_loses_nothing(tmp_path):
    """Three days ahead, then three behind what is there, then right again: nothing is redone."""
    seen = []
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    for shift in ("+3d", "-3d"):
        ended = subprocess.run(
            ["faketime", "-f", shift, sys.executable, "-c", SCRIPT, tmp_path],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        assert abs(float(ended.stdout) - time.time()) > 2 * 86_400
        seen.append({x: x.stat().st_ino for x in tmp_path.rglob("*") if x.is_file()})
    assert seen[0] == seen[1] and len(seen[0]) == 1 + len(POSTS) // 2
    encoder = RecordingEncoder()
    store = FeatureStore(tmp_path, encoder.info, tokens=True)
    list(encode_posts(POSTS, encoder, tokens=True, store=store))
    assert not encoder.texts
