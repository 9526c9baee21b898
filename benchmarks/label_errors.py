"""How well `sgmft audit` finds labels that were made wrong, beside cleanlab and self-confidence.

    python benchmarks/label_errors.py runs/ masked=place/index_masked.jsonl ... --features features/

A table has a column `split`. A share of its `train` posts get another label: any, or one drawn as
the gated experts confuse clean labels. Average precision of finding them by the probability of the
label in the audit's two rounds, in the first alone (self-confidence), and by cleanlab, from the
first round: the best of its filters, with the rest at the end, and the best of its rankings. Then
how many of the flagged labels are wrong, how many of the wrong are flagged, and how many of their
suggestions are right; and the accuracy on the clean `test` posts of the default trained on the
labels as they were, on the wrong ones, without what is flagged, and with the suggestions for it.
Finished runs are kept in runs/.

cleanlab (pip install cleanlab) must be there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from learning_curves import Table, kept, read_table, task_of
from sklearn.metrics import average_precision_score

from sgmft.evaluation.audit import doubt_labels
from sgmft.jobs.audit import cross_fit
from sgmft.models.base import predict_logits
from sgmft.training.fit import TrainingTask, fit_network

KINDS = ("random", "confusion")
FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
WAYS = ("nothing", "dropped", "corrected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", default="0.05,0.1,0.2")
    parser.add_argument("--most", type=int, default=3000, help="train posts of a set, drawn")
    parser.add_argument("--only-finding", action="store_true", help="without the accuracies")
    options = parser.parse_args()
    for item in options.tables:
        name, file = item.split("=", 1)
        table = read_table(file, options.features)
        folder = options.runs / f"label-errors-{name}"
        rows = [i for i, post in enumerate(table.posts) if post.row["split"] == "train"]
        rows = sorted(np.random.default_rng(0).permutation(rows)[: options.most].tolist())
        clean = kept(folder / "clean.json", partial(run_clean, table, rows))
        for kind in KINDS:
            for rate in map(float, options.rates.split(",")):
                for seed in range(options.seeds):
                    classes = make_wrong(table, rows, kind, rate, seed, clean["confusion"])
                    file = folder / f"{kind}-{rate:g}-{seed}"
                    found = kept(Path(f"{file}.json"), partial(find, table, rows, classes))
                    tested = {}
                    if not options.only_finding:
                        run = partial(test, table, rows, classes, found)
                        tested = kept(Path(f"{file}-accuracy.json"), run)
                    print_row(name, kind, rate, seed, found, clean, tested)


def run_clean(table: Table, rows: Sequence[int]) -> dict[str, Any]:
    """Accuracy of the default on clean labels, and how it confuses them."""
    task = task_of(table, "gated-experts", rows, 0)
    probs = cross_fit(task)
    confusion = np.zeros((len(table.labels),) * 2, int)
    np.add.at(confusion, (task.data.labels, probs.argmax(1)), 1)
    return {"confusion": confusion.tolist(), "accuracy": accuracy(table, task)}


def make_wrong(
    table: Table, rows: Sequence[int], kind: str, rate: float, seed: int, confusion: Any
) -> Any:
    rng, classes = np.random.default_rng(seed), table.data.labels[list(rows)].copy()
    for i in rng.choice(len(classes), round(rate * len(classes)), replace=False):
        shares = np.ones(len(table.labels))
        if kind == "confusion":
            shares = np.array(confusion[classes[i]], float) + 1e-9
        shares[classes[i]] = 0
        classes[i] = rng.choice(len(shares), p=shares / shares.sum())
    return classes


def with_classes(table: Table, rows: Sequence[int], classes: Any) -> TrainingTask:
    task = task_of(table, "gated-experts", rows, 0)
    return replace(task, data=task.data._replace(labels=np.asarray(classes)))


def find(table: Table, rows: Sequence[int], classes: Any) -> dict[str, Any]:
    """Average precisions, and what is flagged."""
    task = with_classes(table, rows, classes)
    wrong = classes != table.data.labels[list(rows)]
    first = cross_fit(task)
    both = (first + cross_fit(task, doubt_labels(first, classes)[2])) / 2
    own, best, flagged = doubt_labels(both, classes)
    scores = {"audit": -own, "self-confidence": -doubt_labels(first, classes)[0]}
    for method in RANKINGS:
        for adjusted in (False, True):
            if adjusted and method == RANKINGS[-1]:
                continue  # which cleanlab does not have
            given = {"method": method, "adjust_pred_probs": adjusted}
            name = f"cleanlab {method}{', adjusted' * adjusted}"
            scores[name] = -get_label_quality_scores(classes, first.astype(float), **given)
    for way in FILTERS:
        for ranked in RANKINGS[:2]:
            given = {"filter_by": way, "return_indices_ranked_by": ranked, "n_jobs": 1}
            order = find_label_issues(classes, first.astype(float), **given)
            rank = np.full(len(classes), -1.0)
            rank[order] = np.arange(len(order))[::-1]
            scores[f"cleanlab {way} by {ranked}"] = rank
    right = best == table.data.labels[list(rows)]
    return {
        "precision": {k: float(average_precision_score(wrong, x)) for k, x in scores.items()},
        "flagged": np.flatnonzero(flagged).tolist(),
        "best": best.tolist(),
        "found": float(flagged[wrong].mean()),
        "of flagged": float(wrong[flagged].mean()),
        "suggestion right": float(right[flagged & wrong].mean()),
    }


def test(table: Table, rows: Sequence[int], classes: Any, found: Any) -> dict[str, float]:
    """Accuracies on the test posts."""
    flagged = np.isin(np.arange(len(rows)), found["flagged"])
    task = with_classes(table, rows, classes)
    dropped = replace(task, data=task.data.take(~flagged))
    corrected = with_classes(table, rows, np.where(flagged, found["best"], classes))
    tasks = zip(WAYS, (task, dropped, corrected), strict=True)
    return {way: accuracy(table, one) for way, one in tasks}


def accuracy(table: Table, task: TrainingTask) -> float:
    model = fit_network(task, []).model
    rows = np.array([i for i, post in enumerate(table.posts) if post.row["split"] == "test"])
    unseen = table.data.take(rows)
    logits = predict_logits(model, unseen.features).logits
    return float((logits.argmax(-1) == unseen.labels).mean())


def print_row(
    name: str, kind: str, rate: float, seed: int, found: Any, clean: Any, tested: Any
) -> None:
    values = found["precision"]
    filters = {k: x for k, x in values.items() if " by " in k}
    rankings = {k: x for k, x in values.items() if k.startswith("cleanlab") and " by " not in k}
    cells = [values["audit"], values["self-confidence"], max(filters.values())]
    cells += [max(rankings.values())]
    cells += [found["of flagged"], found["found"], found["suggestion right"]]
    if tested:
        cells += [clean["accuracy"], *(tested[way] for way in WAYS)]
    shown = " | ".join(f"{100 * x:.1f}" for x in cells)
    print(f"| {name} | {kind} | {100 * rate:.0f} % | {seed} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
