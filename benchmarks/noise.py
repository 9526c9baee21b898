"""Accuracy as noise grows, and whether the gate follows the side that tells the label.

    python benchmarks/noise.py runs/ place/index_masked.jsonl --features features/ \
        --figures docs/figures

Everything is cross-validated: five stratified folds, every post a test post once. A table with a
column `informative` (which side tells the label: both, text or image) gives mixtures of 560 posts:

- *text noise*, *picture noise*: this share of the posts has a text, or a picture, that says nothing
  of the label, the others have two sides that do;
- *mismatch*: all posts have two sides that tell a label, but for this share one of them, text or
  picture by halves, is that of a post with another label;
- *generated*: posts of `examples/sample.py --noise`, all of these together.

Then P^m, the gate of the gated experts (the text's weight), on the posts with both sides: its mean
by the side that tells the label, and Spearman's correlation with it (text 1, both 0, image -1) with
its 95 % bootstrap interval over posts. Methods are trained as in learning_curves.py. Accuracy in
percent; ▼ and ▲: below or above the gated experts by more than chance (paired randomisation test
over posts, Holm-corrected over the table, p < 0.05). Finished runs are kept in runs/ and not
computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cross_validation import FOLDS, mark
from learning_curves import SYSTEMS, Table, kept, learn, read_table, save, task_of
from sample_posts import write_sample
from scipy.stats import spearmanr

from sgmft.data.splits import fold_posts, split_posts
from sgmft.evaluation.compare.statistics import corrected, difference
from sgmft.evaluation.figures import svg_text
from sgmft.features.features import Features, LabelledFeatures
from sgmft.features.ragged import Ragged
from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits

POSTS, REFERENCE, RESAMPLES = 560, "gated-experts", 2000
SHARES = (0.0, 0.25, 0.5, 0.75)
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
TELLS = {"text": 1, "both": 0, "image": -1}  # the code of the side that tells the label
METHODS = (
    "text-only,image-only,linear-probe,late-average,unis-mmc,"
    "gated-experts gate=constant,gated-experts"
)
Found = Mapping[str, np.ndarray]  # of a method: probabilities (N, K), and gates (N,) of the experts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    table = read_table(options.table, options.features)
    methods, lines, gates = options.methods.split(","), {}, []
    for title, levels in (
        ("text noise", SHARES),
        ("picture noise", SHARES),
        ("mismatch", SHARES),
        ("generated", LEVELS),
    ):
        tables = [
            generated(options, level) if title == "generated" else mixture(table, title, level)
            for level in levels
        ]
        folders = [options.runs / f"{title.replace(' ', '-')}-{level:g}" for level in levels]
        if title != "generated":  # without noise they are the same posts
            folders[0] = options.runs / "no-noise"
        found = [
            {method: predicted(one, method, folder) for method in methods}
            for one, folder in zip(tables, folders, strict=True)
        ]
        lines[title] = (levels, print_accuracies(title, levels, tables, found))
        gates += [
            gate_line(f"{title} {level:g}", one, told[REFERENCE]["gate"])
            for level, one, told in zip(levels, tables, found, strict=True)
            if level == 0.5
        ]
    gate = predicted(table, REFERENCE, options.runs / "all")["gate"]
    print("\n| posts | text tells | both | picture tells | correlation |\n|---|---|---|---|---|")
    print("\n".join([gate_line("the whole table", table, gate), *gates]), flush=True)
    if options.figures:
        save(options.figures / "noise.svg", draw_lines(lines))
        save(options.figures / "gate.svg", draw_gates(table, gate))


def mixture(table: Table, kind: str, share: float) -> Table:
    """Posts with a share of noise, stratified by label."""
    tells = np.array([post.row["informative"] for post in table.posts])
    noisy = round(share * POSTS)
    if kind == "mismatch":
        return mismatch(select(table, draw(table, tells == "both", POSTS)), noisy)
    other = "image" if kind == "text noise" else "text"
    rows = draw(table, tells == "both", POSTS - noisy) + draw(table, tells == other, noisy)
    return select(table, rows)


def draw(table: Table, pool: np.ndarray, size: int) -> list[int]:
    rows = np.flatnonzero(pool).tolist()
    if not size:
        return []
    _, chosen = split_posts([table.posts[i] for i in rows], size)
    return [rows[i] for i in chosen]


def select(table: Table, rows: list[int]) -> Table:
    posts, data = [table.posts[i] for i in rows], table.data.take(np.array(rows))
    return table._replace(posts=posts, data=data)


def mismatch(table: Table, noisy: int) -> Table:
    """The same posts, of which some have the text or the picture of a post with another label."""
    rng = np.random.default_rng(0)
    labels, posts = table.data.labels, list(table.posts)
    source = {"text": np.arange(len(posts)), "image": np.arange(len(posts))}
    for count, row in enumerate(rng.permutation(len(posts))[:noisy]):
        replaced, tells = (("text", "image"), ("image", "text"))[count % 2]
        source[replaced][row] = rng.choice(np.flatnonzero(labels != labels[row]))
        told = {**posts[row].row, "informative": tells}
        posts[row] = dataclasses.replace(posts[row], row=told)
    features = paired(table.data.features, **source)
    return table._replace(posts=posts, data=LabelledFeatures(features, table.data.labels))


def paired(features: Features, text: np.ndarray, image: np.ndarray) -> Features:
    """The texts at some positions with the pictures at others."""
    t, v = features.take(text), features.take(image)
    assert isinstance(t.ngrams, Ragged)
    pooled = {"text": t.pooled()[0], "image": v.pooled()[1], "rows": None}
    return dataclasses.replace(t, **pooled, has_image=v.has_image)


def generated(options: argparse.Namespace, noise: float) -> Table:
    file = options.runs / f"sample-{noise:g}" / "posts.jsonl"
    if not file.is_file():
        write_sample(file.parent, POSTS, noise=noise)
    return read_table(file, options.features)


def predicted(table: Table, method: str, folder: Path) -> Found:
    """What runs that had not seen them say of all posts."""
    folds = fold_posts(table.posts, FOLDS)
    found: dict[str, np.ndarray] = {}
    for i, test in enumerate(folds):
        file = folder / f"{method.replace(' ', '-')}-{i}.json"
        cell = kept(file, partial(run, table, method, test, i))
        for name, values in cell.items():
            shape = (len(table.posts), *np.shape(values)[1:])
            found.setdefault(name, np.full(shape, np.nan))[test] = np.array(values, float)
    return found


def run(table: Table, method: str, test: list[int], fold: int) -> dict[str, Any]:
    unseen = set(test)
    train = [i for i in range(len(table.posts)) if i not in unseen]
    model = learn(task_of(table, method, train, fold), [table.posts[i] for i in train])
    features = table.data.features.take(np.array(test))
    cell = {"probabilities": softmax(predict_logits(model, features).logits).tolist()}
    if method == REFERENCE:
        batch = features.batch(ngrams=model.uses_ngrams)
        gate = (model.predict(batch).parts or {})["gate"]
        cell["gate"] = np.where(batch.has_text & batch.has_image, gate, np.nan).tolist()
    return cell


def print_accuracies(
    title: str,
    levels: Sequence[float],
    tables: Sequence[Table],
    found: Sequence[Mapping[str, Found]],
) -> dict[str, list[float]]:
    """Print a table; accuracies in percent at each level by method."""
    truths = [table.data.labels for table in tables]
    probs = {method: [told[method]["probabilities"] for told in found] for method in found[0]}
    cells = [(method, i) for method in probs if method != REFERENCE for i in range(len(levels))]
    differences = corrected(
        [
            difference(probs[method][i][None], probs[REFERENCE][i][None], truths[i])
            for method, i in cells
        ]
    )
    marks = dict(zip(cells, map(mark, differences), strict=True))
    print(f"\n| {title} | {' | '.join(f'{level:g}' for level in levels)} |")
    print("|---" * (1 + len(levels)) + "|")
    accuracies = {
        method: [
            100 * float((p.argmax(1) == truth).mean())
            for p, truth in zip(each, truths, strict=True)
        ]
        for method, each in probs.items()
    }
    for method, values in accuracies.items():
        line = [f"{x:.1f}{marks.get((method, i), '')}" for i, x in enumerate(values)]
        print(f"| {SYSTEMS[method][0]} | {' | '.join(line)} |", flush=True)
    return accuracies


def codes_of(table: Table) -> np.ndarray:
    return np.array([TELLS[post.row["informative"]] for post in table.posts])


def gate_line(name: str, table: Table, gate: np.ndarray) -> str:
    there = np.isfinite(gate)
    gate, code = gate[there], codes_of(table)[there]
    means = [f"{gate[code == c].mean():.2f}" if (code == c).any() else "–" for c in (1, 0, -1)]
    rng = np.random.default_rng(0)
    drawn = [
        spearmanr(gate[rows], code[rows]).statistic
        for rows in rng.integers(len(gate), size=(RESAMPLES, len(gate)))
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    rho = f"{spearmanr(gate, code).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"| {name} | {' | '.join(means)} | {rho} |"


def draw_lines(lines: Mapping[str, tuple[Sequence[float], Mapping[str, list[float]]]]) -> str:
    """A panel for each kind of noise, one scale, one legend; single sides are left out."""
    from matplotlib.figure import Figure

    def drawn() -> Figure:
        drawing = Figure(figsize=(9, 3.6), layout="constrained")
        panels = drawing.subplots(1, len(lines), sharey=True)
        for axes, (title, (levels, methods)) in zip(panels, lines.items(), strict=True):
            for method, values in methods.items():
                if method in ("text-only", "image-only"):
                    continue
                name, colour, marker, line = SYSTEMS[method]
                look = {"marker": marker, "markersize": 5, "color": colour, "label": name}
                axes.plot(levels, values, line, lw=2.2 if method == REFERENCE else 1.3, **look)
            axes.set_title(title, fontsize=9.5, loc="left", fontweight="bold")
            axes.set_xlabel("noise" if title == "generated" else "share of posts")
            axes.grid(axis="y", alpha=0.15)
        panels[0].set_ylabel("accuracy, %")
        found, titles = panels[0].get_legend_handles_labels()
        look = {"loc": "outside lower center", "fontsize": 8.5, "ncols": 5}
        drawing.legend(found[::-1], titles[::-1], **look)
        return drawing

    return svg_text(drawn, "sgmft")


def draw_gates(table: Table, gate: np.ndarray) -> str:
    """Boxes from the first to the third quartile, whiskers from the 5th to the 95th percentile."""
    from matplotlib.figure import Figure

    codes, titles = codes_of(table), {0: "text and picture", 1: "text only", -1: "picture only"}

    def drawn() -> Figure:
        drawing = Figure(figsize=(5.2, 2.2), layout="constrained")
        axes = drawing.subplots()
        look = {"color": SYSTEMS[REFERENCE][1], "linewidth": 1.4}
        axes.boxplot(
            [gate[(codes == code) & np.isfinite(gate)] for code in titles],
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            widths=0.5,
            tick_labels=list(titles.values()),
            **{f"{part}props": look for part in ("box", "whisker", "cap", "median")},
        )
        axes.invert_yaxis()
        axes.set_title("What tells the label", fontsize=9.5, loc="left", fontweight="bold")
        axes.set_xlabel("gate P^m: the text's weight")
        axes.axvline(0.5, alpha=0.3, lw=0.8)
        return drawing

    return svg_text(drawn, "sgmft")


if __name__ == "__main__":
    main()
