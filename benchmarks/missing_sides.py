"""Accuracy when one side of every test post is taken away.

    python benchmarks/missing_sides.py runs/ masked=place/index_masked.jsonl ... \
        --methods sgmft,linear-probe,late-average --features features/

Models learn the rows with split=train, with both sides, and are judged on those with split=test as
they are, without their texts, and without their pictures; the best that one side allows is the
probe that reads nothing else, text-only or image-only. Models are kept in runs/.
"""

from __future__ import annotations

import numpy as np
from trained import arguments, halves, trained

from sgmft import Post


def main() -> None:
    methods = "text-only,image-only,linear-probe,late-average,gated-experts"
    options = arguments(__doc__, methods).parse_args()
    print(
        "| set | method | both sides | text only | picture only |\n|---|---|---|---|---|",
        flush=True,
    )
    for item in options.tables:
        name, table = item.split("=", 1)
        train, test = halves(table)
        parts = (
            test,
            [Post(post.text) for post in test],
            [Post(images=post.images) for post in test],
        )
        truth = np.array([str(post.label) for post in test])
        for method in options.methods.split(","):
            model = trained(method, train, options.runs / name / method, options.features)
            shares = [
                100 * np.mean(np.array(model.predict(posts), object) == truth) for posts in parts
            ]
            cells = " | ".join(f"{share:.1f}" for share in shares)
            print(f"| {name} | {model.method.title} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
