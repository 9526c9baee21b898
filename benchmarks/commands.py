"""Whole commands as a user starts them, against what one would otherwise run.

    python benchmarks/commands.py

Generated posts with pictures. The first `sgmft train` has an empty cache, as after installation;
`plain_script.py` does the same work, but for fusion and calibration. Others run cold, in turns with
what the row names; those without a rival have to end within the seconds wanted. At last the
demonstration runs once, with an empty cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import plain_script
from export import SGMFT
from measuring import in_turns, print_row
from sample_posts import write_sample

from sgmft import SemanticLocator, read_posts
from sgmft.features.encode import encode_all
from sgmft.utils.runtime import thread_count

ROUNDS = 3


def run(*words: object, **environment: str) -> float:
    """Seconds of one command."""
    known = {**os.environ, **environment}
    began = time.perf_counter()
    subprocess.run([str(x) for x in words], check=True, capture_output=True, env=known)
    return time.perf_counter() - began


def row(work: str, against: str, theirs: Callable[[], object], ours: Callable[[], object]) -> None:
    """Print one row; its wanted ratio is behind the work."""
    work, wanted = work.split(" | ")
    found = in_turns(theirs, ours, ROUNDS)
    seconds = f"{median(found.ours):.1f} s, {median(found.theirs):.1f} s there"
    print_row(work, against, f"{found.ratio}; {seconds}", wanted, "–")


def first_training(table: Path, folder: Path) -> None:
    count = iter(range(99))

    def ours() -> None:
        n = next(count)
        run(SGMFT, "train", table, "-o", folder / f"m{n}", SGMFT_CACHE=f"{folder}/c{n}")

    script = Path(__file__).with_name("plain_script.py")
    work = "first `sgmft train`, 200 posts with pictures, nothing cached | ≥ 1, ≤ 15 s"
    row(work, "plain_script.py, whole", lambda: run(sys.executable, script, table), ours)


def cached_training(table: Path, folder: Path) -> None:
    posts = [x for x in read_posts(table) if x.text and x.images]
    locator = SemanticLocator(features=folder / "features")
    features = encode_all(posts, locator.encoder).features
    text, image = features.pooled()
    labels, texts = [str(x.label) for x in posts], [x.text for x in posts]
    began = time.perf_counter()
    plain_script.fit(text, image, texts, labels)
    theirs = time.perf_counter() - began
    command = (SGMFT, "train", table, "--features", folder / "features")
    run(*command, "-o", folder / "warm")  # encodes
    times = [run(*command, "-o", folder / f"cached{n}") for n in range(ROUNDS)]
    found = f"{theirs / median(times):.1f}; {median(times):.1f} s, {theirs:.1f} s there"
    work = f"`sgmft train`, {len(posts):,} posts, features cached, whole command"
    print_row(work, "plain_script.py's fitting part alone", found, "≥ 4, ≤ 10 s", "–")
    with neighbours():
        beside = run(*command, "-o", folder / "beside")
    found = f"{beside / median(times):.1f} times as long; {beside:.1f} s"
    print_row("the same beside as many busy processes", "the same alone", found, "≤ 2", "–")


@contextmanager
def neighbours() -> Iterator[None]:
    """Processes that are busy meanwhile, one for each processor: a half of them is our share."""
    words = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(words) for _ in range(thread_count())]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def demonstration(folder: Path) -> None:
    script = Path(__file__).parents[1] / "examples" / "demo.py"
    seconds = run(sys.executable, script, folder / "demo", SGMFT_CACHE=f"{folder}/cdemo")
    print_row("`make demo` after installation", "–", f"{seconds:.0f} s", "≤ 60 s", "–")


def starts(model: Path, table: Path, folder: Path) -> None:
    one, exported = table.with_name("one.json"), folder / "exported"
    one.write_text(json.dumps({"text": "下班了，地铁好挤"}, ensure_ascii=False), "utf-8")
    run(SGMFT, "export", model, "-o", exported)
    for where, rival in ((model, "torch"), (exported, "onnxruntime")):
        row(
            f"start: `sgmft predict {where.name}/ one.json` | ≥ 0.67",
            f"`import {rival}`",
            lambda rival=rival: run(sys.executable, "-c", f"import {rival}"),
            lambda where=where: run(SGMFT, "predict", where, one, "-o", folder / "one.csv"),
        )


def cold(model: Path, table: Path, folder: Path) -> None:
    """Commands that nothing is like, on 2,000 encoded posts."""
    features = ("--features", folder / "features")
    some = table.with_name("some.jsonl")
    some.write_text("".join(table.read_text("utf-8").splitlines(True)[:500]), "utf-8")
    post = next(x.id for x in read_posts(some) if x.text and x.images)
    bare = table.with_name("bare.jsonl")
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    bare.write_text("".join(json.dumps({**x, "label": None}) + "\n" for x in rows), "utf-8")
    commands = {
        "`sgmft explain` of one post": ["explain", model, some, "--where", f"id={post}"],
        "`sgmft suggest` of 200 from 2,000 encoded": ["suggest", bare, "--model", model, "-n", 200],
        "`sgmft evaluate` of 500 encoded": ["evaluate", model, some],
    }
    ends = {"explain": "why.html", "suggest": "tasks.json", "evaluate": "evaluation"}
    for work, words in commands.items():
        more = () if words[0] == "explain" else features
        outputs = (table.with_name(f"{n}{ends[words[0]]}") for n in range(ROUNDS))
        times = [run(SGMFT, *words, "-o", output, *more) for output in outputs]
        print_row(work, "–", f"{median(times):.1f} s", "≤ 4 s", "–")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for posts in (200, 2000):
            write_sample(folder / f"{posts}", posts)
        small, large = (folder / f"{posts}/posts.jsonl" for posts in (200, 2000))
        first_training(small, folder)
        cached_training(large, folder)
        starts(folder / "m0", small, folder)
        cold(folder / "warm", large, folder)
        demonstration(folder)


if __name__ == "__main__":
    main()
