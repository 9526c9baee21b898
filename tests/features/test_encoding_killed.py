"""Encoding into a store by a process that is killed at any moment."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic.sample import write_sample

from recording_encoder import RecordingEncoder, equal_features
from sgmft.data.posts import Post
from sgmft.features.encode import encode_posts
from sgmft.features.encoders.base import Encoded
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.store import FeatureStore

POSTS = 120  # in the test that kills

# Encodes the sample in children of one process that has loaded what takes long, and kills them:
# each when so many shards are there and so many seconds have passed; None lets it finish.
DRIVER = """
import json, os, signal, sys, time
from multiprocessing import get_context
from pathlib import Path
from test_encoding_killed import sample_table
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.encode import encode_posts
from sgmft.features.store import FeatureStore

encoder = load_encoder()
encoder.encode_texts(["家"], True)

def encode(table, folder):
    store = FeatureStore(folder, encoder.info, True)
    for chunk in encode_posts(sample_table(table), encoder, tokens=True, store=store, chunk=8):
        pass

table, folder, moments = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
shards = lambda: {p.name: p.stat().st_mtime_ns for p in folder.glob("*/part-*.parquet")}
for wanted, delay in moments:
    worker = get_context("fork").Process(target=encode, args=(table, folder))
    before = shards()
    worker.start()
    while wanted is not None and worker.is_alive() and len(shards()) < wanted:
        time.sleep(0.002)
    if wanted is not None:
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    after = shards()
    kept = all(after.get(name) == when for name, when in before.items())
    print(json.dumps([worker.exitcode, len(before), len(after), kept]), flush=True)
"""


def sample_table(table: Path) -> list[Post]:
    lines = map(json.loads, table.read_text("utf-8").splitlines())
    return [Post(row["text"], [table.parent / n for n in row["images"]]) for row in lines]


def drive(table: Path, folder: Path, moments: list[tuple[int | None, float]]) -> list[list[int]]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(table), str(folder), json.dumps(moments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment_and_run_again(tmp_path) -> None:
    table = write_sample(tmp_path / "sample", posts=POSTS, seed=1, users=9)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    ((exit_code, _, total, _),) = drive(table, calm, [(None, 0)])
    assert exit_code == 0 and total == POSTS // 8
    # The last moments fall into the encoding, the writing and the renaming of a shard.
    moments = [(0, 0.02), (1, 0.0), (3, 0.05), (5, 0.1), (8, 0.02), (None, 0.0)]
    ends = drive(table, rough, moments)
    for (exit_code, before, after, kept), (wanted, _) in zip(ends, moments, strict=True):
        assert kept, "a finished shard was written again"
        if wanted is None:
            assert exit_code == 0 and before < after
        else:
            assert exit_code == -9 and wanted <= after < total
    files, expected = (
        {p.name: p.read_bytes() for p in folder.glob("*/part-*.parquet")}
        for folder in (rough, calm)
    )
    assert len(expected) == total and files == expected

    class Refusing(RecordingEncoder):
        """Everything must come from the store."""

        def encode_texts(self, texts: Sequence[str], tokens: bool) -> Encoded:
            assert not texts
            return super().encode_texts(texts, tokens)

        def encode_images(self, pictures: np.ndarray, tokens: bool) -> Encoded:
            assert not len(pictures)
            return Encoded(np.zeros((0, refusing.info.image_width), np.float32), [])

    refusing = Refusing()
    refusing.info = load_encoder().info
    a, b = (
        list(
            encode_posts(
                sample_table(table),
                refusing,
                tokens=True,
                store=FeatureStore(folder, refusing.info, True),
                chunk=50,
            )
        )
        for folder in (calm, rough)
    )
    for one, other in zip(a, b, strict=True):
        assert one.keys == other.keys and all(map(equal_features, one.rows, other.rows))
    assert sum(len(chunk.good) for chunk in a) == POSTS
