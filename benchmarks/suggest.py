"""Accuracy by the number of labels, of posts that `sgmft suggest` chose and of random ones.

    python benchmarks/suggest.py runs/ masked=place/index_masked.jsonl ... --features features/

A table has a column `split`. A seed leaves out a random tenth of its `train` posts; labels are
bought from the others: the first 50 by `suggest` without a model, every further batch with the
model trained so far, up to 100, 200 and 400, against a random order of the same posts. `--method`
learns from them and predicts all `test` posts. Finished runs are kept in runs/ and not computed
again.

Prints accuracy in percent, mean ± standard deviation over seeds, and the paired difference with its
95 % bootstrap interval over seeds and test posts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from learning_curves import SYSTEMS, Table, kept, read_table, spread, task_of

from sgmft.evaluation.calibration import fit_temperature
from sgmft.jobs.suggest import choose_posts, margin_uncertainty
from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits
from sgmft.training.fit import fit_network

SIZES = (50, 100, 200, 400)
WAYS = ("random", "suggest")
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--method", default="gated-experts")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for item in options.tables:
        name, file = item.split("=", 1)
        table = read_table(file, options.features)
        found = {
            way: [
                kept(
                    options.runs / f"suggest-{name}" / f"{options.method}-{way}-{seed}.json",
                    partial(run, table, options.method, way, seed),
                )
                for seed in range(options.seeds)
            ]
            for way in WAYS
        }
        right = {way: np.array([one["right"] for one in found[way]], float) for way in WAYS}
        report(name, options.method, right)


def run(table: Table, method: str, way: str, seed: int) -> dict[str, Any]:
    """Whether each test post is right, after each number of labels."""
    rng = np.random.default_rng(seed)
    train = [i for i, post in enumerate(table.posts) if post.row["split"] == "train"]
    test = np.array([i for i, post in enumerate(table.posts) if post.row["split"] == "test"])
    order = [train[i] for i in rng.permutation(len(train))]
    pool = sorted(order[: len(order) * 9 // 10])
    features = table.data.features.take(np.array(pool))
    drawn: list[int] = []  # positions in `pool`
    doubts = None
    right = []
    for size in SIZES:
        if way == "random":
            drawn = [pool.index(i) for i in order[:size]]
        else:
            more = size - len(drawn)
            drawn += choose_posts(features, more, uncertainty=doubts, covered=drawn, seed=seed)
        task = task_of(table, method, [pool[i] for i in drawn], seed)
        model, _, left_out, _ = fit_network(task, [])
        unseen = table.data.take(test)
        logits = predict_logits(model, unseen.features).logits
        right.append((logits.argmax(-1) == unseen.labels).astype(int).tolist())
        if way == "suggest":
            temperature = fit_temperature(left_out.logits, left_out.labels)
            probs = softmax(predict_logits(model, features).logits / temperature)
            doubts = margin_uncertainty(probs)
        print(way, seed, size, f"{np.mean(right[-1]):.3f}", flush=True)
    return {"right": right}


def report(name: str, method: str, right: dict[str, Any]) -> None:
    """Rows of `right`: (seeds, sizes, test posts)."""
    seeds, _, posts = right["random"].shape
    title = SYSTEMS[method][0]
    print(f"\n| {name}, {title}: labels | {' | '.join(map(str, SIZES))} |\n|---{'|---' * 4}|")
    for way in WAYS:
        cells = [spread(list(right[way][:, k].mean(1))) for k in range(len(SIZES))]
        print(f"| {way} | {' | '.join(cells)} |")
    cells = [interval(right["suggest"][:, k] - right["random"][:, k]) for k in range(len(SIZES))]
    print(f"| difference | {' | '.join(cells)} |", flush=True)
    print(f"({seeds} seeds, {posts} test posts)")


def interval(gain: Any) -> str:
    """Percentage points: the mean of (seeds, posts), and its 95 % interval."""
    rng = np.random.default_rng(0)
    seeds, posts = gain.shape
    means: Sequence[float] = [
        gain[rng.integers(seeds, size=seeds)][:, rng.integers(posts, size=posts)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = 100 * np.quantile(means, [0.025, 0.975])
    return f"{100 * gain.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    main()
