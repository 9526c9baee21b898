"""Accuracy when one side of a post does not tell its label, and whether the gate notices.

    python benchmarks/noise.py runs/ place/index_masked.jsonl --features features/ \
        --posts 600 --figures docs/figures

Two experiments, each on three of five stratified folds, every post of which is a test post once:

- *generated*: posts of `sgmft.sample` at noise levels from 0 to 1, which sets how many posts are
  told by one side only and how disturbed texts and pictures are.
- *mixtures*: a table whose column `informative` knows which side tells the label (both, text or
  image). Of the other folds' posts as many of each kind are drawn as the mixture asks for, 450 in
  all; the accuracy at a mixture is that of all test posts of each kind, weighted alike. The share
  that one side does not tell rises for pictures only, for texts only, or for both by halves.

Then the gate P^m, the text's weight (of `elements`: its mean over the D features), on test posts
with both sides, trained on all posts of the other folds: the mean for each kind, and Spearman's
correlation with the side that tells the label (text 1, both 0, image -1) with its 95 % bootstrap
interval over posts. Methods are trained as in learning_curves.py. Accuracy in percent; of other
methods with the difference to `default` and its 95 % interval (paired bootstrap over posts).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cross_validation import folds_of
from learning_curves import SYSTEMS, Table, kept, learn, read_table, save, save_lines, task_of
from scipy.stats import spearmanr

from sgmft.figures import drawing_style, svg_text
from sgmft.nn import Network
from sgmft.nn.batch import Batch
from sgmft.nn.similarity import modality_gate
from sgmft.sample import write_sample
from sgmft.splits import split_posts
from sgmft.training import answer

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.0, 0.5, 1.0)
KINDS = {"both": 0, "text": 1, "image": -1}  # which side tells the label, and its code
LEARNED_FROM, REFERENCE, RESAMPLES = 450, "default", 2000
MIXTURES = {  # kinds of the posts that take the place of those told by both sides
    "pictures that do not tell": ("text",),
    "texts that do not tell": ("image",),
    "either side does not tell": ("text", "image"),
}
Cell = Mapping[str, Any]  # rows: test posts; right: 0 or 1; gate: of those with both sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--posts", type=int, default=600, help="generated at each level")
    parser.add_argument(
        "--methods", default="late-average,linear-probe,unis-mmc,default gate=constant,default"
    )
    parser.add_argument("--gates", default="default,elements")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    columns, gates = on_generated(options)
    table = read_table(options.table, options.features)
    experiments = {"generated, noise": (LEVELS, columns), **on_mixtures(table, options)}
    for title, (levels, columns) in experiments.items():
        print(f"\n| {title} | {' | '.join(f'{level:g}' for level in levels)} |")
        print("|---" * (1 + len(levels)) + "|")
        for method in options.methods.split(","):
            line = " | ".join(told(column, method) for column in columns)
            print(f"| {SYSTEMS[method][0]} | {line} |")
    print("\n| posts | method | both | text only | image only | correlation |")
    print("|---|---|---|---|---|---|")
    found = cells(table, options.gates, None, options.runs / "all", options.folds)
    gates += [gate_line(table, "the table", method, found[method]) for method in found]
    print("\n".join(gates), flush=True)
    if options.figures:
        panels = [
            (title, "noise" if levels is LEVELS else "share of posts", levels, lines(columns))
            for title, (levels, columns) in experiments.items()
        ]
        save_lines(options.figures / "noise.svg", panels)
        draw_gates(options.figures / "gate.svg", *gates_by_kind(table, found[REFERENCE]))


Columns = list[dict[str, np.ndarray]]  # one a level: accuracies of each method


def on_generated(options: argparse.Namespace) -> tuple[Columns, list[str]]:
    """Accuracies at each level of noise, and the gates' lines."""
    columns, gates = [], []
    for level in LEVELS:
        folder = options.runs / f"generated-{options.posts}" / f"{level:g}"
        file = folder / "posts" / "posts.jsonl"
        if not file.is_file():
            write_sample(file.parent, options.posts, noise=level)
        table = read_table(file, options.features)
        found = cells(table, options.methods, None, folder, options.folds)
        columns.append(accuracies(table, found, None))
        if len(np.unique(kinds_of(table))) > 1:
            gates.append(
                gate_line(table, f"generated, noise {level:g}", REFERENCE, found[REFERENCE])
            )
    return columns, gates


def on_mixtures(
    table: Table, options: argparse.Namespace
) -> dict[str, tuple[Sequence[float], Columns]]:
    """Accuracies at each mixture."""
    experiments: dict[str, tuple[Sequence[float], Columns]] = {}
    for title, others in MIXTURES.items():
        columns = []
        for share in SHARES:
            mixture = {"both": 1 - share} | {kind: share / len(others) for kind in others}
            mixture = {kind: n for kind, n in mixture.items() if n}
            folder = options.runs / "-".join(f"{kind}-{n:g}" for kind, n in mixture.items())
            found = cells(table, options.methods, mixture, folder, options.folds)
            columns.append(accuracies(table, found, mixture))
        experiments[title] = (SHARES, columns)
    return experiments


def kinds_of(table: Table) -> np.ndarray:
    return np.array([post.row["informative"] for post in table.posts])


def cells(
    table: Table, methods: str, mixture: Mapping[str, float] | None, folder: Path, folds: int
) -> dict[str, list[Cell]]:
    """What each method's runs on these folds said; without a mixture all posts are learned from."""
    parts = folds_of(table.posts)
    return {
        method: [
            kept(
                folder / f"{method.replace(' ', '-')}-{i}.json",
                partial(run, table, method, mixture, parts[i], i),
            )
            for i in range(folds)
        ]
        for method in methods.split(",")
    }


def run(
    table: Table, method: str, mixture: Mapping[str, float] | None, test: list[int], fold: int
) -> Cell:
    unseen = set(test)
    train = [i for i in range(len(table.posts)) if i not in unseen]
    if mixture is not None:
        train = draw(table, train, mixture, fold)
    network = learn(task_of(table, method, train, fold), [table.posts[i] for i in train])
    held = table.data.take(torch.tensor(test))
    right = answer(network, held.features).logits.argmax(-1) == held.labels
    batch = held.features.batch(torch.arange(len(test)), network.reads_ngrams)
    gate = gate_of(network, batch)
    both = batch.has_text & batch.has_image
    return {
        "rows": test,
        "right": right.int().tolist(),
        "gate": None if gate is None else torch.where(both, gate, torch.nan).tolist(),
    }


def draw(table: Table, rows: list[int], mixture: Mapping[str, float], seed: int) -> list[int]:
    """Posts of each kind in the mixture's shares, stratified by label."""
    kinds, drawn = kinds_of(table), []
    for kind, share in mixture.items():
        pool, size = [i for i in rows if kinds[i] == kind], round(share * LEARNED_FROM)
        if size:
            _, chosen = split_posts([table.posts[i] for i in pool], size, seed)
            drawn += [pool[i] for i in chosen]
    return drawn


@torch.no_grad()
def gate_of(network: Network, batch: Batch) -> torch.Tensor | None:
    """P^m of each post (B,), a mean where it has one for each feature; None without a gate."""
    if hasattr(network, "temperature") and network.config.sim:
        t, v = network.pooled_inputs(batch)
        return modality_gate(t, v, network.temperature(), network.config.gate).mean(-1)
    return (network(batch).parts or {}).get("gate")


def accuracies(
    table: Table, found: Mapping[str, Sequence[Cell]], mixture: Mapping[str, float] | None
) -> dict[str, np.ndarray]:
    """Of each method in 0..1, (1 + RESAMPLES,): observed, and with posts drawn again by kind."""
    dice = np.random.default_rng(0)
    kinds = kinds_of(table)[[i for cell in found[REFERENCE] for i in cell["rows"]]]
    weights = np.zeros((1 + RESAMPLES, len(kinds)))
    for kind, share in (mixture or {kind: (kinds == kind).mean() for kind in KINDS}).items():
        posts = np.flatnonzero(kinds == kind)
        if len(posts):
            even = np.full(len(posts), 1 / len(posts))
            weights[0, posts] = share * even
            drawn = dice.multinomial(len(posts), even, RESAMPLES)
            weights[1:, posts] = drawn * share / len(posts)
    return {
        method: weights @ np.array([x for cell in runs for x in cell["right"]])
        for method, runs in found.items()
    }


def lines(columns: Columns) -> dict[str, np.ndarray]:
    """For `save_lines`."""
    return {method: np.array([[c[method][0]] for c in columns]) for method in columns[0]}


def told(column: Mapping[str, np.ndarray], method: str) -> str:
    values = 100 * column[method]
    if method == REFERENCE:
        return f"{values[0]:.1f}"
    gap = values - 100 * column[REFERENCE]
    low, high = np.percentile(gap[1:], [2.5, 97.5])
    return f"{values[0]:.1f} ({gap[0]:+.1f} [{low:+.1f}, {high:+.1f}])"


def gate_line(table: Table, name: str, method: str, runs: Sequence[Cell]) -> str:
    """A line of the table of gates."""
    gate, code = gates_by_kind(table, runs)
    means = [f"{gate[code == c].mean():.3f}" if (code == c).any() else "–" for c in KINDS.values()]
    dice = np.random.default_rng(0)
    drawn = [
        spearmanr(gate[rows], code[rows]).statistic
        for rows in dice.integers(len(gate), size=(RESAMPLES, len(gate)))
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    rho = f"{spearmanr(gate, code).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"| {name} | {SYSTEMS[method][0]} | {' | '.join(means)} | {rho} |"


def gates_by_kind(table: Table, runs: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Gates of the test posts with both sides, and the code of what tells their label."""
    gate = np.array([x for cell in runs for x in cell["gate"]], float)
    kinds = kinds_of(table)[[i for cell in runs for i in cell["rows"]]]
    code = np.array([KINDS[kind] for kind in kinds])
    return gate[np.isfinite(gate)], code[np.isfinite(gate)]


def draw_gates(path: Path, gate: np.ndarray, code: np.ndarray) -> None:
    """Boxes from the first to the third quartile, whiskers from the 5th to the 95th percentile."""
    from matplotlib.figure import Figure

    titles = {0: "text and picture", 1: "text only", -1: "picture only"}
    with drawing_style([]):
        figure = Figure(figsize=(5.2, 2.2), layout="constrained")
        axes = figure.subplots()
        kinds = [gate[code == c] for c in titles]
        look = {"color": SYSTEMS[REFERENCE][1], "linewidth": 1.4}
        axes.boxplot(
            kinds,
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            widths=0.5,
            tick_labels=list(titles.values()),
            **{f"{part}props": look for part in ("box", "whisker", "cap", "median")},
        )
        axes.invert_yaxis()
        axes.set_title("What tells the label", fontsize=10, loc="left", fontweight="bold", x=-0.22)
        axes.set_xlabel("gate: the text's weight")
        axes.axvline(0.5, alpha=0.3, lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        save(path, svg_text(figure))


if __name__ == "__main__":
    main()
