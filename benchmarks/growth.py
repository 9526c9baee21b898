"""Time and memory of `sgmft predict` as the table grows from 1,000 to 100,000 posts.

    python benchmarks/growth.py docs/figures

Generated texts, all different, with `compact` and without a feature store, each table by a process
of its own. Seconds and memory are without what one post takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from export import SGMFT, sample
from matplotlib.figure import Figure
from measuring import print_row
from sample_posts import PLACES, write_text

from sgmft.evaluation.figures import svg_text

SIZES = (1_000, 10_000, 100_000)
COLOUR = "#0072b2"


def table(path: Path, posts: int) -> Path:
    """So many posts of a text."""
    with path.open("w", encoding="utf-8") as out:
        for i in range(posts):
            rng = np.random.default_rng(i)
            text = write_text(rng, PLACES[i % len(PLACES)], "", 0.3)
            out.write(json.dumps({"text": f"{text} {i}"}, ensure_ascii=False) + "\n")
    return path


def predict(model: Path, posts: Path) -> tuple[float, float]:
    """Seconds, and MiB at most, of one command."""
    command = [
        SGMFT,
        "predict",
        model,
        posts,
        "-o",
        posts.with_suffix(".csv"),
        "--features",
        "none",
    ]
    began = time.perf_counter()
    process = subprocess.Popen([str(x) for x in command], stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"sgmft predict ended with {status}"
    return time.perf_counter() - began, used.ru_maxrss / 1024


def draw(seconds: list[float], memory: list[float], path: Path) -> None:
    """Both against the number of posts."""

    def drawn() -> Figure:
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, values, name in ((left, seconds, "seconds"), (right, memory, "MiB at most")):
            axes.plot(SIZES, values, "o-", color=COLOUR)
            axes.set(xlabel="posts", ylabel=name, xlim=(0, None), ylim=(0, 1.2 * max(values)))
            axes.locator_params(axis="x", nbins=4)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        return figure

    path.write_text(svg_text(drawn, "sgmft"), "utf-8")


def main(figures: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, _ = sample(folder)
        start, _ = predict(model, table(folder / "one.jsonl", 1))
        found = [predict(model, table(folder / f"{n}.jsonl", n)) for n in SIZES]
    seconds, memory = ([*x] for x in zip(*found, strict=True))
    seconds = [x - start for x in seconds]
    draw(seconds, memory, figures / "growth.svg")
    each = [1e3 * x / n for x, n in zip(seconds, SIZES, strict=True)]
    sizes = ", ".join(f"{n:,}" for n in SIZES)
    print_row(
        f"`sgmft predict`, {sizes} texts",
        "–",
        f"{', '.join(f'{x:.2f}' for x in each)} ms a post",
        "linear",
        f"at most {', '.join(f'{x:.0f}' for x in memory)} MiB",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
