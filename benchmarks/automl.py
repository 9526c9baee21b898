"""AutoGluon's tabular predictor beside the gated experts: the same posts, the same processors.

    pip install -e . 'autogluon.tabular[lightgbm,xgboost,catboost]'   # an environment of its own
    python benchmarks/automl.py runs/ masked=place/index_masked.jsonl ... --features features/

A table has a column `split`. All learn from its `train` posts and predict its `test` posts:
AutoGluon from the text, of which it makes n-grams (offline it has no way with pictures), and from
the text together with the pooled features of both sides, a column a number, empty where a side is
missing; the gated experts from those features and its own n-grams. Texts are segmented for
AutoGluon, which parts words at spaces only and finds nothing to learn from in a column of Chinese
sentences. It has `--seconds` each time, and its own default settings (`medium_quality`) or those of
`--quality`. Finished runs are kept in runs/ and not computed again.

Prints accuracy and macro-F1 with 95 % bootstrap intervals, the calibration error, the difference of
accuracy to the gated experts (paired bootstrap; p of a randomisation test), the time of training
from features and the size of what is kept.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from learning_curves import PARTS, Table, kept, read_table

from sgmft import SemanticLocator
from sgmft.data.preprocessing.text import get_cleaning, split_words
from sgmft.evaluation.compare.statistics import Estimate, difference, summarise

TITLES = {
    "text": "AutoGluon, text",
    "features": "AutoGluon, text and features",
    "gated-experts": "Similarity-gated experts",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--quality", default="medium_quality")
    options = parser.parse_args()
    head = "accuracy | macro-F1 | calibration error | difference | p | trained in | kept"
    print(f"| set | system | {head} |\n|---|---|{'---|' * 7}", flush=True)
    for item in options.tables:
        name, file = item.split("=", 1)
        table = read_table(file, options.features)
        sides = [[i for i, x in enumerate(table.posts) if x.row["split"] == s] for s in PARTS]
        works = {
            "text": partial(automl, table, sides, False, options.seconds, options.quality),
            "features": partial(automl, table, sides, True, options.seconds, options.quality),
            "gated-experts": partial(ours, table, sides, options.features),
        }
        asked = f"automl-{name}-{options.quality}-{options.seconds}"
        found = {key: kept(options.runs / asked / f"{key}.json", works[key]) for key in works}
        report(name, table, sides[1], found)


def automl(
    table: Table, sides: list[list[int]], features: bool, seconds: int, quality: str
) -> dict[str, Any]:
    """AutoGluon on a frame of a post a row."""
    from autogluon.tabular import TabularPredictor

    rules = get_cleaning("light")
    texts = [" ".join(split_words(post.text, rules)) for post in table.posts]
    frame = pd.DataFrame({"text": texts})
    if features:
        data = table.data.features
        text, image = data.pooled()
        for side, x, has in (("t", text, data.has_text), ("v", image, data.has_image)):
            numbers = np.where(has.numpy()[:, None], x.numpy(), np.nan)
            names = [f"{side}{i}" for i in range(numbers.shape[1])]
            frame = pd.concat([frame, pd.DataFrame(numbers, columns=names)], axis=1)
    frame["label"] = [post.label for post in table.posts]
    train, test = (frame.iloc[side].reset_index(drop=True) for side in sides)
    with TemporaryDirectory() as folder:
        start = time.monotonic()
        made = TabularPredictor(label="label", path=folder, verbosity=0)
        made.fit(train, time_limit=seconds, presets=quality)
        took = time.monotonic() - start
        probs = made.predict_proba(test.drop(columns="label"))[table.labels].to_numpy()
        size = size_of(Path(folder))
        return {"probs": probs.tolist(), "seconds": took, "size": size}


def ours(table: Table, sides: list[list[int]], features: Path) -> dict[str, Any]:
    """Gated experts, as `sgmft train` and `sgmft predict` with features that are there."""
    train, test = ([table.posts[i] for i in side] for side in sides)
    locator = SemanticLocator(features=features)
    start = time.monotonic()
    locator.fit(train)
    took = time.monotonic() - start
    with TemporaryDirectory() as folder:
        locator.save_pretrained(folder)
        size = size_of(Path(folder))
    return {"probs": locator.predict_proba(test).tolist(), "seconds": took, "size": size}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(name: str, table: Table, test: list[int], found: dict[str, Any]) -> None:
    truth = table.data.labels[test].numpy()
    probs = {key: np.array([one["probs"]]) for key, one in found.items()}
    for key, one in found.items():
        told = summarise(probs[key], truth, table.labels)
        error = f"{100 * told.calibration_error.mean:.1f}"
        cells = [interval(told.accuracy), interval(told.macro_f1), error]
        if key == "gated-experts":
            cells += ["—", "—"]
        else:
            apart = difference(probs[key], probs["gated-experts"], truth)
            ends = f"[{100 * apart.low:+.1f}, {100 * apart.high:+.1f}]"
            cells += [f"{100 * apart.value:+.1f} {ends}", f"{apart.p:.4f}"]
        cells += [f"{one['seconds']:.0f} s", f"{one['size'] / 1e6:.0f} MB"]
        print(f"| {name} | {TITLES[key]} | {' | '.join(cells)} |", flush=True)


def interval(told: Estimate) -> str:
    return f"{100 * told.mean:.1f} [{100 * told.low:.1f}, {100 * told.high:.1f}]"


if __name__ == "__main__":
    main()
