"""Whether promises hold for each kind of post: with a text, with pictures, with both.

    python benchmarks/missing_coverage.py runs/ masked=place/index_masked.jsonl ... \
        --features features/ [--rates 0.1,0.5,0.9]

Models learn the rows with split=train as they are, and are judged on those with split=test, of
which a share loses its text or its pictures, by chance. Figures in percent, by what is left. The
coverage in brackets is that of prediction sets made for posts as they were in training, whatever
they have, with one temperature. Models are kept in runs/.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from trained import arguments, halves, trained

from sgmft import SemanticLocator
from sgmft.evaluation.calibration import temper
from sgmft.evaluation.metrics import Evaluation, evaluate
from sgmft.features.features import PARTS, Features
from sgmft.models.base import predict_logits

LEVELS = (0.8, 0.9)


def main() -> None:
    parser = arguments(__doc__, "gated-experts")
    parser.add_argument("--rates", default="0.1,0.5,0.9")
    options = parser.parse_args()
    promised = " | ".join(f"{level:.0%} promised" for level in LEVELS)
    print(f"| set | method | missing | posts with | posts | accuracy | calibration | {promised} |")
    print(f"|---|---|---|---|---|---|---|{'---|' * len(LEVELS)}", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        train, test = halves(table)
        truth = [str(post.label) for post in test]
        for method in options.methods.split(","):
            model = trained(method, train, options.runs / name / method, options.features)
            features = model.encode(test).features
            for rate in map(float, options.rates.split(",")):
                left = leave(features.parts, rate)
                ours, before = (judge(model, features, left, truth, x) for x in (True, False))
                for kind, score in ours.parts.items():
                    rows = (model.held_out.parts == PARTS.index(kind)).sum()
                    cells = []
                    for level in LEVELS:
                        key = f"{level:g}"
                        error = (level * (1 - level) * (1 / score.posts + 1 / rows)) ** 0.5
                        cells.append(
                            f"{100 * score.covered[key]:.1f} ± {100 * error:.1f} "
                            f"({100 * before.parts[kind].covered[key]:.1f})"
                        )
                    figures = f"{100 * score.accuracy.value:.1f} | "
                    figures += f"{100 * score.calibration_error:.1f} "
                    figures += f"({100 * before.parts[kind].calibration_error:.1f})"
                    print(
                        f"| {name} | {model.method.title} | {rate:.0%} | {kind} | {score.posts} "
                        f"| {figures} | {' | '.join(cells)} |",
                        flush=True,
                    )


def leave(parts: np.ndarray, rate: float) -> np.ndarray:
    """What is left of each post when this share of those with both sides lose one."""
    rng, left = np.random.default_rng(0), parts.copy()
    loses = (left == 3) & (rng.random(len(left)) < rate)
    left[loses] = rng.integers(1, 3, loses.sum())
    return left


def judge(
    model: SemanticLocator, features: Features, left: np.ndarray, truth: list[str], by_kind: bool
) -> Evaluation:
    """Figures of posts of which only some parts are left; calibrated by kind, or all alike."""
    assert model.network is not None
    logits = np.zeros((len(left), len(model.labels)), np.float32)
    for kind in range(1, len(PARTS)):
        rows = np.flatnonzero(left == kind)
        logits[rows] = predict_logits(model.network, features.take(rows).with_parts(kind)).logits
    kinds = left if by_kind else np.full(len(left), 3)
    probs = temper(logits, model.temperatures[kinds])
    return evaluate(
        probs,
        truth,
        model.labels,
        sets=partial(model.held_out.sets, parts=kinds),
        parts=[PARTS[kind] for kind in left],
    )


if __name__ == "__main__":
    main()
