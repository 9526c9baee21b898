"""Multinomial logistic regressions by L-BFGS, several on the same rows at once.

Regressions of one kind on parts of the same rows, as folds are, differ in few rows only. Their
weights stand side by side, so that one pass over the rows serves all of them, which takes little
longer than one of them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ABSENT = -100.0  # logit of a class without training posts; those of the others are about 0

MAX_ITERATIONS = 500

TOLERANCE = 1e-3  # of a gradient's largest entry

MAX_NUMBERS = 2**22  # in the weights, or the logits, of regressions that are solved together


class Solution(NamedTuple):
    """Weights of a regression, for the rows as they are given."""

    weight: Tensor  # (K, D)
    bias: Tensor  # (K,)


class Block(NamedTuple):
    """The rows that one regression learns from, and how it scales them: (x - mean) / deviation."""

    rows: Tensor  # (N,) bool
    mean: Tensor | float = 0.0  # (D,)
    deviation: Tensor | float = 1.0  # (D,)


def log_frequencies(labels: Tensor, classes: int) -> Tensor:
    """Logarithm of the share of each class among labels (N,): (classes,), ABSENT where it has none.

    Without any labels all classes are equal.
    """
    shares = torch.bincount(labels, minlength=classes) / max(1, len(labels))
    return shares.log().clamp(min=ABSENT)


def logistic_paths(
    x: Any, labels: Tensor, classes: int, penalties: Sequence[float], parts: Sequence[Block]
) -> Iterator[list[Solution]]:
    """Solutions of every part for one L2 penalty after another, each search starting from the last.

    Each minimises the mean cross-entropy of its rows plus penalty |w|^2 / 2 (intercepts free; with
    two classes, w is the difference of their rows), as scikit-learn's `LogisticRegression` does
    with C = 1 / (rows x penalty), by SciPy's L-BFGS-B to a gradient of 1e-3, on as many threads as
    torch uses. Classes without posts get no weight and a bias of ABSENT.

    Args:
        x: (N, D), a tensor, or a sparse matrix of SciPy.
        labels: classes (N,) in 0..K-1.
        penalties: from the largest, whose solution is nearest to zero, to the smallest.
    """
    together = max(1, MAX_NUMBERS // (classes * max(1, *x.shape)))
    groups = [parts[i : i + together] for i in range(0, len(parts), together)]
    paths = [_path(x, labels, classes, penalties, group) for group in groups]
    for found in zip(*paths, strict=True):
        yield [solution for group in found for solution in group]


def _path(
    x: Any, labels: Tensor, classes: int, penalties: Sequence[float], parts: Sequence[Block]
) -> Iterator[list[Solution]]:
    """As `logistic_paths`, of parts that are solved together."""
    from scipy.optimize import minimize
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController()  # SciPy's does not know how many threads torch was given
    problem = _Problem(x, labels, classes, parts)
    point = problem.start()
    limits = {
        "maxiter": MAX_ITERATIONS,
        "gtol": TOLERANCE,
        "ftol": 64 * np.finfo(float).eps,
        "maxls": 50,
    }
    for penalty in penalties:
        with blas.limit(limits=torch.get_num_threads(), user_api="blas"):
            found = minimize(problem, point, (penalty,), "L-BFGS-B", jac=True, options=limits)
        point = found.x
        yield problem.solutions(point)


class _Problem:
    """The sum of F regressions' objectives as a function of all their weights, for SciPy.

    A point is (F, K, D + 1), flat: of each regression and class its weights for the scaled rows,
    and its intercept.
    """

    def __init__(self, x: Any, labels: Tensor, classes: int, parts: Sequence[Block]) -> None:
        self.labels, self.classes, self.width = labels, classes, x.shape[1]
        self.forward, self.backward = _products(x)
        used = torch.stack([part.rows for part in parts], 1)  # (N, F)
        self.share = used / used.sum(0).clamp(min=1)
        self.mean = _stacked([part.mean for part in parts], self.width)
        self.factor = 1 / _stacked([part.deviation for part in parts], self.width)
        self.bias = torch.stack([log_frequencies(labels[rows], classes) for rows in used.T]).cpu()
        self.present = (self.bias > ABSENT)[..., None]  # (F, K, 1); others stay where they start
        pairs = self.present.sum(1) == 2  # the difference w of two rows has 2 |row|^2 = |w|^2 / 2
        self.strength = torch.where(pairs, 2.0, 1.0)[..., None]

    def start(self) -> NDArray[np.float64]:
        """No weights, and the class frequencies."""
        point = torch.zeros(len(self.bias), self.classes, self.width + 1, dtype=torch.double)
        point[..., -1] = self.bias
        return point.flatten().numpy()

    def solutions(self, point: NDArray[np.float64]) -> list[Solution]:
        """The regressions at a point."""
        return [Solution(*pair) for pair in zip(*self._unscaled(self._split(point)), strict=True)]

    def __call__(
        self, point: NDArray[np.float64], penalty: float
    ) -> tuple[float, NDArray[np.float64]]:
        """The objective and its gradient."""
        split = self._split(point)
        weight, bias = self._unscaled(split)
        logits = self.forward(weight.flatten(0, 1)).unflatten(1, bias.shape)  # (N, F, K)
        log_probs = (logits + bias.to(logits)).log_softmax(-1)
        own = self.labels[:, None, None].expand(-1, len(bias), 1)
        share = self.share.to(log_probs)[..., None]
        loss = -(log_probs.gather(-1, own) * share).sum(dtype=torch.double)
        slope = log_probs.exp_().scatter_add_(-1, own, -torch.ones_like(share)).mul_(share)
        total = slope.sum(0).double().cpu()  # (F, K)
        inner = self.backward(slope.flatten(1)).double().cpu().view(weight.shape)
        inner = (inner - total[..., None] * self.mean) * self.factor
        strength = penalty * self.strength
        inner += strength * split[..., :-1]
        size = (strength * split[..., :-1].square()).sum()
        gradient = torch.cat([inner, total[..., None]], -1) * self.present
        return float(loss) + float(size) / 2, gradient.flatten().numpy()

    def _split(self, point: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(point).view(len(self.bias), self.classes, self.width + 1)

    def _unscaled(self, split: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (F, K, D) and biases (F, K) for rows that are not scaled."""
        weight = split[..., :-1] * self.factor
        return weight, split[..., -1] - (weight * self.mean).sum(-1)


def _stacked(values: Sequence[Tensor | float], width: int) -> Tensor:
    """One row for each regression, (F, 1, D)."""
    return torch.stack([torch.as_tensor(x).double().cpu().expand(width) for x in values])[:, None]


def _products(x: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """w (M, D) to x w^T (N, M), and g (N, M) to g^T x (M, D)."""
    if isinstance(x, Tensor):
        return lambda w: x @ w.to(x).T, lambda g: g.T @ x
    columns = x.T.tocsr()
    return (
        lambda w: torch.from_numpy(x @ w.numpy().T.astype(x.dtype)),
        lambda g: torch.from_numpy(columns @ g.numpy()).T,
    )
