"""Record what every method predicts on a table, or compare with an earlier record, bit by bit.

python benchmarks/reproduce.py record/ posts.jsonl                     # write a record
python benchmarks/reproduce.py again/ posts.jsonl --against record/    # compare with it

For each method and preset: digest of the saved weights, probabilities of every post and the
metrics. Then what the commands write: predictions, an evaluation, an explanation. With
`--against`, the earlier record's features are used, its saved models are loaded and predict
again, and each difference is printed; the exit code is 1 if there are any. Results are equal to
the last bit on one machine with the same packages only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sgmft import SemanticLocator, read_posts
from sgmft.errors import SgmftError

EPOCHS = 2
RENAMED = {"gated-experts-default": "sgmft-default"}  # what a record of sgmft 0.1 calls it
METHODS = {  # presets of each
    "gated-experts": ("default",),
    "sgmft": ("elements", "tokens", "paper"),
    **dict.fromkeys(
        (
            "mplug",
            "unis-mmc",
            "bridgetower",
            "balance-mla",
            "dynamic-fusion",
            "alternating-adaptation",
            "feature-level-cnn",
            "low-rank",
            "word-average",
            "linear-probe",
            "text-only",
            "image-only",
            "late-average",
            "zero-shot",
        ),
        ("default",),
    ),
}


def locator_of(method: str, preset: str, features: Path) -> SemanticLocator:
    try:
        return SemanticLocator(
            method=method, preset=preset, settings={"epochs": EPOCHS}, features=features
        )
    except SgmftError:  # a network in closed form has no epochs
        return SemanticLocator(method=method, preset=preset, features=features)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def recorded(locator: SemanticLocator, folder: Path, test: list[Any]) -> dict[str, Any]:
    probabilities = locator.predict_proba(test)
    np.save(folder.with_suffix(".npy"), probabilities)
    return {
        "weights": digest((folder / "model.safetensors").read_bytes()),
        "probabilities": digest(probabilities.tobytes()),
        "accuracy": float(
            np.mean([p == x.label for p, x in zip(locator.predict(test), test, strict=True)])
        ),
        "metrics": json.loads((folder / "config.json").read_text())["sgmft"].get("metrics"),
    }


def run_commands(output: Path, table: Path, model: Path, features: Path) -> dict[str, str]:
    found = {}
    for name, words in {
        "predictions.csv": ["predict", model, table, "--features", features],
        "predictions.jsonl": ["predict", model, table, "--features", features, "--coverage", "0.9"],
        "predictions.parquet": ["predict", model, table, "--features", features],
        "evaluation": ["evaluate", model, table, "--features", features, "--where", "split=test"],
    }.items():
        command = [sys.executable, "-m", "sgmft", *map(str, words), "-o", str(output / name)]
        subprocess.run(command, check=True, capture_output=True)
        written = output / name
        if written.is_dir():
            values = json.loads((written / "metrics.json").read_text())
            values.pop("about", None)
            found[name] = digest(json.dumps(values, sort_keys=True).encode())
        else:
            found[name] = digest(written.read_bytes())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    posts = read_posts(str(options.table))
    train = [post for post in posts if post.row.get("split") == "train"]
    test = [post for post in posts if post.row.get("split") == "test"]
    options.output.mkdir(parents=True)
    features = options.output / "features"
    if options.against:
        shutil.copytree(options.against / "features", features)
    before = sorted(str(x) for x in features.rglob("*.npz")) if options.against else []
    record: dict[str, Any] = {}
    for method, presets in METHODS.items():
        for preset in presets:
            name = f"{method}-{preset}"
            print(name, flush=True)
            folder = options.output / name
            locator = locator_of(method, preset, features).fit(train)
            locator.save_pretrained(folder)
            record[name] = recorded(locator, folder, test)
            if options.against:
                old = options.against / name
                if not old.is_dir():
                    old = options.against / RENAMED[name]
                loaded = SemanticLocator.from_pretrained(old, features=features)
                kept = np.load(old.with_suffix(".npy"))
                record[name]["loaded"] = bool((loaded.predict_proba(test) == kept).all())
                difference = np.abs(np.load(folder.with_suffix(".npy")) - kept).max()
                print(f"  largest difference {difference:g}, loaded {record[name]['loaded']}")
    record["commands"] = run_commands(
        options.output, options.table, options.output / "gated-experts-default", features
    )
    (options.output / "record.json").write_text(json.dumps(record, indent=2))
    if not options.against:
        return 0
    if before != sorted(str(x) for x in features.rglob("*.npz")):
        print("the earlier features were not used")
    earlier = json.loads((options.against / "record.json").read_text())
    changed = 0
    for new, old_name in RENAMED.items():
        earlier[new] = earlier.pop(old_name, None) or earlier[new]
    for name, values in earlier.items():
        for key, value in values.items():
            if record[name].get(key) != value:
                changed += 1
                print(f"{name}: {key} differs")
        changed += record[name].get("loaded") is False
    print(f"{changed} differences in {len(earlier)} records")
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main())
