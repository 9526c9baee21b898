"""Time and memory of `sgmft train` and `sgmft predict` as the table grows to 100,000 posts.

    python benchmarks/growth.py docs/figures [--most 100000]

Generated texts, all different, with `compact` and without a feature store, each table by a process
of its own. Training is the default's, from texts to a saved model. What a command takes for 100
posts is taken off its seconds where those of a post are told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from export import SGMFT
from matplotlib.figure import Figure
from measuring import print_row
from sample_posts import PLACES, write_text

from sgmft.evaluation.figures import svg_text

SIZES = (100, 1_000, 10_000, 100_000)
COLOURS = {"train": "#d55e00", "predict": "#0072b2"}


def table(path: Path, posts: int) -> Path:
    """So many posts of a text."""
    with path.open("w", encoding="utf-8") as out:
        for i in range(posts):
            place = PLACES[i % len(PLACES)]
            text = write_text(np.random.default_rng(i), place, "", 0.3)
            row = {"text": f"{text} {i}", "label": place}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def run(*words: object) -> tuple[float, float]:
    """Seconds, and MiB at most, of one command."""
    command = [str(x) for x in (SGMFT, *words, "--features", "none")]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(command)} ended with {status}"
    return time.perf_counter() - began, used.ru_maxrss / 1024


def draw(sizes: list[int], found: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Seconds and memory against the number of posts."""

    def drawn() -> Figure:
        figure = Figure(figsize=(7, 2.8), layout="constrained")
        panels = figure.subplots(1, 2)
        for i, name in enumerate(("seconds", "MiB at most")):
            axes = panels[i]
            for command, rows in found.items():
                values = [row[i] for row in rows]
                axes.plot(sizes, values, "o-", color=COLOURS[command], label=command)
            axes.set(xlabel="posts", ylabel=name, xlim=(0, None), ylim=(0, None))
            axes.locator_params(axis="x", nbins=4)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.legend(frameon=False)
        return figure

    path.write_text(svg_text(drawn, "sgmft"), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--most", type=int, default=100_000)
    options = parser.parse_args()
    sizes = [n for n in SIZES if n <= options.most]
    found: dict[str, list[tuple[float, float]]] = {"train": [], "predict": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in sizes:
            posts, model = table(folder / f"{n}.jsonl", n), folder / f"m{n}"
            found["train"].append(run("train", posts, "-o", model))
            first = folder / f"m{sizes[0]}"
            found["predict"].append(run("predict", first, posts, "-o", folder / f"{n}.csv"))
    draw(sizes, found, options.figures / "growth.svg")
    for command, rows in found.items():
        start, *more = (seconds for seconds, _ in rows)
        each = (1e3 * (x - start) / (n - sizes[0]) for x, n in zip(more, sizes[1:], strict=True))
        print_row(
            f"`sgmft {command}`, {', '.join(f'{n:,}' for n in sizes)} texts",
            "–",
            f"{start:.1f} s, then {', '.join(f'{x:.1f}' for x in each)} ms a post",
            "linear",
            f"at most {', '.join(f'{memory:.0f}' for _, memory in rows)} MiB",
        )


if __name__ == "__main__":
    main()
