"""Experts on one kind of feature: logistic regressions whose penalty is chosen by cross-fitting."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from numpy.random import RandomState
from threadpoolctl import ThreadpoolController

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.features import Batch
from sgmft.models import arrays
from sgmft.models.arrays import Array, ArrayModule, Doubles, Floats, Integers, Labels, Weights
from sgmft.models.base import divisor, mean_and_divisor
from sgmft.models.logistic import Block, Regressions, Solution
from sgmft.utils.runtime import thread_count

FLOOR = math.log(1e-4)  # a label that an expert thinks impossible stays possible
MIN_POSTS = 2  # that must hold an n-gram for it to count
MAX_VOCABULARY = 50_000  # n-grams, the most frequent
Predict = Callable[[Array], Floats]  # by a regression, from N posts to log-probabilities (N, K)
Folds = list[Array]  # of each, which posts (N,) are in it
Fit = Callable[[float, bool], tuple[Solution, list[Predict]]]


def draw_folds(labels: Labels, folds: int, rng: RandomState) -> Integers:
    """A fold 0..folds-1 for each of N posts (N,), each class spread over all of them evenly."""
    order = permutation(len(labels), rng)
    order = order[arrays.most_probable(labels)[order].argsort(kind="stable")]
    return np.asarray(order.argsort() % folds, np.int64)


def permutation(number: int, rng: RandomState) -> Integers:
    """Draw an order of 0..number-1, the one that `torch.randperm` draws with the same seed."""
    order = np.arange(number)
    for i, draw in enumerate(rng.randint(0, 2**32, max(0, number - 1), np.uint32).tolist()):
        other = i + draw % (number - i)
        order[i], order[other] = order[other], order[i]
    return order


def evidence(log_probabilities: Any, prior: Any) -> Any:
    """Weight of evidence for each class, log p(y | x) - log p(y) (Good 1950), (.., K)."""
    xp = arrays.array_namespace(log_probabilities)
    return xp.clip(log_probabilities, min=FLOOR) - xp.clip(prior, min=FLOOR)


class Expert(ArrayModule, ABC):
    """log p(y | x) by a penalised logistic regression."""

    learned = ("weight", "bias")
    penalties: tuple[float, ...]
    weight: Any  # (K, D)
    bias: Any  # (K,)

    @abstractmethod
    def _fit_inputs(self, x: Array) -> Any:
        """Take scale or vocabulary from N posts, and return their inputs (N, D), perhaps sparse."""

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Logarithms of the K probabilities of B posts, (B, K)."""

    def regressions(self, x: Array, labels: Labels, weights: Doubles) -> Regressions:
        """Return that of N posts, from which scale or vocabulary are taken."""
        return Regressions(self._fit_inputs(x), labels, len(self.bias), [Block(weights)])

    def fit(
        self,
        x: Array,  # what `forward` takes, of N posts
        labels: Labels,  # (N,) or (N, K)
        fold: Integers,  # of each post, (N,)
        weights: Weights = None,
        report: Callable[[int, int], object] = lambda done, total: None,
    ) -> Predict:
        """Choose the penalty with the least loss on held-out folds, and fit all posts with it.

        Penalties are tried from strong to weak, until the loss rises. With one fold only, the
        strongest is taken. `report` is called with the penalties that are done, of all folds, and
        their number; at the end with that number twice.

        Returns a function from x, perhaps changed, to log-probabilities (N, K) of at least log 1e-4
        by the chosen regressions, each post's by that without its fold, if there are several.
        """
        number = len(self.penalties)
        weights = np.ones(len(labels)) if weights is None else weights
        report(0, number)
        with ThreadpoolController().limit(limits=1, user_api="blas"):  # see `logistic`
            if len(left_out := [fold == f for f in np.unique(fold)]) < 2:
                found = self.regressions(x, labels, weights).solve(self.penalties[0])
                self._load_solution(found[0])
                report(number, number)
                return lambda x: np.maximum(self.forward(x), FLOOR)
            least, best = math.inf, self.penalties[0]
            fit = self._cross_fit(x, labels, left_out, weights)
            for tried, penalty in enumerate(self.penalties, 1):
                log_probs = _predict_held_out(fit(penalty, True)[1], left_out, x)
                own = (log_probs * arrays.one_hot(labels, len(self.bias))).sum(-1)
                if (loss := -float(np.average(own, weights=weights))) >= least:
                    break
                least, best = loss, penalty
                if tried < number:
                    report(tried, number)
            solution, without = fit(best, False)
        report(number, number)
        self._load_solution(solution)
        return partial(_predict_held_out, without, left_out)

    def _cross_fit(self, x: Array, labels: Labels, left_out: Folds, weights: Doubles) -> Fit:
        """From a penalty, and whether roughly, to the solution and `forward` without each fold."""
        others = [deepcopy(self) for _ in left_out]
        rows = [np.ones(len(labels), bool), *(~out for out in left_out)]

        def start(one: Expert, own: Array) -> Regressions:
            return one.regressions(x[own], labels[own], weights[own])

        with ThreadPoolExecutor(thread_count()) as pool:
            every = list(pool.map(start, [self, *others], rows))

        def fit(penalty: float, rough: bool) -> tuple[Solution, list[Predict]]:
            with ThreadPoolExecutor(thread_count()) as pool:
                solve = partial(Regressions.solve, penalty=penalty, rough=rough)
                whole, *found = (solution for (solution,) in pool.map(solve, every))
            for one, solution in zip(others, found, strict=True):
                one._load_solution(solution)
            return whole, [one.forward for one in others]

        return fit

    def _load_solution(self, solution: Solution) -> None:
        self.weight = np.asarray(solution.weight, np.float32)
        self.bias = np.asarray(solution.bias, np.float32)


def _predict_held_out(without: list[Predict], left_out: Folds, x: Array) -> Floats:
    parts = [forward(x[out]) for forward, out in zip(without, left_out, strict=True)]
    place = np.concatenate([np.flatnonzero(out) for out in left_out]).argsort()
    return np.maximum(np.concatenate(parts)[place], FLOOR)


class Standardizer(ArrayModule):
    """(x - mean) / deviation, by those of the training posts."""

    def __init__(self, width: int) -> None:
        self.mean: Any = np.zeros(width, np.float32)
        self.deviation: Any = np.ones(width, np.float32)

    def fit(self, x: Array) -> None:
        """Take mean and deviation of N vectors (N, width); of one alone, they stay 0 and 1."""
        if len(x) > 1:
            self.mean, self.deviation = (y.astype(np.float32) for y in mean_and_divisor(x))

    def scaled(self, x: Array) -> Array:
        """Return vectors (N, width) as they are learned from."""
        rows = x - self.mean
        rows /= self.deviation  # in place: the rows are the largest thing in memory
        return rows


class DenseExpert(Expert):
    """On standardised features (N, width)."""

    penalties = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)

    def __init__(self, width: int, classes: int) -> None:
        self.scale = Standardizer(width)
        self.weight = np.zeros((classes, width), np.float32)
        self.bias = np.zeros(classes, np.float32)

    def _fit_inputs(self, x: Array) -> Any:
        self.scale.fit(x)
        return self.scale.scaled(x)

    def _cross_fit(self, x: Array, labels: Labels, left_out: Folds, weights: Doubles) -> Fit:
        rows = self._fit_inputs(x)
        parts = [Block(weights), *_without_each_fold(rows, left_out, weights)]
        every = Regressions(rows, labels, len(self.bias), parts, thread_count())

        def fit(penalty: float, rough: bool) -> tuple[Solution, list[Predict]]:
            whole, *others = every.solve(penalty, rough)
            return whole, [partial(self._predict_by, other) for other in others]

        return fit

    def _predict_by(self, solution: Solution, x: Array) -> Floats:
        rows = self.scale.scaled(x)
        weight, bias = (y.astype(rows.dtype) for y in solution)
        return np.asarray(arrays.log_softmax(rows @ weight.T + bias))

    def unscaled(self) -> tuple[Any, Any]:
        """Weight (K, width) and bias (K,) for features as they are, which are many more numbers."""
        weight = self.weight / self.scale.deviation
        return weight, self.bias - weight @ self.scale.mean

    def forward(self, x: Any) -> Any:
        """Features (B, width) to log-probabilities (B, K)."""
        weight, bias = self.unscaled()
        return arrays.log_softmax(x @ weight.T + bias)


def _without_each_fold(rows: Array, left_out: Folds, weights: Doubles) -> list[Block]:
    """The posts outside each fold, with their mean and deviation, from each fold's sums."""
    sums = np.stack([rows[out].sum(0, dtype=float) for out in left_out])
    squares = np.stack([np.square(rows[out], dtype=float).sum(0) for out in left_out])
    parts = []
    for i, out in enumerate(left_out):
        kept = ~out
        mean = np.delete(sums, i, 0).sum(0) / kept.sum()
        variance = np.delete(squares, i, 0).sum(0) - kept.sum() * np.square(mean)
        deviation = np.sqrt(np.maximum(variance, 0) / max(1, kept.sum() - 1))
        parts.append(Block(kept * weights, mean, divisor(deviation)))
    return parts


class NgramExpert(Expert):
    """On TF-IDF of n-grams: (1 + log count) (1 + log((1 + N) / (1 + n))), rows of unit length.

    N is the number of training posts, n that of those with the n-gram (Salton & Buckley 1988, with
    scikit-learn's smoothing). N-grams of fewer than two training posts are not counted.
    """

    arrays_only = True
    penalties = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)

    def __init__(self, vocabulary_size: int, classes: int) -> None:
        self.vocabulary = np.zeros(vocabulary_size, np.int32)  # (V,) ascending
        self.idf = np.zeros(vocabulary_size, np.float32)  # (V,)
        self.weight = np.zeros((classes, vocabulary_size), np.float32)
        self.bias = np.zeros(classes, np.float32)

    def _fit_inputs(self, x: Array) -> Any:
        """See `Expert`; x is (N, g) n-grams, padded with -1. The vocabulary is these posts'."""
        from scipy.sparse import csr_matrix

        row, place = np.nonzero(x >= 0)
        pairs = np.unique(x[row, place].astype(np.int64) * len(x) + row)
        ids, posts = np.unique(pairs // max(1, len(x)), return_counts=True)
        frequent = (-posts).argsort(kind="stable")[:MAX_VOCABULARY]
        frequent = np.sort(frequent[posts[frequent] >= MIN_POSTS])
        self.vocabulary = ids[frequent].astype(np.int32)
        self.idf = (1 + np.log((1 + len(x)) / (1 + posts[frequent]))).astype(np.float32)
        self.weight = np.zeros((len(self.bias), len(frequent)), np.float32)
        rows, columns, values = self._weights(x)
        return csr_matrix((values, (rows, columns)), shape=(len(x), len(frequent)))

    def forward(self, x: Array) -> Floats:
        """N-grams (B, g), padded with -1, to log-probabilities (B, K)."""
        row, column, value = self._weights(x)
        logits = np.tile(self.bias, (len(x), 1))
        if len(row):
            first = np.flatnonzero(np.diff(row, prepend=-1))  # where each post's begin
            logits[row[first]] += np.add.reduceat(value[:, None] * self.weight.T[column], first)
        return np.asarray(arrays.log_softmax(logits))

    def _weights(self, x: Array) -> tuple[Integers, Integers, Floats]:
        """The entries of the TF-IDF matrix (B, V) that are not 0: row, column, value."""
        if not (size := len(self.vocabulary)):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        place = np.minimum(np.searchsorted(self.vocabulary, x), size - 1)
        row, at = np.nonzero(self.vocabulary[place] == x)  # padding is no n-gram's number
        cell, count = np.unique(row * size + place[row, at], return_counts=True)
        row, column = cell // size, cell % size
        value = (1 + np.log(count.astype(np.float32))) * self.idf[column]
        length = np.sqrt(np.bincount(row, np.square(value), len(x))).astype(np.float32)
        return row, column, value / length[row]


def ngrams_of(batch: Batch) -> Integers:
    """The texts' n-grams (B, g), padded with -1; SgmftError where the features hold none."""
    if batch.ngrams is None:
        raise SgmftError(TEXTS["no n-grams"])
    return np.asarray(batch.ngrams)


class JointExpert(Expert):
    """A dense and a lexical expert as one regression, on features and n-grams side by side.

    Rows of TF-IDF are made as long as standardised features, to be read under one penalty.
    """

    penalties = DenseExpert.penalties

    def __init__(self, dense: DenseExpert, lexical: NgramExpert) -> None:
        self.dense, self.lexical, self.bias = dense, lexical, dense.bias
        self.width = dense.weight.shape[1]

    def _fit_inputs(self, x: Array) -> Any:
        dense, lexical = (part._fit_inputs(rows) for part, rows in self._parts(x))
        return dense, math.sqrt(self.width) * lexical

    def forward(self, x: Any) -> Any:
        """Features and n-grams (B, width + g) to log-probabilities (B, K)."""
        return arrays.log_softmax(sum(part.forward(rows) for part, rows in self._parts(x)))

    def _load_solution(self, solution: Solution) -> None:
        dense, lexical = np.split(solution.weight, [self.width], 1)
        self.dense._load_solution(Solution(dense, solution.bias))
        self.lexical._load_solution(Solution(math.sqrt(self.width) * lexical, 0 * solution.bias))

    def _parts(self, x: Array) -> tuple[tuple[Expert, Array], ...]:
        ngrams = x[:, self.width :].astype(np.int32)  # below 2^24, so that float32 has held them
        return (self.dense, x[:, : self.width]), (self.lexical, ngrams)
