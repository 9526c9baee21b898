"""`sgmft predict` killed again and again, and what it has written in the end.

As a script it is the job and what kills it: `test_killed_predictions.py KILLS SEED FOLDER WORDS...`
runs `sgmft WORDS` in FOLDER, in forks of this process, which has loaded what takes long.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill import fork, load_all, wait

PICTURED = 20  # one post in so many keeps its pictures, for speed
TEXTS = [  # of every kind, some of them more than a window long
    "看，喝喝咖啡～❤️前任攻略2 1",
    "转发微博//@小明:电影院[二哈]//@user_2：学校 http://t.cn/A6abc回家",
    "👨‍👩‍👧在家🏳️‍🌈，1️⃣#️⃣",
    "I am working at home 😂 in the room, see www.weibo.com/x",
    "Privet café 한국어 ありがとう हिन्दी ไทย",
    "和老朋友聊了很多以前的事情，关于选择，关于远方。" * 30 + "散场以后我们从电影院走出来。",
    "",
]


def kill_in_a_row(kills: int, seed: int, folder: Path, words: list[str]) -> dict[str, object]:
    """Run a command calmly, then kill it so many times in a row, and let the last one finish.

    A moment is drawn from the time that the calm run took. Where a run has ended before it, its
    results are deleted and the row goes on with a new one.
    """
    load_all()
    draw = random.Random(seed)

    def begin(own: Path) -> int:
        own.mkdir(exist_ok=True)
        return fork([word.format(own=own) for word in words], own / "log")

    begun = time.monotonic()
    codes = [wait(begin(folder / "calm"))]
    seconds = time.monotonic() - begun
    rough, killed, at_work = folder / "rough", 0, 0
    while killed < kills:
        process = begin(rough)
        if (code := wait(process, draw.random() * seconds)) is not None:
            codes.append(code)
            shutil.rmtree(rough)
            continue
        os.killpg(process, signal.SIGKILL)
        wait(process)
        killed += 1
        at_work += any(rough.glob("features/*/*.parquet"))
    codes.append(wait(begin(rough)))
    return {"codes": codes, "killed": killed, "at_work": at_work}


def write_posts(table: Path, sample: Path, number: int) -> Path:
    """Posts made of a sample's, each with a text of its own, a few with pictures."""
    given = [json.loads(line) for line in sample.read_text("utf-8").splitlines()]
    rows = []
    for i in range(number):
        row = given[i % len(given)]
        text = TEXTS[i // 10 % len(TEXTS)] if i % 10 == 0 else f"{row['text']} {i}"
        images = [] if i % PICTURED else [str(sample.parent / name) for name in row["images"]]
        rows.append({"text": text, "images": images})
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return table


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "number", "output"), [(2, 100, "out.csv"), (20, 600, "out.csv"), (20, 600, "out")]
)
def test_ends_in_what_an_undisturbed_run_writes(
    kills: int, number: int, output: str, sample: Path, trained: Path, tmp_path: Path
) -> None:
    posts = write_posts(tmp_path / "posts.jsonl", sample, number)
    words = ["predict", str(trained), str(posts), "-o", f"{{own}}/{output}"]
    words += ["--features", "{own}/features", "--allow-outside"]
    words += [] if "." in output else ["--shard-rows", "100"]
    command = [sys.executable, __file__, str(kills), "0", str(tmp_path), *words]
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests / "faults"), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] == kills and set(found["codes"]) == {0}, found
    assert found["at_work"] or kills < 20, "no run was killed with features in the store"
    calm, rough = (files_of(tmp_path / name) for name in ("calm", "rough"))
    assert calm.keys() == rough.keys() and len(calm) > 2
    assert [name for name in calm if calm[name] != rough[name]] == []


def files_of(folder: Path) -> dict[str, bytes]:
    """All files that a run has left, but for what it printed and when it ran."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log"
    }


if __name__ == "__main__":
    kills, seed, folder, *words = sys.argv[1:]
    print(json.dumps(kill_in_a_row(int(kills), int(seed), Path(folder), words)))
