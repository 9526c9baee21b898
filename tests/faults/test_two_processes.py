"""Two processes that fill one feature store at the same time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recording_encoder import RecordingEncoder, equal_features
from sgmft.data.posts import Post
from sgmft.features.encode import encode_posts
from sgmft.features.store import FeatureStore

POSTS = [Post(f"第{i}天在家") for i in range(90)]

# Tells that it is ready, and begins when it is told to.
SCRIPT = """
import sys
from recording_encoder import RecordingEncoder
from test_two_processes import POSTS
from sgmft.features.encode import encode_posts
from sgmft.features.store import FeatureStore
first, last = int(sys.argv[2]), int(sys.argv[3])
encoder = RecordingEncoder()
print("ready", flush=True)
sys.stdin.readline()
store = FeatureStore(sys.argv[1], encoder.info, tokens=True)
for chunk in encode_posts(POSTS[first:last], encoder, tokens=True, store=store, chunk=5):
    pass
"""


@pytest.mark.parametrize("shares", [[(0, 90), (0, 90)], [(0, 61), (33, 90)]])
def test_the_store_is_as_one_process_would_have_written_it(tmp_path, shares):
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "both"), *map(str, share)],
            env={**os.environ, "PYTHONPATH": path},
            text=True,
            **pipes,
        )
        for share in shares
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0 and not errors
    encoder = RecordingEncoder()
    alone = FeatureStore(tmp_path / "alone", encoder.info, tokens=True)
    chunks = list(encode_posts(POSTS, encoder, tokens=True, store=alone, chunk=5))
    keys = [key for chunk in chunks for key in chunk.keys]
    both = FeatureStore(tmp_path / "both", encoder.info, tokens=True)
    assert len(both) == len(alone) == len(POSTS)
    assert all(map(equal_features, both.read(keys), alone.read(keys)))
    assert not list(both.folder.glob(".*"))
    if shares[0] == shares[1]:
        files = [{x.name for x in store.folder.iterdir()} for store in (alone, both)]
        assert files[0] == files[1]
