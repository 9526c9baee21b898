"""An exported model against the model it was exported from: cold start, posts a second, size.

    python benchmarks/export.py MODEL POSTS.jsonl

Each command runs as a user starts it, in turns, ROUNDS times, on the first post and on the first
POSTS, without a feature store; the probabilities must agree.
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
            ratios = sorted(a / b for a, b in zip(times["torch"], times["onnx"], strict=True))
            print(
                f"{posts} posts: torch {median(times['torch']):.2f} s, "
                f"onnx {median(times['onnx']):.2f} s, ratio {median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f}); probabilities differ by at most "
                f"{np.nanmax(apart):.1e}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
