"""Posts a second from pooled features: the default's head against scikit-learn's regression.

    python benchmarks/answering.py

17,000 made-up posts in the sizes of `compact`; both learned from the first 2,000 of them. Features
as `Features` has them and as one array, so that neither side converts anything.
"""

from __future__ import annotations

import numpy as np
from measuring import in_turns, print_row
from sklearn.linear_model import LogisticRegression

from sgmft.models.arrays import softmax
from sgmft.models.base import Model, predict_logits
from sgmft.models.registry import get_method
from sgmft.training.fit import TrainingTask, train_on_all
from training import CLASSES, COMPACT, POSTS, made


def main() -> None:
    data = made(POSTS, COMPACT)
    some = data.take(np.arange(2000))
    x = np.concatenate([data.features.text, data.features.image], 1)
    regression = LogisticRegression(tol=1e-2).fit(x[:2000], some.labels)
    for name in ("linear-probe", "gated-experts"):
        method = get_method(name)
        task = TrainingTask(some, CLASSES, COMPACT, method, method.preset())
        model = train_on_all(task, 1)

        def ours(model: Model = model) -> np.ndarray:
            return softmax(predict_logits(model, data.features).logits)

        found = in_turns(lambda: regression.predict_proba(x), ours, 5)
        right = [100 * (p[2000:].argmax(1) == data.labels[2000:]).mean() for p in found.answers]
        print_row(
            f"predictions of `{name}`, pooled, {POSTS:,} posts",
            "scikit-learn's regression",
            found.ratio,
            "≥ 0.3",
            f"accuracy {right[0]:.1f} % and {right[1]:.1f} %",
        )


if __name__ == "__main__":
    main()
