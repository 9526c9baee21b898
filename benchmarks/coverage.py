"""Whether prediction sets hold the true label as often as they promise.

    python benchmarks/coverage.py runs/ masked=place/index_masked.jsonl ... --features features/

Models learn the rows with split=train and are judged on those with split=test. The error of the
achieved coverage is the standard deviation of a share of so many test posts, with that of as many
held-out posts as set the threshold beside it. Models are kept in runs/.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from trained import arguments, halves, trained

from sgmft.evaluation.metrics import LEVELS, evaluate


def main() -> None:
    options = arguments(__doc__, "gated-experts").parse_args()
    print(
        "| set | method | promised | achieved | least class | labels a set | one label | of these "
        "right | accuracy of all |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        train, test = halves(table)
        for method in options.methods.split(","):
            model = trained(method, train, options.runs / name / method, options.features)
            found = list(model.predictions(test))
            scores = evaluate(
                np.array([p.probabilities for p in found]),
                [str(p.post.label) for p in found],
                model.labels,
                sets=partial(model.held_out.sets, parts=np.array([p.parts for p in found])),
            )
            for level, s in zip(LEVELS, scores.selective.sets, strict=True):
                error = (level * (1 - level) * (1 / len(test) + 1 / len(model.held_out))) ** 0.5
                least = min(share for share in s.per_class.values() if share is not None)
                print(
                    f"| {name} | {model.method.title} | {100 * level:.0f} % "
                    f"| {100 * s.achieved:.1f} ± {100 * error:.1f} | {100 * least:.1f} "
                    f"| {s.size:.2f} | {100 * s.answered:.1f} % | {100 * (s.accuracy or 0):.1f} "
                    f"| {100 * scores.accuracy.value:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
