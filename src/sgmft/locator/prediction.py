"""What a trained model says of one post."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sgmft.data.posts import Post
from sgmft.data.summary import JobSummary, count_errors
from sgmft.locator.abstention import Abstention, AbstentionDecision, HeldOut

if TYPE_CHECKING:
    from sgmft.features.encode import Chunk


class PredictionBatch(NamedTuple):
    """What a model says of a chunk's B posts that could be encoded."""

    chunk: Chunk
    probabilities: NDArray[np.float32]  # (B, K), calibrated
    guidance: NDArray[np.float32]  # (B, 2) relative entropies of P^m and P^e; NaN without guidance


class Prediction(NamedTuple):
    """What the model says of one post."""

    post: Post
    label: str | None  # None for a post that carries an error, or where the model abstains
    probabilities: NDArray[np.float32] | None  # (K,) in the order of `SemanticLocator.labels`
    guidance: tuple[float, float] | None  # relative entropies of P^m and P^e; NaN without guidance
    label_set: tuple[str, ...] | None = None  # of the coverage asked for; None where none was
    typicality: float | None = (
        None  # see `sgmft.locator.abstention.HeldOut`; None where not asked for
    )
    abstained: str | None = None  # why a post that could be read has no label

    @property
    def error(self) -> str | None:
        """Why there is no label."""
        return self.post.error

    @property
    def probability(self) -> float | None:
        """Of the most probable label, given or not."""
        return None if self.probabilities is None else float(self.probabilities.max())


def summarize(predictions: Sequence[Prediction]) -> JobSummary:
    """Count the posts, the errors and the posts without a label among predictions."""
    abstained = Counter(p.abstained for p in predictions if p.abstained is not None)
    return JobSummary(len(predictions), count_errors(p.post for p in predictions), dict(abstained))


def predictions_of(
    answers: PredictionBatch, labels: Sequence[str], held_out: HeldOut, rules: Abstention
) -> Iterator[Prediction]:
    """What a model says of a chunk's posts, in their order; those with an error carry it.

    Args:
        labels: K, in the order of the probabilities.
        held_out, rules: by which labels are kept back.
    """
    chunk, probs, guidance = answers
    rulings = iter(held_out.apply(probs, rules))
    row_of = {position: row for row, position in enumerate(chunk.good)}
    for position, post in enumerate(chunk.posts):
        if position not in row_of:
            yield Prediction(post, None, None, None)
            continue
        row = row_of[position]
        gate, elements = guidance[row].tolist()
        yield _ruled(Prediction(post, None, probs[row], (gate, elements)), next(rulings), labels)


def _ruled(said: Prediction, ruling: AbstentionDecision, labels: Sequence[str]) -> Prediction:
    """What the rules leave of what a model says of a post."""
    probs, members = said.probabilities, ruling.members
    assert probs is not None
    return said._replace(
        label=None if ruling.reason else labels[int(probs.argmax())],
        label_set=None
        if members is None
        else tuple(labels[k] for k in members.nonzero()[0].tolist()),
        typicality=ruling.typicality,
        abstained=ruling.reason,
    )


class Predicts(Protocol):
    """What jobs on tables need of a model, wherever it is."""

    labels: list[str]

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Predictions in the order of the posts."""


class Predictor(ABC):
    """What says something of posts: a `SemanticLocator`, or an exported one.

    Attributes:
        labels: the K labels, in the order of the probabilities.
        held_out: what the model says of posts that it has not learned from; perhaps none.
    """

    labels: list[str]
    held_out: HeldOut

    @abstractmethod
    def _prediction_batches(self, posts: Iterable[Post]) -> Iterator[PredictionBatch]:
        """What the model says of the posts, chunk by chunk; raises what is wrong with itself."""

    def predict(self, posts: Sequence[Post], abstain: Abstention | None = None) -> list[str | None]:
        """The most probable label of each post; None where a post cannot be read.

        Args:
            abstain: rules under which the label is None too; see `predictions` for why.
        """
        return [prediction.label for prediction in self.predictions(posts, abstain)]

    def predict_proba(self, posts: Sequence[Post]) -> NDArray[np.float32]:
        """Probabilities (N, K) in the order of `labels`; NaN where a post cannot be read."""
        missing = np.full(len(self.labels), np.nan, np.float32)
        rows = [p.probabilities for p in self.predictions(posts)]
        return np.array([missing if row is None else row for row in rows], np.float32).reshape(
            len(rows), len(self.labels)
        )

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Predictions in the order of the posts, in memory bounded by one chunk of them.

        Raises:
            SgmftError: there is no model yet, or not enough held-out posts for `abstain`.
        """
        rules = abstain or Abstention()
        answers = self._prediction_batches(posts)
        self.held_out.check(rules)
        for answer in answers:
            yield from predictions_of(answer, self.labels, self.held_out, rules)

    def reapply(
        self, predictions: Iterable[Prediction], abstain: Abstention | None
    ) -> list[Prediction]:
        """The same predictions under other rules, without asking the model again.

        Raises:
            SgmftError: there are not enough held-out posts for `abstain`.
        """
        said, rules = list(predictions), abstain or Abstention()
        self.held_out.check(rules)
        probs = [p.probabilities for p in said if p.probabilities is not None]
        table = np.array(probs, np.float32).reshape(len(probs), len(self.labels))
        rulings = iter(self.held_out.apply(table, rules))
        return [p if p.error else _ruled(p, next(rulings), self.labels) for p in said]
