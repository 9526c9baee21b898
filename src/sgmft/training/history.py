"""The log of a training, the tools that keep it, and the epoch that its held-out posts choose."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from sgmft.errors import needs_extra
from sgmft.models.arrays import Integers, Reals, cross_entropy
from sgmft.utils import distributed


class Epoch(NamedTuple):
    """One line of a training log. Validation figures are NaN without a validation split."""

    epoch: int  # counted from 1
    epochs: int  # at most
    loss: float  # mean over the epoch's training posts
    accuracy: float
    val_loss: float
    val_accuracy: float
    gate_entropy: float  # relative, see `sgmft.models.similarity.Guidance`; NaN without guidance
    element_entropy: float


class Figures(NamedTuple):
    """Figures of some posts, the same on all ranks; means, unless they are said to be sums."""

    loss: float
    accuracy: float


UNKNOWN = Figures(math.nan, math.nan)


def classification_figures(logits: Reals, labels: Integers) -> Figures:
    """Cross-entropy and accuracy of logits (N, K) for labels (N,)."""
    return Figures(cross_entropy(logits, labels), float((logits.argmax(-1) == labels).mean()))


def selected_epoch(history: Sequence[Epoch], patience: int) -> Epoch:
    """The epoch whose weights `train` leaves: of the least validation loss; else the last."""
    validated = [epoch for epoch in history if not math.isnan(epoch.val_loss)]
    if not patience or not validated:
        return history[-1]
    return min(validated, key=lambda epoch: epoch.val_loss)


@contextmanager
def tracked(track: Any, settings: Mapping[str, Any]) -> Iterator[Callable[..., Any]]:
    """Yield a function that logs figures and their step; `track` is as in `SemanticLocator.fit`."""
    if track is None or not distributed.is_main():
        yield lambda figures, step: None
        return
    name = str(track) if track in ("mlflow", "wandb") else "tensorboard"
    with needs_extra(name, f"Logging to {name}"):
        tool = import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    if name == "mlflow":
        with tool.start_run(nested=True):  # in that of the caller, if there is one
            tool.log_params(settings)
            yield tool.log_metrics
    elif name == "wandb":
        with tool.init(project="sgmft", config=dict(settings), mode="offline") as run:
            yield run.log
    else:
        with tool.SummaryWriter(track) as writer:
            writer.add_text("settings", str(settings))
            yield lambda figures, step: [writer.add_scalar(*x, step) for x in figures.items()]
