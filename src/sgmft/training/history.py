"""The log of a training, the tools that keep it, and the epoch that its held-out posts choose."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple

from sgmft.errors import SgmftError, needs_extra, warn
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
    gate_entropy: float  # relative, see `sgmft.models.base.Guidance`; NaN without guidance
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
    validated = [epoch for epoch in history if patience and not math.isnan(epoch.val_loss)]
    return min(validated, key=lambda epoch: epoch.val_loss, default=history[-1])


@contextmanager
def tracked(track: Any, settings: Mapping[str, Any]) -> Iterator[Callable[..., Any]]:
    """Yield what logs figures and their step; `track` is as in `SemanticLocator.fit`.

    With settings and a name after these, it is a run of its own that is logged. A tool that cannot
    be opened raises SgmftError; what fails later is warned of once, and ends the logging.
    """
    if not track or not distributed.is_main():
        yield lambda *line: None
        return
    kind = str(track) if track in ("mlflow", "wandb") else "tensorboard"
    with needs_extra(kind, f"Logging to {kind}"):
        tool = import_module("torch.utils.tensorboard" if kind == "tensorboard" else kind)
    opened, logs, failed = _open_run(tool, kind, track, settings), list[Any](), list[str]()

    def attempt(call: Callable[..., Any], *given: Any) -> Any:
        try:
            return call(*given)
        except Exception as error:  # tools have kinds of their own
            why = " ".join(str(error).split()).rstrip(".")
            failed.append(f"Logging to {track} failed: {why}. Check that it can be written to.")
            if not logs:
                raise SgmftError(failed[0]) from error
            if len(failed) == 1:
                warn(f"{failed[0]} Nothing more is logged.")

    def write(figures: Mapping[str, float], step: int, *run: Any) -> None:
        with _open_run(tool, kind, track, *run) if run else nullcontext(logs[0]) as own:
            own(figures, step)

    logs.append(attempt(opened.__enter__))
    with ExitStack() as stack:
        stack.push(lambda *error: attempt(opened.__exit__, *error))
        yield lambda *line: failed or attempt(write, *line)


@contextmanager
def _open_run(tool: Any, kind: str, track: Any, settings: Any, name: str = "") -> Iterator[Any]:
    if kind == "mlflow":
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # seconds, not minutes
        with tool.start_run(nested=True, run_name=name or None):  # in the caller's, if any
            tool.log_params(settings)
            yield tool.log_metrics
    elif kind == "wandb":
        how = {"project": "sgmft", "mode": "offline", "reinit": "create_new", "name": name or None}
        with tool.init(config=dict(settings), **how) as run:
            yield run.log
    else:
        with tool.SummaryWriter(f"{track}/{name.replace('/', '_')}") as writer:
            writer.add_text("settings", str(settings))
            yield lambda figures, step: [writer.add_scalar(*x, step) for x in figures.items()]
