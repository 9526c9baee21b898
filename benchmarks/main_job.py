"""The presets beside a logistic-regression probe, on labelled tables with a train and a test split.

    python benchmarks/main_job.py benchmarks/main_job.json place=data/index.jsonl news=... --seeds 3

Each table needs the columns text, image, label and split (train/test). Finished cells are kept in
the results file, so a run that was stopped continues. Prints the tables of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgmft import Post, SemanticLocator, read_posts
from sgmft.features import Features

PRESETS = ("default", "tokens", "paper")
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # C of the probe, on standardised features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("tables", nargs="*", metavar="NAME=TABLE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--features", type=Path, default=Path("features"))
    parser.add_argument("--encoder", default="compact")
    arguments = parser.parse_args()
    cells: dict[str, Any] = {}
    if arguments.results.is_file():
        cells = json.loads(arguments.results.read_text("utf-8"))
    work = [(seed, item) for seed in range(arguments.seeds) for item in arguments.tables]
    for seed, item in work:
        name, _, table = item.partition("=")
        train = read_posts(table, where={"split": "train"})
        test = read_posts(table, where={"split": "test"})
        for method in ("probe", *arguments.presets.split(",")):
            key = f"{name}/{method}/{seed}"
            if key in cells or (method == "probe" and seed > 0):
                continue
            start = time.monotonic()
            preset = "default" if method == "probe" else method
            locator = SemanticLocator(
                arguments.encoder, preset=preset, seed=seed, features=arguments.features
            )
            run = _probe if method == "probe" else _fit
            cells[key] = run(locator, train, test) | {"seconds": time.monotonic() - start}
            print(key, f"{cells[key]['accuracy']:.4f}", f"{cells[key]['seconds']:.0f} s")
            temporary = arguments.results.with_suffix(".tmp")
            temporary.write_text(json.dumps(cells, indent=1), "utf-8")
            temporary.replace(arguments.results)
    print(_tables(cells))


def _fit(locator: SemanticLocator, train: list[Post], test: list[Post]) -> dict[str, Any]:
    locator.fit(train)
    predictions = list(locator.predictions(test))
    network = locator.network
    assert network is not None
    history = locator.record["history"]
    return {
        **_figures([p.post for p in predictions], [p.label for p in predictions]),
        "parameters": sum(x.numel() for x in network.parameters()),
        "epochs": len(history),
        "share": None if network.share is None else float(network.share),
        "guidance_first": [history[0]["gate_entropy"], history[0]["element_entropy"]],
        "guidance_last": [history[-1]["gate_entropy"], history[-1]["element_entropy"]],
        "guidance_test": np.mean([p.guidance for p in predictions if p.guidance], 0).tolist(),
    }


def _probe(locator: SemanticLocator, train: list[Post], test: list[Post]) -> dict[str, Any]:
    """Logistic regression on concatenated, standardised pooled features; C by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    warnings.filterwarnings("ignore", category=UserWarning)
    learn, judge = locator.encode(train, tokens=False), locator.encode(test, tokens=False)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=3)
    search.fit(_concatenate(learn.features), [post.label for post in learn.posts])
    predicted = search.predict(_concatenate(judge.features)).tolist()
    return {
        **_figures(judge.posts, predicted),
        "parameters": search.best_estimator_[-1].coef_.size,
        "C": search.best_params_["logisticregression__C"],
    }


def _concatenate(features: Features) -> np.ndarray:
    return np.concatenate([features.text.numpy(), features.image.numpy()], 1)


def _figures(posts: Sequence[Post], predicted: Sequence[str | None]) -> dict[str, Any]:
    from sklearn.metrics import f1_score

    truth = [str(post.label) for post in posts]
    right = np.array([a == b for a, b in zip(truth, predicted, strict=True)])
    sides = np.array([str(post.row.get("informative", "")) for post in posts])
    return {
        "posts": len(posts),
        "accuracy": float(right.mean()),
        "macro_f1": float(f1_score(truth, [str(p) for p in predicted], average="macro")),
        "by_informative": {
            side: [float(right[sides == side].mean()), int((sides == side).sum())]
            for side in np.unique(sides)
            if side
        },
    }


def _tables(cells: dict[str, Any]) -> str:
    names = list(dict.fromkeys(key.split("/")[0] for key in cells))
    methods = [m for m in ("probe", *PRESETS) if any(f"/{m}/" in key for key in cells)]
    lines = [
        "| set | test posts | method | accuracy | macro-F1 | against the probe | parameters | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    sides = ["| set | method | both | text | image |", "|---|---|---|---|---|"]
    guidance = [
        "| set | method | P^m first epoch | P^e first epoch | P^m test | P^e test |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        base = cells.get(f"{name}/probe/0")
        for method in methods:
            runs = [cell for key, cell in cells.items() if key.startswith(f"{name}/{method}/")]
            if not runs:
                continue
            accuracy = np.array([run["accuracy"] for run in runs])
            f1 = np.array([run["macro_f1"] for run in runs])
            count = runs[0]["posts"]
            against = "—"
            if base is not None and method != "probe":
                error = (base["accuracy"] * (1 - base["accuracy"]) / count) ** 0.5
                against = f"{(accuracy.mean() - base['accuracy']) / error:+.1f} s.e."
            lines.append(
                f"| {name} | {count} | {method} | {_spread(accuracy)} | {_spread(f1)} | {against} "
                f"| {runs[0]['parameters']:,} | {np.median([r['seconds'] for r in runs]):.0f} |"
            )
            if runs[0]["by_informative"]:
                means = [
                    np.mean([run["by_informative"][side][0] for run in runs])
                    for side in ("both", "text", "image")
                ]
                figures = " | ".join(f"{100 * mean:.1f}" for mean in means)
                sides.append(f"| {name} | {method} | {figures} |")
            if "guidance_test" in runs[0]:
                values = np.mean([r["guidance_first"] + r["guidance_test"] for r in runs], 0)
                figures = " | ".join(f"{value:.5f}" for value in values)
                guidance.append(f"| {name} | {method} | {figures} |")
    return "\n".join([*lines, "", *sides, "", *guidance])


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"


if __name__ == "__main__":
    main()
