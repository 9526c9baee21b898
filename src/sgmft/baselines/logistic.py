"""Logistic regression by scikit-learn, whose solution becomes the weights of a linear layer."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

ABSENT = -100.0  # logit of a class without training posts; those of the others sum to about 0
MAX_ITERATIONS = 500


def log_frequencies(labels: Tensor, classes: int) -> Tensor:
    """Logarithm of the share of each class among labels (N,): (classes,), ABSENT where it has none.

    Without any labels all classes are equal.
    """
    shares = torch.bincount(labels, minlength=classes) / max(1, len(labels))
    return shares.log().clamp(min=ABSENT)


@torch.no_grad()
def solve_logistic(layer: nn.Linear, x: Tensor, labels: Tensor, strength: float) -> None:
    """Give a layer the weights that minimise cross-entropy on x (N, D) with an L2 penalty.

    This is `sklearn.linear_model.LogisticRegression` (lbfgs, multinomial, intercept not penalised)
    in double precision. Classes without posts get no weight and the bias ABSENT. With fewer than
    two classes nothing can be told apart: weights are zero, and biases `log_frequencies`.

    Args:
        layer: from D to the K classes.
        labels: classes (N,) in 0..K-1.
        strength: scikit-learn's C; the penalty is |w|^2 / (2 C) beside the sum over posts.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    layer.weight.zero_()
    layer.bias.copy_(log_frequencies(labels, layer.out_features))
    present = labels.unique()  # sorted, as scikit-learn's rows are
    if len(present) < 2:
        return
    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x.double().cpu().numpy(), labels.cpu().numpy())
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(present) == 2:  # one row, the difference of the two
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    layer.weight[present] = weight.to(layer.weight)
    layer.bias[present] = bias.to(layer.bias)
