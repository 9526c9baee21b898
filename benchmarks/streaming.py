"""A table of a million posts through `sgmft predict` into shards: posts a second, and memory.

    python benchmarks/streaming.py docs/figures --posts 1000000 --different 5000

Generated posts: so many different texts, half of them with a small picture of their own, in random
order, as retweets come. `compact`, one process. Draws memory over the posts done, which the number
of rows in the shards gives.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from export import SGMFT, sample
from matplotlib.figure import Figure
from PIL import Image
from sample_posts import PLACES, write_text

from sgmft.evaluation.figures import svg_text

EVERY = 2.0  # seconds between two looks at the process


def table(folder: Path, posts: int, different: int) -> Path:
    """So many posts of so many different contents, in random order."""
    (folder / "pictures").mkdir(parents=True)
    contents = []
    for i in range(different):
        rng = np.random.default_rng(i)
        row = {"text": f"{write_text(rng, PLACES[i % len(PLACES)], '', 0.3)} {i}"}
        if i % 2:
            row["image"] = f"pictures/{i}.jpg"
            shades = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            Image.fromarray(shades).resize((64, 48)).save(folder / row["image"])
        contents.append(row)
    order = np.random.default_rng(0).integers(0, different, posts)
    with (folder / "posts.jsonl").open("w", encoding="utf-8") as out:
        for i, which in enumerate(order.tolist()):
            row = {"id": f"p{i}", **contents[which]}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return folder / "posts.jsonl"


def resident(pid: int) -> float:
    """MiB of a process's own and shared pages."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0  # it has ended


def predict(model: Path, posts: Path, folder: Path) -> list[tuple[float, int, float]]:
    """Run the command; (seconds, shards there are, MiB) every two seconds."""
    out = folder / "out"
    words = ["predict", model, posts, "-o", out, "--features", folder / "features"]
    began = time.perf_counter()
    process = subprocess.Popen([str(SGMFT), *map(str, words)], stderr=subprocess.DEVNULL)
    seen = []
    while process.poll() is None:
        time.sleep(EVERY)
        shards = sum(1 for _ in out.glob("part-*.parquet"))
        seen.append((time.perf_counter() - began, shards, resident(process.pid)))
    assert process.returncode == 0, f"sgmft predict ended with {process.returncode}"
    return [look for look in seen if look[2]]


def draw(done: list[float], memory: list[float], path: Path) -> None:
    def drawn() -> Figure:
        figure = Figure(figsize=(5, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(done, memory, color="#0072b2")
        axes.set_ylim(0, max(memory) * 1.15)
        axes.set_xlabel("posts done, thousands")
        axes.set_ylabel("resident memory, MiB")
        return figure

    path.write_text(svg_text(drawn, "sgmft"), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--different", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, _ = sample(folder)
        posts = table(folder / "input", options.posts, options.different)
        print(f"{posts.stat().st_size / 1e6:.0f} MB of table", flush=True)
        looks = predict(model, posts, folder)
        rows = sum(pq.read_metadata(x).num_rows for x in (folder / "out").glob("part-*"))
        assert rows == options.posts, f"{rows} rows came out"
    seconds, shards, memory = (np.array(x) for x in zip(*looks, strict=True))
    done = shards / shards[-1] * options.posts
    working = shards > 0
    first = int(working.argmax())
    rate = (done[-1] - done[first]) / (seconds[-1] - seconds[first])
    tenth = done >= options.posts / 10
    print("| posts | different | seconds | posts/s | MiB at a tenth | MiB at most |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {options.posts:,} | {options.different:,} | {seconds[-1]:.0f} | {rate:.0f} | "
        f"{memory[tenth][0]:.0f} | {memory.max():.0f} |"
    )
    draw((done / 1000).tolist(), memory.tolist(), options.figures / "streaming.svg")


if __name__ == "__main__":
    main()
