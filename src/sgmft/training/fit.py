"""From labelled features to a trained network: validation posts choose, then all posts train."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sgmft.errors import SgmftError
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features, LabelledFeatures
from sgmft.models.base import ClosedFormNetwork, Network
from sgmft.models.inference import predict_logits
from sgmft.models.method import Method
from sgmft.models.presets import Preset
from sgmft.models.sgmft import own_width
from sgmft.training.trainer import Epoch, train


@dataclass(frozen=True)
class TrainingTask:
    """What is to be learned: all the training posts, and how.

    Attributes:
        data: features and classes of all training posts.
        classes: K.
        info: of the encoder that made the features.
        method: the system.
        preset: its settings.
        prompts: (K, Dt) the labels as encoded texts, for methods that ask for them.
    """

    data: LabelledFeatures
    classes: int
    info: EncoderInfo
    method: Method
    preset: Preset
    prompts: torch.Tensor | None = None

    def network(self, features: Features) -> Network:
        """A new network: weights decided by the seed, scales taken from these posts."""
        torch.manual_seed(self.preset.train.seed)
        words = None if features.words is None else features.words.flat()
        regions = None if features.regions is None else features.regions.flat()
        values = {
            "classes": self.classes,
            "text_width": self.info.text_width,
            "image_width": self.info.image_width,
            "shared_space": self.info.shared_space,
            "word_width": self.info.word_width,
            **self.preset.model,
            **self.method.network.measure(words),
        }
        if "initial_temperature" in {f.name for f in dataclasses.fields(self.method.config)}:
            values["initial_temperature"] = initial_temperature(self.info, self.preset)
        network = self.method.network(self.method.config(**values))
        network.prepare(features.texts, features.images, words, regions)
        if self.prompts is not None:
            network.get_buffer("prompts").copy_(self.prompts)
        return network


class HeldOutLogits(NamedTuple):
    """What a network says of N labelled posts that it has not learned from."""

    logits: torch.Tensor  # (N, K)
    labels: torch.Tensor  # (N,)


class FitResult(NamedTuple):
    """What held-out posts chose: the network, and the log of its training.

    Attributes:
        unseen: what it said of the posts that it had not learned from; there may be none.
        kept: the epoch after which the network was as it is.
    """

    network: Network
    history: list[Epoch]
    unseen: HeldOutLogits
    kept: Epoch


def choose(task: TrainingTask, held_out: Sequence[int], **run: Any) -> FitResult:
    """Train on the posts that are not held out; those that are decide which epoch is kept.

    Args:
        held_out: positions of the validation posts; with none, all epochs are trained on all posts.
        run: checkpoint, track, device, on_epoch; see `sgmft.training.trainer.train`.

    Raises:
        SgmftError: the training has diverged.
    """
    seen, watched = task.data, None
    if held_out:
        out = torch.zeros(len(task.data.labels), dtype=torch.bool)
        out[list(held_out)] = True
        seen, watched = task.data.take(~out), task.data.take(out)
    network = task.network(seen.features)
    history = train(network, seen, watched, task.preset.train, **run)
    _check(network, task)
    kept = kept_epoch(history, task.preset.train.patience)
    return FitResult(network, history, _unseen(network, task, watched), kept)


def refit(task: TrainingTask, epochs: int, **run: Any) -> Network:
    """Train anew on all posts, for as many epochs as held-out posts chose.

    Args:
        run: as in `choose`.

    Raises:
        SgmftError: the training has diverged.
    """
    network = task.network(task.data.features)
    settings = dataclasses.replace(task.preset.train, epochs=epochs, patience=0)
    train(network, task.data, None, settings, **run)
    _check(network, task)
    return network


def _check(network: Network, task: TrainingTask) -> None:
    """Refuse a network that says of some training posts what are no numbers."""
    some = task.data.features.take(torch.arange(min(len(task.data.labels), 32)))
    if not predict_logits(network, some).logits.isfinite().all():
        raise SgmftError(
            f"The training of {task.method.title} has diverged: its answers are no numbers. A "
            f"lower learning rate than {task.preset.train.learning_rate:g} may help."
        )


def fit_network(
    task: TrainingTask,
    held_out: Sequence[int],
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    **run: Any,
) -> FitResult:
    """Train as the preset says: choose on held-out posts, and with `refit` train on all after that.

    Args:
        held_out: positions of the validation posts; may be empty.
        checkpoint: folder of the state of interrupted runs.
        on_epoch: called after each epoch.
        run: track, device; see `sgmft.training.trainer.train`.

    Returns:
        The network; the rest is of the training that the held-out posts watched.
    """
    run["on_epoch"] = on_epoch
    choice = choose(task, held_out, checkpoint=checkpoint and checkpoint / "choose", **run)
    if not task.preset.refit or not held_out:
        return choice
    folder = checkpoint and checkpoint / "refit"
    network = refit(task, choice.kept.epoch, checkpoint=folder, **run)
    return choice._replace(network=network)


def _unseen(
    network: Network, task: TrainingTask, watched: LabelledFeatures | None
) -> HeldOutLogits:
    """Answers for posts that it has not learned from: those held out, or left out of its folds."""
    if watched is not None:
        return HeldOutLogits(predict_logits(network, watched.features).logits, watched.labels)
    if isinstance(network, ClosedFormNetwork) and network.held_out is not None:
        return HeldOutLogits(network.held_out, task.data.labels)
    return HeldOutLogits(torch.zeros(0, task.classes), task.data.labels[:0])


def initial_temperature(info: EncoderInfo, preset: Preset) -> float:
    """Where a learned temperature starts: such that similarities begin neither flat nor one-hot.

    The encoder's logit scale belongs to its own features of unit length. Standardised token
    features have length sqrt(D), so their products are divided by sqrt(D), as in attention.
    Products of two standardised numbers, which the elements view compares, are of size 1.
    """
    if preset.model.get("scale") != "standard":
        return info.logit_scale or 1.0
    if preset.model.get("view") != "tokens":
        return 1.0
    width = own_width(info.text_width, info.image_width, info.shared_space)
    return float((preset.model.get("width") or width) ** -0.5)


def kept_epoch(history: Sequence[Epoch], patience: int) -> Epoch:
    """The epoch whose weights `sgmft.training.trainer.train` leaves.

    The one with the least validation loss; the last without patience or validation posts.
    """
    watched = [epoch for epoch in history if not math.isnan(epoch.val_loss)]
    if not patience or not watched:
        return history[-1]
    return min(watched, key=lambda epoch: epoch.val_loss)


def validation_metrics(kept: Epoch) -> dict[str, float]:
    """Validation figures of an epoch; none without validation posts."""
    if math.isnan(kept.val_loss):
        return {}
    return {"validation accuracy": kept.val_accuracy, "validation loss": kept.val_loss}
