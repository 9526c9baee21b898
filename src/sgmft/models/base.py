"""What every model is: a configuration, an output, and a way to predict. No torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.random import RandomState as Rng
from safetensors.numpy import load_file, save_file

from sgmft.features.features import PART, Batch, BatchSource
from sgmft.features.ragged import Ragged
from sgmft.models.arrays import Array, ArrayModule, Floats, Labels, Weights
from sgmft.models.presets import Natural, check_settings

NETWORK_BATCH = 256  # posts; networks may compare every feature of one with every other
CLOSED_FORM_BATCH = 1024  # they would otherwise spend their time between batches


def divisor(deviation: Array) -> Array:
    """Return the deviation to divide by, or 1 where it is so small that it is rounding alone."""
    return np.where(deviation <= 1e-4, 1.0, deviation)


def mean_and_divisor(x: Ragged | Array) -> tuple[Array, Array]:
    """Return mean and deviation (D,), see `divisor`, of N > 1 vectors, in float64, part by part."""

    def parts() -> Iterable[Array]:
        return x.split(PART) if isinstance(x, Ragged) else np.split(x, range(PART, len(x), PART))

    mean = np.sum([part.sum(0, dtype=np.float64) for part in parts()], 0) / len(x)
    squares = [np.square(part - mean).sum(0) for part in parts()]
    return mean, divisor(np.sqrt(np.sum(squares, 0) / (len(x) - 1)))


@dataclass(frozen=True)
class NetworkConfig:
    """Settings that every network has; subclasses add theirs, see `check_settings`."""

    classes: int  # K, the number of labels
    text_width: int  # Dt, what the encoder gives
    image_width: int  # Dv
    shared_space: bool = False  # whether the encoder's towers share one space
    word_width: int = 0  # Dw, of one word's features; 0 for the same as `text_width`
    joint_width: Natural = field(default=0, kw_only=True)  # Dj; 0 for none
    attributes_width: Natural = field(default=0, kw_only=True)  # A, numbers of other columns

    def __post_init__(self) -> None:
        object.__setattr__(self, "word_width", self.word_width or self.text_width)
        check_settings(self)


class Guidance(NamedTuple):
    """Entropy of each post's guidance as a share of its largest, at which nothing is guided."""

    gate: Any  # (B,) of P^m
    elements: Any  # (B,) of P^e, mean over the guided modality's real elements


class Output(NamedTuple):
    """Output of a model for B posts: arrays, or tensors."""

    logits: Any  # (B, K)
    fused: Any  # (B, D) the representation behind them, which figures of a comparison show
    guidance: Guidance | None = None  # None where the model has no similarity guidance
    parts: Any = None  # further values by their names, for the model's own objective


class SolveStep(NamedTuple):
    """How far one part of a network in closed form is solved."""

    part: str  # as a user reads it, "text" for instance
    done: int  # penalties tried; 0 at its start
    total: int  # reached at its end, also where the last penalties need not be tried


class Model(Protocol):
    """A closed-form model, or a network of torch: what predicts, and can be saved."""

    uses_ngrams: bool  # whether its batches must have n-grams

    @property
    def config(self) -> NetworkConfig:
        """Its settings."""

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""

    def predict(self, batch: Batch) -> Output:
        """Map features of B posts, as arrays, to an output of arrays."""

    def save(self, path: Path) -> None:
        """Write its state as safetensors."""

    def load(self, path: Path) -> None:
        """Take what `save` wrote; OSError, SafetensorError, ValueError, RuntimeError if damaged."""


class ClosedFormModel(ArrayModule, ABC):
    """A model of NumPy's without epochs; `forward` takes tensors where the state is replaced."""

    config: NetworkConfig
    uses_ngrams: bool = False

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.on_step: Callable[[SolveStep], object] = lambda step: None  # called while `fit` works

    @abstractmethod
    def fit(self, batch: Batch, labels: Labels, rng: Rng, weights: Weights = None) -> Any:
        """Learn from all training posts at once, with labels (N,) or (N, K) and weights (N,).

        Returns logits (4, N, K) of each post from weights found without it, as if it had no others
        than each of `PARTS` (what it does not have counts as nothing); None where there are none.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Map features of B posts to logits (B, K)."""

    def predict(self, batch: Batch) -> Output:
        """See `Model`."""
        return self.forward(batch)

    def save(self, path: Path) -> None:
        """See `Model`."""
        save_file({name: np.array(x, order="C") for name, x in self.state_dict().items()}, path)

    def load(self, path: Path) -> None:
        """See `Model`."""
        self.load_state_dict(load_file(path))

    def report(self, part: str) -> Callable[[int, int], object]:
        """Return what `fit` calls with the penalties of a part that are done, and all of them."""
        return lambda done, total: self.on_step(SolveStep(part, done, total))


class ModelOutputs(NamedTuple):
    """Outputs of a model for N posts."""

    logits: Floats  # (N, K)
    fused: Floats  # (N, D)
    guidance: Floats  # (N, 2) relative entropies of P^m and P^e; NaN without guidance


def predict_logits(model: Model, posts: BatchSource) -> ModelOutputs:
    """Return the outputs for all posts; a network is in evaluation mode afterwards."""
    if not len(posts):
        none = np.zeros((0, model.config.classes), np.float32)
        return ModelOutputs(none, none, np.zeros((0, 2), np.float32))
    parts = []
    size = CLOSED_FORM_BATCH if isinstance(model, ClosedFormModel) else NETWORK_BATCH
    for start in range(0, len(posts), size):
        output = model.predict(posts.batch(slice(start, start + size), model.uses_ngrams))
        known: Any = output.guidance or [np.full(len(output.logits), np.nan, np.float32)] * 2
        parts.append((output.logits, output.fused, np.stack(known, 1)))
    return ModelOutputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))
