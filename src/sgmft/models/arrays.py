"""Models as arrays: their state, and functions of NumPy's to predict, and of torch's to train."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Reals = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Weights = Doubles | None  # (N,) how much each of N posts counts; None: all the same
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Labels = NDArray[Any]  # classes (N,), or soft labels: probabilities of the classes (N, K)


class ArrayModule:
    """Arrays, and parts that have some too, under dotted names as in a `torch.nn.Module`."""

    learned: tuple[str, ...] = ()  # names of its own arrays that are learned; the others are data
    arrays_only = False  # whether it takes arrays alone, not tensors

    @property
    def parameter_count(self) -> int:
        """How many numbers have been learned."""
        owners = ((*self.owner(name), x) for name, x in self.state_dict().items())
        return sum(x.size for owner, name, x in owners if name in owner.learned)

    def state_dict(self) -> dict[str, Any]:
        """Return all arrays by name."""
        found: dict[str, Any] = {}
        for name, x in vars(self).items():
            if isinstance(x, ArrayModule):
                found |= {f"{name}.{inner}": y for inner, y in x.state_dict().items()}
            elif hasattr(x, "shape"):
                found[name] = x
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take arrays, or tensors, of the names and shapes of `state_dict`; else ValueError."""
        shapes = {name: tuple(x.shape) for name, x in self.state_dict().items()}
        if {name: tuple(x.shape) for name, x in state.items()} != shapes:
            raise ValueError("the state is of another model")
        for name, x in state.items():
            setattr(*self.owner(name), x)

    def owner(self, name: str) -> tuple["ArrayModule", str]:
        """Return the part that has the array of this dotted name, and its name there."""
        *parts, last = name.split(".")
        return reduce(getattr, parts, self), last


def array_namespace(x: Any) -> Any:
    """Return the module of an array's functions: NumPy itself from 2.1 on, sooner imported."""
    own = isinstance(x, np.ndarray) and hasattr(np, "astype")
    return np if own else array_api_compat.array_namespace(x)


def logsumexp(x: Any) -> Any:
    """Return log sum exp over the last axis, which is kept with length 1."""
    xp = array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    return top + xp.log(xp.sum(xp.exp(x - top), axis=-1, keepdims=True))


def log_softmax(x: Any) -> Any:
    """Return log-probabilities of logits along the last axis."""
    return x - logsumexp(x)


def softmax(x: Any) -> Any:
    """Return probabilities of logits along the last axis."""
    return array_namespace(x).exp(log_softmax(x))


def log_sigmoid(x: Any) -> Any:
    """Return log(1 / (1 + exp(-x)))."""
    xp = array_namespace(x)
    return -xp.logaddexp(xp.zeros_like(x), -x)


def one_hot(labels: Any, classes: int) -> Any:
    """Return probabilities (N, K) of classes (N,); probabilities stay as they are."""
    return labels if labels.ndim == 2 else np.arange(classes) == labels[:, None]


def most_probable(labels: Any) -> Any:
    """Return classes (N,), of arrays or tensors: as they are, or of probabilities (N, K)."""
    return labels if labels.ndim == 1 else labels.argmax(-1)


def normalize(x: Any) -> Any:
    """Scale vectors along the last axis to unit length; one of zeros stays so."""
    xp = array_namespace(x)
    return x / xp.clip(xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True)), min=1e-12)


def cross_entropy(logits: Any, labels: Any, weights: Any = None) -> float:
    """Return the mean cross-entropy of logits (N, K) for labels, see `Labels`; NaN without any."""
    if not len(labels):
        return float("nan")
    own = (log_softmax(logits) * one_hot(labels, logits.shape[-1])).sum(-1)
    return -float(np.average(own, weights=weights))
