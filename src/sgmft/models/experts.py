"""Experts on one kind of feature: logistic regressions whose penalty is chosen by cross-fitting.

They also give predictions for the training posts, each by a regression that was not fitted to it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.nn.functional import linear, nll_loss, normalize

from sgmft.models.base import Normalizer, divisor
from sgmft.models.layers import lookup
from sgmft.models.logistic import Block, Solution, log_frequencies, logistic_paths

FLOOR = math.log(1e-4)  # a label that an expert thinks impossible stays possible

MIN_POSTS = 2  # that must hold an n-gram for it to count

MAX_VOCABULARY = 50_000  # n-grams, the most frequent


def draw_folds(labels: Tensor, folds: int) -> Tensor:
    """A fold 0..folds-1 for each of N posts (N,), each class spread over all of them evenly."""
    order = torch.randperm(len(labels))
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % folds
    return fold


def class_prior(labels: Tensor, classes: int) -> Tensor:
    """Logarithm of the share of each class among labels (N,); see `log_frequencies`."""
    return torch.from_numpy(log_frequencies(labels.cpu().numpy(), classes)).float()


def evidence(log_probabilities: Tensor, prior: Tensor) -> Tensor:
    """Weight of evidence for each class, log p(y | x) - log p(y) (Good 1950), (.., K).

    No log-probability counts as less than log 1e-4, and no log p(y), (K,).
    """
    return log_probabilities.clamp(min=FLOOR) - prior.clamp(min=FLOOR)


class CrossFitted(NamedTuple):
    """Regressions with one penalty, on all posts and on those without each fold."""

    solution: Solution  # on all posts
    log_probs: Tensor  # (N, K) of each post, by the regression without its fold


class Expert(nn.Module, ABC):
    """log p(y | x) by a penalised logistic regression."""

    penalties: tuple[float, ...]
    weight: nn.Parameter  # (K, D)
    bias: nn.Parameter  # (K,)

    @abstractmethod
    def fit_inputs(self, x: Tensor) -> Any:
        """Take scale or vocabulary from N posts, and return their inputs (N, D).

        An array, or a sparse matrix of SciPy.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of the K probabilities of B posts, (B, K)."""

    def path(self, x: Tensor, labels: Tensor) -> Iterator[Solution]:
        """Yield the solution for each of `penalties`, from strong to weak; it is loaded then."""
        everything = Block(np.ones(len(labels), bool))
        paths = logistic_paths(
            self.fit_inputs(x), labels.cpu().numpy(), len(self.bias), self.penalties, [everything]
        )
        for (solution,) in paths:
            self.load_solution(solution)
            yield solution

    @torch.no_grad()
    def fit(
        self,
        x: Tensor,
        labels: Tensor,
        fold: Tensor,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """Choose the penalty with the least loss on held-out folds, and fit all posts with it.

        Penalties are tried from strong to weak, until the loss rises.

        Args:
            x: what `forward` takes, of N posts.
            labels: their classes (N,).
            fold: the fold of each post (N,); with one fold only, the strongest penalty is taken.
            report: called with the penalties that are done, of all folds, and their number; at the
                end with that number twice.

        Returns:
            Log-probabilities (N, K) of at least log 1e-4 by the chosen regressions, each post's by
            that without its fold; with one fold only, of the posts it was fitted to.
        """
        number = len(self.penalties)
        report(0, number)
        with ThreadpoolController().limit(limits=1, user_api="blas"):  # see `logistic`
            if len(fold.unique()) < 2:
                next(self.path(x, labels))
                report(number, number)
                return self(x).clamp(min=FLOOR)
            least, best = math.inf, None
            for tried, found in enumerate(self.cross_fit(x, labels, fold), 1):
                loss = float(nll_loss(found.log_probs.clamp(min=FLOOR), labels))
                if loss >= least:
                    break
                least, best = loss, found
                if tried < number:
                    report(tried, number)
        report(number, number)
        assert best is not None
        self.load_solution(best.solution)
        return best.log_probs.clamp(min=FLOOR)

    @abstractmethod
    def cross_fit(self, x: Tensor, labels: Tensor, fold: Tensor) -> Iterator[CrossFitted]:
        """Yield the regressions for each of `penalties`, from strong to weak."""

    @torch.no_grad()
    def load_solution(self, solution: Solution) -> None:
        """Take the weights of a regression."""
        self.weight.copy_(torch.from_numpy(solution.weight))
        self.bias.copy_(torch.from_numpy(solution.bias))


class DenseExpert(Expert):
    """On standardised features (N, width)."""

    penalties = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scale = Normalizer(width, "standard")
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))

    def fit_inputs(self, x: Tensor) -> Any:
        """See `Expert`; mean and deviation are those of these posts."""
        self.scale.fit(x)
        return self.scale(x).cpu().numpy()

    def cross_fit(self, x: Tensor, labels: Tensor, fold: Tensor) -> Iterator[CrossFitted]:
        """See `Expert`. All at once, each fold's with mean and deviation of its own posts."""
        rows, left_out = self.fit_inputs(x), fold.cpu().numpy()
        parts = [Block(np.ones(len(rows), bool)), *_without_each_fold(rows, left_out)]
        targets, threads = labels.cpu().numpy(), torch.get_num_threads()
        paths = logistic_paths(rows, targets, len(self.bias), self.penalties, parts, threads)
        for whole, *others in paths:
            logits = np.empty((len(rows), len(self.bias)), rows.dtype)
            for part, (weight, bias) in zip(parts[1:], others, strict=True):
                out = ~part.rows
                logits[out] = rows[out] @ weight.T.astype(rows.dtype) + bias.astype(rows.dtype)
            yield CrossFitted(whole, torch.from_numpy(logits).to(x).log_softmax(-1))

    def unscaled(self) -> tuple[Tensor, Tensor]:
        """Weight (K, width) and bias (K,) for features as they are, which are many more numbers."""
        weight = self.weight / self.scale.deviation
        return weight, self.bias - weight @ self.scale.mean

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, width) to log-probabilities (B, K)."""
        return linear(x, *self.unscaled()).log_softmax(-1)


def _without_each_fold(rows: NDArray[Any], fold: NDArray[Any]) -> list[Block]:
    """The posts outside each fold, with their mean and deviation, from each fold's sums."""
    folds = np.unique(fold)
    sums = np.stack([rows[fold == f].sum(0, dtype=float) for f in folds])
    squares = np.stack([np.square(rows[fold == f], dtype=float).sum(0) for f in folds])
    parts = []
    for i, left_out in enumerate(folds):
        kept = fold != left_out
        mean = np.delete(sums, i, 0).sum(0) / kept.sum()
        variance = np.delete(squares, i, 0).sum(0) - kept.sum() * np.square(mean)
        deviation = np.sqrt(np.maximum(variance, 0) / max(1, kept.sum() - 1))
        parts.append(Block(kept, mean, divisor(torch.from_numpy(deviation)).numpy()))
    return parts


class NgramExpert(Expert):
    """On TF-IDF of n-grams: (1 + log count) (1 + log((1 + N) / (1 + n))), rows of unit length.

    N is the number of training posts, n that of those with the n-gram (Salton & Buckley 1988, with
    scikit-learn's smoothing). N-grams of fewer than two training posts are not counted.
    """

    penalties = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
    vocabulary: Tensor  # (V,) sorted int32
    idf: Tensor  # (V,)

    def __init__(self, vocabulary_size: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("vocabulary", torch.zeros(vocabulary_size, dtype=torch.int32))
        self.register_buffer("idf", torch.zeros(vocabulary_size))
        self.weight = nn.Parameter(torch.zeros(classes, vocabulary_size))
        self.bias = nn.Parameter(torch.zeros(classes))

    def fit_inputs(self, x: Tensor) -> Any:
        """See `Expert`; x is (N, g) n-grams, padded with -1. The vocabulary is these posts'."""
        from scipy.sparse import csr_matrix

        row = torch.arange(len(x), device=x.device)[:, None].expand_as(x)[x >= 0]
        pairs = (x[x >= 0].long() * len(x) + row).unique()
        ids, posts = (pairs // len(x)).unique_consecutive(return_counts=True)
        enough = posts >= MIN_POSTS
        ids, posts = ids[enough], posts[enough]
        frequent = posts.argsort(descending=True, stable=True)[:MAX_VOCABULARY].sort().values
        self.vocabulary = ids[frequent].int()
        self.idf = 1 + torch.log((1 + len(x)) / (1 + posts[frequent].float()))
        self.weight = nn.Parameter(self.weight.new_zeros(len(self.bias), len(frequent)))
        rows, columns, values = (part.cpu().numpy() for part in self._weights(x))
        return csr_matrix((values, (rows, columns)), shape=(len(x), len(frequent)))

    def cross_fit(self, x: Tensor, labels: Tensor, fold: Tensor) -> Iterator[CrossFitted]:
        """See `Expert`. Each fold's has a vocabulary of its own."""
        left_out = [fold == f for f in fold.unique()]
        experts = [NgramExpert(0, len(self.bias)).to(x.device) for _ in left_out]
        paths = [self.path(x, labels)]
        for one, out in zip(experts, left_out, strict=True):
            one.penalties = self.penalties
            paths.append(one.path(x[~out], labels[~out]))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in self.penalties:
                whole, *_ = pool.map(next, paths)
                log_probs = self.weight.new_zeros(len(x), len(self.bias))
                for one, out in zip(experts, left_out, strict=True):
                    log_probs[out] = one(x[out]).to(log_probs)
                yield CrossFitted(whole, log_probs)

    def forward(self, x: Tensor) -> Tensor:
        """N-grams (B, g), padded with -1, to log-probabilities (B, K)."""
        row, column, value = self._weights(x)
        logits = self.bias.expand(len(x), -1).clone()
        logits.index_add_(0, row, value[:, None] * self.weight.T[column])
        return logits.log_softmax(-1)

    def counted(self, x: Tensor, counts: Tensor) -> Tensor:
        """As `forward`, of n-grams (B, g) that are all different, and how often each is there.

        Padding counts as nothing. This form can be exported, and is slower on many posts.
        """
        if not len(self.vocabulary):
            return self.bias.log_softmax(-1).expand(len(x), -1)
        column, known = lookup(self.vocabulary, x)
        value = normalize(self._tf_idf(counts.clamp(min=1), column) * known, dim=-1)
        logits = self.bias + (value[:, None] @ self.weight.T[column])[:, 0]
        return logits.log_softmax(-1)

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The entries of the TF-IDF matrix (B, V) that are not 0: row, column, value."""
        if not len(self.vocabulary):
            none = torch.zeros(0, dtype=torch.long, device=x.device)
            return none, none, self.idf.new_zeros(0)
        column, known = lookup(self.vocabulary, x)  # padding is no n-gram's number
        row = torch.arange(len(x), device=x.device)[:, None].expand_as(x)
        both = row[known] * len(self.vocabulary) + column[known]
        cell, count = both.unique(return_counts=True)
        row, column = cell // len(self.vocabulary), cell % len(self.vocabulary)
        value = self._tf_idf(count, column)
        length = value.new_zeros(len(x)).index_add_(0, row, value.square()).sqrt()
        return row, column, value / length[row]

    def _tf_idf(self, count: Tensor, column: Tensor) -> Tensor:
        """Weights of n-grams, before rows are brought to unit length."""
        return (1 + count.to(self.idf).log()) * self.idf[column]
