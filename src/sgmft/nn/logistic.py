"""Logistic regression by scikit-learn, whose solution becomes the weights of a linear layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

ABSENT = -100.0  # logit of a class without training posts; those of the others sum to about 0
MAX_ITERATIONS = 500
TOLERANCE = 1e-3  # of a gradient's largest entry


class Solution(NamedTuple):
    """Weights of a multinomial logistic regression."""

    weight: Tensor  # (K, D)
    bias: Tensor  # (K,)


def log_frequencies(labels: Tensor, classes: int) -> Tensor:
    """Logarithm of the share of each class among labels (N,): (classes,), ABSENT where it has none.

    Without any labels all classes are equal.
    """
    shares = torch.bincount(labels, minlength=classes) / max(1, len(labels))
    return shares.log().clamp(min=ABSENT)


def logistic_path(
    x: Any, labels: Tensor, classes: int, penalties: Sequence[float]
) -> Iterator[Solution]:
    """Solutions for several L2 penalties, each search starting from the solution before.

    Each minimises the mean cross-entropy plus penalty |w|^2 / 2 (intercepts free; with two
    classes, w is the difference of their rows), to a gradient of 1e-3, by
    `sklearn.linear_model.LogisticRegression` (lbfgs) on as many threads as torch uses: more than
    there are free processors wait for each other most of the time. Classes without posts get no
    weight and the bias ABSENT. With fewer than two classes, or no columns, nothing can be told
    apart: weights are zero, and biases `log_frequencies`.

    Args:
        x: (N, D) float32, an array or a sparse matrix of SciPy.
        labels: classes (N,) in 0..K-1.
        penalties: from the largest, whose solution is nearest to zero, to the smallest.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController()  # of the libraries loaded so far, scikit-learn's among them
    present = labels.unique().cpu()  # sorted, as scikit-learn's rows are
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True, tol=TOLERANCE)
    for penalty in penalties:
        solution = Solution(
            torch.zeros(classes, x.shape[1]), log_frequencies(labels, classes).cpu()
        )
        if len(present) >= 2 and x.shape[1]:
            threads = torch.get_num_threads()
            with warnings.catch_warnings(), blas.limit(limits=threads, user_api="blas"):
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=1 / (len(labels) * penalty))
                model.fit(x, labels.cpu().numpy())
            weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
            if len(present) == 2:  # one row, the difference of the two
                weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            solution.weight[present] = weight.to(solution.weight)
            solution.bias[present] = bias.to(solution.bias)
        yield solution
