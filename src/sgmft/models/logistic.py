"""Multinomial logistic regressions by a preconditioned Newton method, several at once.

Regressions of one kind on parts of the same rows, as folds are, differ in few rows only. Their
weights stand side by side, so that one pass over the rows serves several of them; each thread has
some. Threads of our own never wait for each other within a product, as those of a BLAS do, which
spin: beside a busy neighbour they take three times as long as one thread.

The Hessian of a class's weights is close to c X'X / N + penalty, where c is the mean of p (1 - p)
over the rows, once the rows are centred as they count for the class, which frees its intercept. Its
inverse, from the leading eigenvectors of X'X, preconditions the conjugate gradients by which each
Newton step is found (Nocedal & Wright 2006, section 7.1). Few passes over the rows are then left,
whatever their spectrum. Where rows are fewer than columns, the weights lie in the span of the rows
(representer theorem), and the search goes on in its coordinates.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from sgmft.models.arrays import Array, Doubles, Labels, Weights, one_hot

ABSENT = -100.0  # logit of a class without training posts; those of the others are about 0
GAP = 1e-7  # of an objective to its minimum, about the mean KL divergence of its probabilities
ROUGH_GAP = 1e-5  # where it is enough to compare penalties
MAX_STEPS, MAX_HALVINGS, MAX_PRODUCTS = 100, 20, 60
FORCING = 0.1  # of a Newton step's residual, relative
ROUNDING = 1e-7  # of an objective in float32
MAX_SPAN = 512  # rows, up to which the search goes on in their span
RANK = 192  # eigenvectors of the preconditioner
MAX_NUMBERS = 2**22  # in the weights, or the logits, of regressions that are solved together
Divide = Callable[[Array], Array]
# Spectrum of X'X / N: leading vectors (D, r), their variances (r,), mean variance along all others
_Axes = tuple[Array, Array, float]


class Solution(NamedTuple):
    """Weights of a regression, for the rows as they are given."""

    weight: Array  # (K, D)
    bias: Array  # (K,)


class Block(NamedTuple):
    """How much each row counts for a regression, and how it scales them: (x - mean) / deviation."""

    weights: Doubles  # (N,), 0 for a row that it does not learn from
    mean: Array | float = 0.0  # (D,)
    deviation: Array | float = 1.0  # (D,)


def log_frequencies(labels: Labels, classes: int, weights: Weights = None) -> Doubles:
    """Logarithm of the share of each class (K,), ABSENT where it has none; equal without labels."""
    weights = np.ones(len(labels)) if weights is None else weights
    counts = (one_hot(labels, classes) * weights[:, None]).sum(0)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(counts / (counts.sum() or 1)), ABSENT)


class Regressions:
    """Regressions of several parts of the same rows, each search going on from those before.

    Classes without posts have bias ABSENT.
    """

    def __init__(
        self,
        x: Any,  # (N, D), float32 or float64, or a sparse matrix of SciPy, or a tuple: side by side
        labels: Labels,
        classes: int,
        parts: Sequence[Block],
        threads: int = 1,  # at the most, beside those of the BLAS library
    ) -> None:
        several = x if isinstance(x, tuple) else (x,)
        longest = max(1, len(labels), sum(matrix.shape[1] for matrix in several))
        together = max(1, MAX_NUMBERS // (classes * longest))
        self.threads, self.number = threads, len(parts)
        count = max(min(threads, len(parts)), math.ceil(len(parts) / together))
        groups = [parts[i::count] for i in range(count)]
        if len(several) == 1 and len(labels) <= min(MAX_SPAN, several[0].shape[1] // 2):
            spaces: Sequence[_Span | _Columns] = [_Span(several[0], group) for group in groups]
        else:
            axes = [_principal_axes(m) if isinstance(m, np.ndarray) else None for m in several]
            spaces = [_Columns(several, axes, group) for group in groups]
        self.problems = [_Problem(space, labels, classes) for space in spaces]

    def solve(self, penalty: float, rough: bool = False) -> list[Solution]:
        """Minimise the mean cross-entropy of each part's rows plus penalty |w|^2 / 2.

        Intercepts are free; with two classes, w is the difference of their rows, as in
        scikit-learn's `LogisticRegression` with C = 1 / (sum of weights x penalty). It is quickest
        from the largest penalty on, whose solution is nearest to zero.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            run = pool.map if self.threads > 1 else map
            common = repeat(penalty), repeat(ROUGH_GAP if rough else GAP)
            solved = list(run(_Problem.solve, self.problems, *common))
        count = len(solved)
        return [solved[i % count][i // count] for i in range(self.number)]


class _Problem:
    """F regressions' objectives, and the points (F, K, d + 1) where searches ended."""

    def __init__(self, columns: "_Span | _Columns", labels: Labels, classes: int) -> None:
        self.columns = columns
        used = np.stack([part.weights for part in columns.parts], 1)  # (N, F)
        self.share = (used / (used.sum(0) + (used.sum(0) == 0)))[..., None].astype(columns.dtype)
        self.own = one_hot(labels, classes)[:, None]  # (N, 1, K)
        start = np.zeros((len(columns.parts), classes, columns.width + 1))
        start[..., -1] = [log_frequencies(labels, classes, x.weights) for x in columns.parts]
        self.points = {math.inf: start}  # of the last two penalties
        self.present = start[..., -1:] > ABSENT  # (F, K, 1); others stay where they start
        pairs = self.present.sum(1) == 2  # the difference w of two rows has 2 |row|^2 = |w|^2 / 2
        self.strength = np.where(pairs, 2.0, 1.0)[..., None]  # (F, 1, 1)

    def solve(self, penalty: float, gap: float) -> list[Solution]:
        """Find the minima by Newton's method, and return the regressions there."""
        penalties = penalty * self.strength
        before, last = ([*self.points.values()] * 2)[-2:]
        point = self.points.get(penalty, 2 * last - before)  # as far beyond the last as that was
        logits = self.columns.logits(point)
        value, probs = self._value(point, logits, penalties)
        for _ in range(MAX_STEPS):
            gradient = self._gradient((probs - self.own) * self.share, point, penalties)
            step, along, down = self._newton_step(gradient, probs, penalties, gap)
            length = (down > gap).astype(float)  # (F,)
            if not length.any():
                break
            for _ in range(MAX_HALVINGS):
                there = point + length[:, None, None] * step
                moved = logits + length[:, None].astype(logits.dtype) * along
                found, probs = self._value(there, moved, penalties)
                worse = found > value + ROUNDING
                if not worse.any():
                    break
                length[worse] /= 2
            point, logits, value = there, moved, found
        self.points = {**dict([*self.points.items()][-1:]), penalty: point}
        return self.columns.solutions(point)

    def _value(self, point: Array, logits: Array, penalties: Array) -> tuple[Array, Array]:
        """The objectives (F,), and the probabilities (N, F, K)."""
        shifted = logits - logits.max(-1, keepdims=True)
        probs = np.exp(shifted)
        total = probs.sum(-1, keepdims=True)
        probs /= total
        own = (shifted * self.own).sum(-1, keepdims=True)
        loss: Array = ((np.log(total) - own) * self.share).sum((0, 2), dtype=float)
        return loss + (penalties * np.square(point[..., :-1])).sum((1, 2)) / 2, probs

    def _gradient(self, slopes: Array, point: Array, penalties: Array) -> Array:
        """Derivative (F, K, d + 1), where that by the logits is (N, F, K)."""
        gradient = self.columns.gradient(slopes)
        gradient[..., :-1] += (penalties * point[..., :-1]).astype(gradient.dtype)
        return gradient * self.present

    def _newton_step(
        self, gradient: Array, probs: Array, penalties: Array, gap: float
    ) -> tuple[Array, ...]:
        """The step (F, K, d + 1), its logits (N, F, K), and about how far it goes down (F,).

        By conjugate gradients, each regression's to a relative residual of FORCING.
        """
        curvature = probs * (1 - probs) * self.share  # (N, F, K)
        mean, total = np.split(self.columns.gradient(curvature), [-1], -1)
        total = np.maximum(total, 1e-12)
        mean /= total  # of the rows, as they count for each class
        divide = self.columns.divider(curvature, penalties.astype(gradient.dtype))

        def precondition(residual: Array) -> Array:
            bias = residual[..., -1:]
            weight = divide(residual[..., :-1] - mean * bias)
            bias = bias / total - (mean * weight).sum(-1, keepdims=True)
            return np.concatenate([weight, bias], -1)

        step, along = np.zeros_like(gradient), np.zeros_like(probs)
        residual = -gradient
        direction = precondition(residual)
        size = first = (residual * direction).sum((1, 2), dtype=float)  # (F,)
        for _ in range(MAX_PRODUCTS):
            goes_on = size > np.maximum(gap / 2, FORCING**2 * first)
            if not goes_on.any():
                break
            moved = self.columns.logits(direction)
            slopes = probs * moved
            slopes -= probs * slopes.sum(-1, keepdims=True)
            product = self._gradient(slopes * self.share, direction, penalties)
            bend = (direction * product).sum((1, 2), dtype=float)
            length = np.divide(size, bend, out=np.zeros_like(size), where=goes_on & (bend > 0))
            length = length.astype(gradient.dtype)
            step += length[:, None, None] * direction
            along += length[:, None] * moved
            residual -= length[:, None, None] * product
            towards = precondition(residual)
            before, size = size, (residual * towards).sum((1, 2), dtype=float)
            ratio = np.divide(size, before, out=np.zeros_like(size), where=before > 0)
            direction = towards + ratio.astype(gradient.dtype)[:, None, None] * direction
        return step, along, first / 2


class _Columns:
    """The weights themselves, of rows as each regression scales them."""

    def __init__(self, x: Sequence[Any], axes: Sequence[_Axes | None], parts: Sequence[Block]):
        self.x, self.axes, self.parts, self.dtype = x, axes, parts, x[0].dtype
        *self.cuts, self.width = np.cumsum([matrix.shape[1] for matrix in x]).tolist()
        self.turned = [None if isinstance(m, np.ndarray) else m.T.tocsr() for m in x]  # if sparse
        self.mean, self.factor = np.empty((2, len(parts), 1, self.width), self.dtype)
        for i, part in enumerate(parts):
            self.mean[i], self.factor[i] = part.mean, 1 / np.asarray(part.deviation)

    def logits(self, point: Array) -> Array:
        """Of all rows, (N, F, K)."""
        weight, bias = self._unscaled(point)
        flat = weight.reshape(bias.size, self.width).astype(self.dtype, copy=False)
        blocks = zip(self.x, np.split(flat, self.cuts, 1), strict=True)
        logits: Array = sum(matrix @ block.T for matrix, block in blocks).reshape(-1, *bias.shape)
        logits += bias.astype(self.dtype)
        return logits

    def gradient(self, slopes: Array) -> Array:
        """Of a sum over rows and classes of slopes (N, F, K) times logits, (F, K, d + 1)."""
        total = slopes.sum(0, dtype=float)[..., None].astype(self.dtype)  # (F, K, 1)
        flat = slopes.reshape(len(slopes), -1)
        pairs = zip(self.x, self.turned, strict=True)
        sums = [flat.T @ m if turned is None else (turned @ flat).T for m, turned in pairs]
        inner = np.concatenate(sums, 1)
        inner = (inner.reshape(*total.shape[:2], self.width) - total * self.mean) * self.factor
        return np.concatenate([inner, total], -1)

    def divider(self, curvature: Array, penalties: Array) -> Divide:
        """An approximate division of (F, K, d) by the Hessian, from curvatures (N, F, K)."""
        matrices = zip(self.turned, self.axes, strict=True)
        found = [_divider(turned, axes, curvature, penalties) for turned, axes in matrices]

        def divide(weights: Array) -> Array:
            blocks = zip(found, np.split(weights, self.cuts, -1), strict=True)
            return np.concatenate([by(block) for by, block in blocks], -1)

        return divide

    def solutions(self, point: Array) -> list[Solution]:
        return [Solution(*pair) for pair in zip(*self._unscaled(point), strict=True)]

    def _unscaled(self, point: Array) -> tuple[Array, Array]:
        """Weights (F, K, D) and biases (F, K) for rows that are not scaled."""
        weight = point[..., :-1] * self.factor
        return weight, point[..., -1] - (weight * self.mean).sum(-1)


def _divider(turned: Any, axes: _Axes | None, curvature: Array, penalties: Array) -> Divide:
    """See `_Columns.divider`, of one matrix: by its leading axes, or by the Hessian's diagonal."""
    total = curvature.sum(0)[..., None]  # (F, K, 1)
    if axes is None:
        diagonal = (turned.power(2) @ curvature.reshape(len(curvature), -1)).T
        diagonal = diagonal.reshape(*total.shape[:2], -1) + penalties
        return lambda weights: weights / diagonal
    vectors, variances, others = axes
    rest = 1 / (total * others + penalties)
    leading = 1 / (total * variances + penalties) - rest  # (F, K, r)

    def divide(weights: Array) -> Array:
        inside = weights.reshape(total.size, len(vectors)) @ vectors
        inside = inside * leading.reshape(inside.shape) @ vectors.T
        return weights * rest + inside.reshape(weights.shape)

    return divide


def _principal_axes(x: Array) -> _Axes:
    """Spectrum of dense rows (N, D), about (subspace iteration, Halko, Martinsson & Tropp 2011)."""
    rows, columns = x.shape
    rank = min(RANK, rows, columns)
    vectors = np.random.default_rng(0).standard_normal((columns, rank)).astype(x.dtype)
    for _ in range(2):
        vectors = np.linalg.qr(x.T @ (x @ vectors))[0]
    image = x @ vectors
    variances, rotation = np.linalg.eigh(image.T @ image)
    variances = np.maximum(variances, 0) / max(1, rows)
    total = np.square(x).sum(dtype=float) / max(1, rows)
    others = max(0.0, total - variances.sum(dtype=float)) / max(1, columns - rank)
    return vectors @ rotation, variances, others


class _Span:
    """Weights along the principal axes of each regression's own rows, which are few."""

    dtype = np.dtype(float)

    def __init__(self, x: Any, parts: Sequence[Block]) -> None:
        self.x, self.parts, self.width = x, parts, x.shape[0]
        products = [z @ z.T for z in map(self._scaled, parts)]
        gram = np.stack([z if isinstance(z, np.ndarray) else z.toarray() for z in products])
        squares, self.vectors = np.linalg.eigh(gram)  # (F, N), (F, N, N)
        kept = squares > 1e-14 * squares.max(-1, keepdims=True)
        self.size = np.sqrt(np.where(kept, squares, 0))
        self.rows = self.vectors * self.size[:, None]
        counts = np.array([max(1, np.count_nonzero(part.weights)) for part in parts])
        self.variances = np.square(self.size)[:, None] / counts[:, None, None]  # (F, 1, N)

    def logits(self, point: Array) -> Array:
        logits: Array = self.rows @ point[..., :-1].swapaxes(1, 2)  # (F, N, K)
        return (logits + point[:, None, :, -1]).swapaxes(0, 1)

    def gradient(self, slopes: Array) -> Array:
        by_part = slopes.transpose(1, 2, 0)  # (F, K, N)
        return np.concatenate([by_part @ self.rows, by_part.sum(-1, keepdims=True)], -1)

    def divider(self, curvature: Array, penalties: Array) -> Divide:
        diagonal = curvature.sum(0)[..., None] * self.variances + penalties
        return lambda weights: weights / diagonal

    def solutions(self, point: Array) -> list[Solution]:
        inverse = np.divide(1, self.size, out=np.zeros_like(self.size), where=self.size > 0)
        of_rows = (point[..., :-1] * inverse[:, None]) @ self.vectors.swapaxes(1, 2)  # (F, K, N)
        of_rows *= np.stack([part.weights > 0 for part in self.parts])[:, None]
        inner = (of_rows.reshape(-1, self.width) @ self.x).reshape(*of_rows.shape[:2], -1)
        found = []
        for part, one, rows, product in zip(self.parts, point, of_rows, inner, strict=True):
            weight = product - rows.sum(1, keepdims=True) * part.mean
            weight = weight / np.square(part.deviation)  # their scale, and that undone
            found.append(Solution(weight, one[:, -1] - (weight * part.mean).sum(-1)))
        return found

    def _scaled(self, part: Block) -> Any:
        """The rows (N, D) as a regression scales them, 0 where it does not learn from them."""
        rows = (part.weights > 0)[:, None]
        if isinstance(self.x, np.ndarray):
            return (self.x.astype(float) - part.mean) / part.deviation * rows
        return self.x.astype(float).multiply(rows).tocsr()
