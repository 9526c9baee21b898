"""Students of a teacher that errs: does a small model become better than the labels it learns?

    python benchmarks/distil.py runs/ masked=place/index_masked.jsonl ... --features features/

The teacher is simulated, since its true accuracy must be known. It has labelled all posts of a
table, right for a share of them, 70, 80 or 90 %; which of them, and what it says of them, is drawn:

- *independent* errors fall on any post alike, and go to any other label alike;
- *correlated* errors fall on a post in proportion to what a linear probe, fitted to human labels of
  other training posts (in five folds), gives to wrong labels, and go to the most probable of these:
  the teacher finds hard what the student finds hard, and confuses what it confuses;
- *hard* labels are the label alone; of *soft* ones it has a share drawn from 0.6 to 1 where it is
  right, and from 0.4 to 0.8 where it is wrong, so that the teacher is less sure where it errs. The
  rest is spread as errors are; where it is wrong, half of the rest is the true label's.

Students learn so many `train` posts (a column `split`) with the teacher's labels alone, as
`sgmft train` does, and are judged by the human labels of all `test` posts, as the teacher is. The
accuracies are in percent with 95 % intervals (bootstrap over test posts); ▲ and ▼: the student is
above or below its teacher, the interval of the paired difference leaving out 0.

A second table has labels by humans (50, 100 or 200 posts), by the teacher with 80 % and correlated
errors (all posts, hard labels), and by both: human labels in the place of the teacher's, or all
labels estimated from both by Dawid & Skene, as by `sgmft train --annotators`. At last, over all
sets, the mean difference of student and teacher, in points, and how many are marked. Finished runs
are kept in runs/ and not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from learning_curves import SYSTEMS, Table, kept, read_table, task_of

from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits
from sgmft.training.annotators import estimate_labels
from sgmft.training.fit import fit_network

ACCURACIES, ERRORS, KINDS = (0.7, 0.8, 0.9), ("independent", "correlated"), ("hard", "soft")
SIZES, PEOPLE, RESAMPLES = (200, 500, 1000), (50, 100, 200), 2000
METHODS, SECOND = ("gated-experts", "linear-probe"), (0.8, "correlated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--accuracies", default=",".join(map(str, ACCURACIES)))
    options = parser.parse_args()
    beaten: dict[tuple[Any, ...], list[tuple[float, str]]] = {}
    for item in options.tables:
        name, file = item.split("=", 1)
        bench = Bench.of(read_table(file, options.features), options.runs / name)
        shares = [*map(float, options.accuracies.split(","))]
        students(name, bench, options.methods.split(","), shares, beaten)
        people(name, bench)
    print("\n| student | labels | teacher | errors | 200 | 500 | 1,000 | all |")
    print("|---|---|---|---|---|---|---|---|")
    for method, kind, share, errors in dict.fromkeys(key[:4] for key in beaten):
        found = [beaten[method, kind, share, errors, size] for size in (*SIZES, 0)]
        cells = [
            f"{np.mean([d for d, _ in each]):+.1f} ({marks.count('▲')} ▲, {marks.count('▼')} ▼)"
            for each in found
            for marks in ["".join(mark for _, mark in each)]
        ]
        lead = f"{SYSTEMS[method][0]} | {kind} | {100 * share:.0f} % | {errors}"
        print(f"| {lead} | {' | '.join(cells)} |", flush=True)


class Bench(NamedTuple):
    """A table, what a probe says of all its posts, and where the runs are kept."""

    table: Table
    probs: np.ndarray  # (N, K) by probes that have not learned from the post
    train: np.ndarray  # positions
    test: np.ndarray
    runs: Path

    @classmethod
    def of(cls, table: Table, runs: Path) -> Bench:
        split = np.array([post.row["split"] for post in table.posts])
        train, test = (np.flatnonzero(split == part) for part in ("train", "test"))

        def probe() -> dict[str, Any]:
            fitted = fit_network(task_of(table, "linear-probe", train.tolist(), 0), [])
            logits = np.zeros((len(split), len(table.labels)))
            logits[train] = fitted.held_out.logits
            logits[test] = predict_logits(fitted.model, table.data.features.take(test)).logits
            return {"probs": softmax(logits).tolist()}

        probs = np.array(kept(runs / "probe.json", probe)["probs"])
        return cls(table, probs, train, test, runs)

    def teacher(self, accuracy: float, errors: str) -> np.ndarray:
        """The teacher's probabilities (N, K)."""
        truth, (posts, classes) = self.table.data.labels, self.probs.shape
        rng, rows = np.random.default_rng(round(100 * accuracy)), np.arange(posts)
        spread = self.probs.copy() if errors == "correlated" else np.ones((posts, classes))
        spread[rows, truth] = 0
        spread += 1e-9 * (np.arange(classes) != truth[:, None])
        number = round((1 - accuracy) * posts)
        wrong = np.zeros(posts, bool)
        wrong[rng.choice(posts, number, False, spread.sum(1) / spread.sum())] = True
        other = spread.argmax(1)
        if errors == "independent":
            other = (truth + rng.integers(1, classes, posts)) % classes
        label = np.where(wrong, other, truth)
        sure = np.where(wrong, rng.uniform(0.4, 0.8, posts), rng.uniform(0.6, 1, posts))
        spread[rows, label] = 0
        rest = (1 - sure)[:, None] * spread / spread.sum(1, keepdims=True)
        rest[wrong] /= 2
        rest[rows[wrong], truth[wrong]] += (1 - sure[wrong]) / 2
        rest[rows, label] = sure
        return rest / rest.sum(1, keepdims=True)

    def drawn(self, size: int) -> np.ndarray:
        """So many training posts, in a fixed order of which the smaller sets are the beginning."""
        return np.random.default_rng(0).permutation(self.train)[: size or None]

    def learned(
        self, method: str, rows: np.ndarray, labels: np.ndarray, soft: np.ndarray | None, file: str
    ) -> np.ndarray:
        """Whether a student of these posts' labels is right on each of the test posts."""

        def run() -> dict[str, Any]:
            own = None if soft is None else soft.astype(np.float32)
            table = self.table._replace(data=self.table.data._replace(labels=labels, soft=own))
            model = fit_network(task_of(table, method, rows.tolist(), 0), []).model
            unseen = self.table.data.take(self.test)
            found = predict_logits(model, unseen.features).logits.argmax(1)
            return {"right": (found == unseen.labels).astype(int).tolist()}

        return np.array(kept(self.runs / f"{file}.json", run)["right"])


def students(
    name: str,
    bench: Bench,
    methods: Sequence[str],
    accuracies: Sequence[float],
    beaten: dict[tuple[Any, ...], Any],
) -> None:
    sizes = [size for size in (*SIZES, 0) if size < len(bench.train)]
    shown = [f"{size or len(bench.train):,}" for size in sizes]
    head = f"{name}: student | labels | errors | teacher | {' | '.join(shown)}"
    print(f"\n| {head} |\n|{'---|' * (4 + len(sizes))}", flush=True)
    for share in accuracies:
        for errors in ERRORS:
            probs = bench.teacher(share, errors)
            labels = probs.argmax(1)
            own = labels[bench.test] == bench.table.data.labels[bench.test]
            for method in methods:
                for kind in KINDS:
                    cells = []
                    for size in sizes:
                        file = f"{method}-{kind}-{100 * share:.0f}-{errors}-{size or 'all'}"
                        soft = probs if kind == "soft" else None
                        right = bench.learned(method, bench.drawn(size), labels, soft, file)
                        low, high = interval(right - own.astype(int))
                        mark = "▲" if low > 0 else "▼" if high < 0 else ""
                        cells.append(f"{shown_with_interval(right)} {mark}".rstrip())
                        key = method, kind, share, errors, size
                        beaten.setdefault(key, []).append((100 * (right.mean() - own.mean()), mark))
                    lead = f"{SYSTEMS[method][0]} | {kind} | {errors} | {shown_with_interval(own)}"
                    print(f"| {lead} | {' | '.join(cells)} |", flush=True)


def people(name: str, bench: Bench) -> None:
    share, errors = SECOND
    method, truth = METHODS[0], bench.table.data.labels
    answers = bench.teacher(share, errors).argmax(1)
    every = bench.drawn(0)
    lines: Mapping[str, list[np.ndarray]] = {
        title: []
        for title in ("humans", "the teacher, all posts", "both, in its place", "both, estimated")
    }
    for count in PEOPLE:
        rows, file = bench.drawn(count), f"people-{count}"
        known = np.full(len(truth), -1)
        known[rows] = truth[rows]
        both = np.where(known < 0, answers, known)
        classes = len(bench.table.labels)
        guess = np.zeros((len(truth), classes))
        guess[every] = estimate_labels(answers[every, None], known[every], classes).probabilities
        learned = partial(bench.learned, method)
        found = [
            learned(rows, truth, None, file),
            learned(every, answers, None, f"{method}-hard-{100 * share:.0f}-{errors}-all"),
            learned(every, both, None, f"{file}-both"),
            learned(every, guess.argmax(1), guess, f"{file}-estimated"),
        ]
        for line, right in zip(lines.values(), found, strict=True):
            line.append(right)
    print(f"\n| {name}: labels by | {' | '.join(f'{n} human labels' for n in PEOPLE)} |")
    print(f"|{'---|' * (1 + len(PEOPLE))}")
    for title, line in lines.items():
        print(f"| {title} | {' | '.join(map(shown_with_interval, line))} |", flush=True)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Bounds of the mean, by the bootstrap."""
    rows = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


def shown_with_interval(right: np.ndarray) -> str:
    low, high = interval(right)
    return f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
