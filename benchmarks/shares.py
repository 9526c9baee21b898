"""How far shares are off, and whether their intervals hold, under shifted shares of labels.

    python benchmarks/shares.py runs/ masked=place/index_masked.jsonl ... --features features/ \
        --figures docs/figures

Twenty times a model learns one stratified half of a set; samples are drawn from the other. The
artificial-prevalence protocol: shares from a flat Dirichlet distribution (*shifted*), or those of
the set (*as trained*); of each label a multinomial number of posts, without replacement, 500 in
all, or as many as the rarest label allows. 1,000 samples of each kind and set.

- *error*: the mean absolute error over labels, in percentage points, against the sample's own
  shares, as quantification measures it; in brackets against the shares that it was drawn from,
  which an analyst wants, and which no method knows better than the sample's size allows;
- *coverage*: how often an interval holds the share that the sample was drawn from.

Counted are the most probable labels; averaged the probabilities (PCC); ACC and PACC the adjusted
counts of either, EMQ expectation maximisation, each with the held-out posts of the model. Ours is
`sgmft.evaluation.shares`. Models are kept in runs/.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from learning_curves import save
from matplotlib.figure import Figure
from trained import arguments, trained

from sgmft import Post, read_posts
from sgmft.data.splits import split_posts
from sgmft.evaluation.figures import CELL, INK, svg_text
from sgmft.evaluation.shares import ShareEstimator, maximise, onto_simplex

HALVES, SAMPLES, POSTS = 20, 1000, 500
METHODS = ("counted", "averaged", "ACC", "PACC", "EMQ", "ours")


def main() -> None:
    parser = arguments(__doc__, "gated-experts")
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    head = "| set | shares | posts | " + " | ".join(METHODS) + " | ours / counted | coverage |"
    print(head + "\n|" + "---|" * (head.count("|") - 1), flush=True)
    drawn = {}
    for item in options.tables:
        name, table = item.split("=", 1)
        found = [measure(f"{options.runs}/{name}", table, x, options) for x in range(HALVES)]
        for shares, rows in zip(("shifted", "as trained"), zip(*found, strict=True), strict=True):
            errors, wider, covered, posts = (
                np.concatenate(x).mean(0) for x in zip(*rows, strict=True)
            )
            cells = [f"{100 * x:.2f} ({100 * y:.2f})" for x, y in zip(errors, wider, strict=True)]
            ratio = f"{errors[-1] / errors[0]:.2f} ({wider[-1] / wider[0]:.2f})"
            figures = [name, shares, f"{posts:.0f}", *cells, ratio, f"{100 * covered:.1f} %"]
            print(f"| {' | '.join(figures)} |", flush=True)
            drawn[name, shares] = errors, covered
    if options.figures:
        save(options.figures / "shares.svg", draw(drawn))


def measure(runs: str, table: str, seed: int, options) -> list[list[np.ndarray]]:
    """Errors against both shares, coverage and sizes of samples of one half, shifted and not."""
    learned, left = split(table, seed)
    model = trained("gated-experts", learned, Path(f"{runs}-{seed}"), options.features)
    found = [p for p in model.predictions(left) if p.probabilities is not None]
    truth = np.array([model.labels.index(str(p.post.label)) for p in found])
    probs = np.array([p.probabilities for p in found], float)
    held_out = model.held_out
    parts = np.array([p.parts for p in found])
    estimator = ShareEstimator(probs, probs.argmax(1), np.arange(len(probs)), parts, held_out)
    alike = held_out.parts == np.bincount(parts).argmax()
    before = held_out.probabilities[alike].astype(float), held_out.classes[alike]
    classes, rng = len(model.labels), np.random.default_rng(seed)
    pools, usual = [np.flatnonzero(truth == k) for k in range(classes)], np.bincount(truth)
    rows = []
    for shifted in (True, False):
        results = []
        for _ in range(SAMPLES // HALVES):
            shares = rng.dirichlet(np.ones(classes)) if shifted else usual / usual.sum()
            number = int(min(POSTS, 0.8 * (usual / shares.clip(1e-9)).min()))
            while ((count := rng.multinomial(number, shares)) > usual).any():
                number -= 5
            drawn = [
                rng.choice(pool, n, replace=False) for pool, n in zip(pools, count, strict=True)
            ]
            sample = np.concatenate(drawn)
            ours = estimator.draw(estimator.estimate(sample), sample)
            every = np.array([*others(probs[sample], *before), ours.share])
            own = count / number
            covered = ((ours.low <= shares) & (shares <= ours.high)).mean()
            errors = [np.abs(every - x).mean(1) for x in (own, shares)]
            results.append((*errors, covered, number))
        rows.append([np.array(x) for x in zip(*results, strict=True)])
    return rows


def split(table: str, seed: int) -> tuple[list[Post], list[Post]]:
    """Two stratified halves of the labelled posts of a table."""
    posts = [post for post in read_posts(table) if post.error is None and post.label]
    one, other = split_posts(posts, 0.5, seed)
    return [posts[i] for i in one], [posts[i] for i in other]


def others(probs: np.ndarray, held_out: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
    """Shares (K,) by the other methods, in the order of `METHODS`."""
    one = np.eye(probs.shape[1])
    counts = [one[x.argmax(1)] for x in (probs, held_out)]
    adjusted = []
    for new, known in (counts, (probs, held_out)):
        means = np.array([known[classes == k].mean(0) for k in range(len(one))])
        solved = np.linalg.lstsq(means.T, new.mean(0), rcond=None)[0]
        adjusted.append(onto_simplex(solved[None])[0])
    prior = np.bincount(classes, minlength=len(one)) / len(classes)
    found = maximise(probs.clip(1e-9) / prior, np.ones(len(probs)), prior)
    return [counts[0].mean(0), probs.mean(0), *adjusted, found]


def draw(found: dict[tuple[str, str], tuple[np.ndarray, float]]) -> str:
    """Errors of counted and of our shares, and coverage, by set."""
    names = [*dict.fromkeys(name for name, _ in found)]
    y = np.arange(len(names))[::-1]

    def drawn() -> Figure:
        figure = Figure(figsize=(7.2, 0.42 * len(names) + 1.3), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        looks = {"shifted": (CELL, 0.12), "as trained": ("#d55e00", -0.12)}
        for shares, (colour, up) in looks.items():
            errors = np.array([found[name, shares][0] for name in names]) * 100
            left.hlines(y + up, errors[:, -1], errors[:, 0], color=colour, alpha=0.4)
            left.plot(errors[:, 0], y + up, "o", color=colour, fillstyle="none")
            left.plot(errors[:, -1], y + up, "o", color=colour, label=shares)
            covered = [100 * found[name, shares][1] for name in names]
            right.plot(covered, y + up, "o", color=colour)
        left.set(yticks=y, yticklabels=names, xscale="log", xlabel="mean error, points (○ counted)")
        left.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        left.minorticks_off()
        right.axvspan(93, 97, color=INK, alpha=0.08)
        right.set(xlim=(85, 100), xlabel="coverage of 95 % intervals, %")
        for axes in (left, right):
            axes.grid(axis="x", alpha=0.15)
        left.legend(fontsize=8.5)
        return figure

    return svg_text(drawn, "sgmft")


if __name__ == "__main__":
    main()
