"""Cold commands: `sgmft --help`, and `sgmft predict` with a model and with its export.

    python benchmarks/export.py [MODEL POSTS.jsonl]

Each command runs as a user starts it, in turns, ROUNDS times, on the first post and on the first
POSTS, without a feature store; the probabilities must agree. Without arguments posts are generated
and a model is trained.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from measuring import print_row, spread
from sample_posts import write_sample

ROUNDS, POSTS = 5, 64
SGMFT = Path(sys.executable).with_name("sgmft")


def predict(model: Path, table: Path, out: Path, *words: str) -> float:
    """Seconds of one command."""
    began = time.perf_counter()
    command = [SGMFT, "predict", model, table, "-o", out, *words]
    subprocess.run([str(x) for x in command], check=True, capture_output=True)
    return time.perf_counter() - began


def chances(path: Path) -> np.ndarray:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    keys = [key for key in rows[0] if key.startswith("p_")]
    return np.array([[row[key] for key in keys] for row in rows], float)


def main(model: Path, table: Path) -> None:
    with tempfile.TemporaryDirectory(dir=table.parent) as name:  # beside the pictures
        folder = Path(name)
        exported = folder / "onnx"
        subprocess.run([str(SGMFT), "export", str(model), "-o", str(exported)], check=True)
        lines = table.read_text("utf-8").splitlines()
        runtimes = {"torch": (model, ["--features", "none"]), "onnx": (exported, [])}
        for posts in (1, min(POSTS, len(lines))):
            some = table.with_name(f".first-{posts}.jsonl")
            some.write_text("\n".join(islice(lines, posts)), "utf-8")
            try:
                times: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
                for _ in range(ROUNDS):
                    for runtime, (where, words) in runtimes.items():
                        out = folder / f"{runtime}.jsonl"
                        times[runtime].append(predict(where, some, out, *words))
            finally:
                some.unlink()
            apart = np.abs(chances(folder / "torch.jsonl") - chances(folder / "onnx.jsonl"))
            print_row(
                f"one cold `sgmft predict` with `compact`, {posts} posts, exported",
                f"the same model, not exported, {median(times['torch']):.1f} s",
                f"{median(times['onnx']):.1f} s, {spread(times['torch'], times['onnx'])} ×",
                "< 4 s" if posts == 1 else "–",
                f"probabilities to {np.nanmax(apart):.0e}",
            )


def help_page() -> float:
    """Seconds of the command's list of commands."""
    began = time.perf_counter()
    subprocess.run([str(SGMFT), "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def sample(folder: Path) -> tuple[Path, Path]:
    """A model, and posts."""
    model = folder / "model"
    table = write_sample(folder / "posts", 210)
    words = SGMFT, "train", table, "-o", model, "--features", "none"
    subprocess.run([*map(str, words)], check=True, capture_output=True)
    return model, table


if __name__ == "__main__":
    print_row(
        "`sgmft --help`", "–", f"{median(help_page() for _ in range(9)):.2f} s", "< 0.3 s", "–"
    )
    with tempfile.TemporaryDirectory() as name:
        given = [Path(word) for word in sys.argv[1:]] or sample(Path(name))
        main(*given)
