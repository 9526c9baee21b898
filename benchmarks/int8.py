"""What an export in 8 bits costs in accuracy, and brings in time and size.

    python benchmarks/int8.py runs/ masked=place/index_masked.jsonl ... --features features/

The gated experts learn the rows with split=train and are exported as they are and in 8 bits (ranges
from pictures of training posts), and both answer the rows with split=test that have a picture.
Times are of the picture networks alone, in turns. Models are kept in runs/.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measuring import in_turns
from trained import halves, trained

from sgmft import Post
from sgmft.locator.onnx.export import export_model, readable_images
from sgmft.locator.onnx.locator import PICTURES, OnnxLocator

ROUNDS, TIMED = 3, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    print("| set | posts | float32 | 8 bits | same label | probabilities differ by | time | size |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        train, test = halves(table)
        asked = [post for post in test if post.images]
        model = trained(
            "gated-experts", train, options.runs / name / "gated-experts", options.features
        )
        with tempfile.TemporaryDirectory() as folder:
            paths = Path(folder) / "float32", Path(folder) / "int8"
            export_model(model, paths[0])
            export_model(model, paths[1], int8=train)
            found = compare(*map(OnnxLocator.load, paths), asked)
            sizes = [(path / PICTURES).stat().st_size / 1e6 for path in paths]
        print(
            f"| {name} | {len(asked)} | {found} | {sizes[0]:.0f} → {sizes[1]:.0f} MB |", flush=True
        )


def compare(whole: OnnxLocator, small: OnnxLocator, posts: list[Post]) -> str:
    """Cells of the table: accuracies, shares in percent, a ratio of times."""
    truth = np.array([whole.labels.index(str(post.label)) for post in posts])
    one, other = (locator.predict_proba(posts) for locator in (whole, small))
    right = [100 * np.mean(x.argmax(1) == truth) for x in (one, other)]
    same = 100 * np.mean(one.argmax(1) == other.argmax(1))
    pictures = np.stack(list(readable_images(posts, whole.encoder.info))[:TIMED])
    timed = in_turns(
        lambda: whole.encoder.encode_images(pictures, False).pooled,
        lambda: small.encoder.encode_images(pictures, False).pooled,
        ROUNDS,
    )
    return (
        f"{right[0]:.1f} | {right[1]:.1f} | {same:.1f} % | {np.abs(one - other).max(1).mean():.3f}"
        f" | {timed.ratio} × as fast"
    )


if __name__ == "__main__":
    main()
