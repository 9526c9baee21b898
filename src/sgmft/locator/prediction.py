"""Predictions of a trained model, post by post, and what can make them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.features.encode import Chunk
from sgmft.locator.abstention import Abstention, AbstentionDecision, HeldOutProbabilities

SHARPNESS = 6.0  # of the weights of windows; 0 would be their mean
TINY = 1e-6  # of probabilities whose logarithm is taken


class Prediction(NamedTuple):
    """The prediction for one post.

    Attributes:
        post: the post, with its `error` where it could not be read.
        label: None for a post with an error, or where the model abstains.
        probabilities: (K,) in the order of the model's labels; None for a post with an error.
        guidance: relative entropies of P^m and P^e; NaN without guidance.
        label_set: labels of the prediction set; None where no coverage was given.
        typicality: see `HeldOutProbabilities.typicality`; None where posts are not rejected.
        abstained: why a post that could be read has no label.
    """

    post: Post
    label: str | None
    probabilities: NDArray[np.float32] | None
    guidance: tuple[float, float] | None
    label_set: tuple[str, ...] | None = None
    typicality: float | None = None
    abstained: str | None = None

    @property
    def error(self) -> str | None:
        """Why the post could not be read."""
        return self.post.error

    @property
    def probability(self) -> float | None:
        """The probability of the most probable label, given or not."""
        return None if self.probabilities is None else float(self.probabilities.max())


# A chunk, and for its B rows probabilities (B, K), calibrated, and relative entropies of P^m and
# P^e (B, 2), NaN without guidance.
PredictionBatch = tuple[Chunk, NDArray[np.float32], NDArray[np.float32]]


class SupportsPredictions(Protocol):
    """The part of a model that jobs on tables use; it may run in another process."""

    labels: list[str]

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of the posts."""


class Predictor(ABC):
    """A trained model: a `SemanticLocator`, or an exported one.

    Attributes:
        labels: the K labels, in the order of the probabilities.
        held_out: probabilities of labelled posts that it has not learned from; perhaps none.
    """

    labels: list[str]
    held_out: HeldOutProbabilities

    @abstractmethod
    def _predict_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        """Predict chunk by chunk; an untrained model raises at once, not at the first chunk."""

    def predict(self, posts: Sequence[Post], abstain: Abstention | None = None) -> list[str | None]:
        """Return the most probable label of each post; None where a post cannot be read.

        Args:
            abstain: rules under which the label is None too; see `predictions` for why.
        """
        return [prediction.label for prediction in self.predictions(posts, abstain)]

    def predict_proba(self, posts: Sequence[Post]) -> NDArray[np.float32]:
        """Return probabilities (N, K) in the order of `labels`; NaN where a post cannot be read."""
        found = np.full((len(posts), len(self.labels)), np.nan, np.float32)
        for row, prediction in zip(found, self.predictions(posts), strict=True):
            if prediction.probabilities is not None:
                row[:] = prediction.probabilities
        return found

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of the posts, in memory bounded by one chunk of them.

        Raises:
            SgmftError: there is no model yet, or not enough held-out posts for `abstain`.
        """
        rules = abstain or Abstention()
        batches = self._predict_batches(posts)
        self.held_out.check(rules)
        for chunk, *outputs in batches:
            probs, guidance = pool_windows(chunk, *outputs)
            rows = zip(probs, guidance, self.held_out.apply(probs, rules), strict=True)
            good = set(chunk.good)
            for position, post in enumerate(chunk.posts):
                if position not in good:
                    yield Prediction(post, None, None, None)
                    continue
                row, (modality, element), decision = next(rows)
                prediction = Prediction(post, None, row, (float(modality), float(element)))
                yield _decide(prediction, decision, self.labels)

    def apply_abstention(
        self, predictions: Iterable[Prediction], abstain: Abstention | None
    ) -> list[Prediction]:
        """Return the same predictions under other rules, without running the model again.

        Raises:
            SgmftError: there are not enough held-out posts for `abstain`.
        """
        predictions, rules = list(predictions), abstain or Abstention()
        self.held_out.check(rules)
        probs = [p.probabilities for p in predictions if p.probabilities is not None]
        table = np.array(probs, np.float32).reshape(len(probs), len(self.labels))
        decisions = iter(self.held_out.apply(table, rules))
        return [p if p.error else _decide(p, next(decisions), self.labels) for p in predictions]


def pool_windows(
    chunk: Chunk, probs: NDArray[np.float32], guidance: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pool the predictions (B, K) and guidance (B, 2) for the windows of a post into one.

    Log-probabilities are averaged with weights exp(-6 H), H the entropy of the prediction for the
    window's text alone: one in which the model recognises nothing counts for little.
    """
    if not any(chunk.windows):
        return probs, guidance
    logs = np.log(probs.clip(min=TINY))
    sure = np.exp(SHARPNESS * negative_entropy(probs))
    rows, guided, start = [], [], 0
    for windows in chunk.windows:
        end, stop = start + max(1, windows), start + max(1, 2 * windows)
        weight = sure[end:stop] / sure[end:stop].sum() if windows else np.ones(1)
        mean = np.exp(weight @ logs[start:end])
        rows.append(mean / mean.sum() if windows else probs[start])
        guided.append(weight @ guidance[start:end])
        start = stop
    return np.array(rows, np.float32), np.array(guided, np.float32)


def negative_entropy(probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how sure predictions (B, K) are, (B,), in nats; 0 at most."""
    found: NDArray[np.float32] = (probs * np.log(probs.clip(min=TINY))).sum(-1)
    return found


def _decide(
    prediction: Prediction, decision: AbstentionDecision, labels: Sequence[str]
) -> Prediction:
    """Return the prediction with the label, if any, that the decision leaves it."""
    probs, members = prediction.probabilities, decision.members
    assert probs is not None
    label_set = None if members is None else tuple(np.array(labels)[members].tolist())
    return prediction._replace(
        label=None if decision.reason else labels[int(probs.argmax())],
        label_set=label_set,
        typicality=decision.typicality,
        abstained=decision.reason,
    )
