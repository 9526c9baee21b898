"""What `sgmft align` does for `compact`: who finds whom, and what a model makes of it.

    python benchmarks/aligning.py runs/ fashion=fashion/index_masked.jsonl ... --features features/

Pairs are the rows with split=train, without their labels; a tenth of them measures recall, text to
picture and back. Then the gated experts are trained on the same rows with their labels, on
`compact` as it is and as aligned, and judged on those with split=test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from trained import halves

from sgmft import SemanticLocator
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.jobs.align import align_encoder

WAYS = ("text to picture", "picture to text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    print("| set | pairs | held out | R@1 | R@5 | R@10 | chance of R@10 | ", end="")
    print("gated experts on `compact` | on the aligned |\n" + "|---" * 9 + "|", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        train, test = halves(table)
        folder = options.runs / name / "aligned"
        source = EncoderHandle("compact", features=options.features)
        found = align_encoder(train, folder, source)
        recalls = [
            " / ".join(f"{100 * found.after[f'{way} R@{k}']:.0f}" for way in WAYS)
            for k in (1, 5, 10)
        ]
        truth = np.array([str(post.label) for post in test])
        cells = [name, found.pairs, found.held_out, *recalls, f"{1000 / found.held_out:.0f}"]
        for encoder in ("compact", str(folder)):
            locator = SemanticLocator(encoder, features=options.features).fit(train)
            right = np.array(locator.predict(test), object) == truth
            cells.append(f"{100 * right.mean():.1f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
