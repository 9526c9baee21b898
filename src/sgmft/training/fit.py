"""From labelled posts to a trained network: validation posts choose, then all posts train."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor

from sgmft.data.posts import (
    Post,
    raise_first_error,
    warn_about_similar_labels,
    warn_about_singleton_labels,
)
from sgmft.data.splits import fingerprint
from sgmft.data.summary import count_errors, describe_errors, warn_about_parts
from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features, LabelledFeatures
from sgmft.models.base import ClosedFormNetwork, Network, SolveStep
from sgmft.models.inference import predict_logits
from sgmft.models.method import Method
from sgmft.models.presets import Preset
from sgmft.models.sgmft import shared_width
from sgmft.training.trainer import Epoch, selected_epoch, train


@dataclass(frozen=True)
class TrainingTask:
    """All the training posts, and how to learn from them.

    Attributes:
        data: features and classes of all training posts.
        classes: K.
        info: of the encoder that made the features.
        method: the system.
        preset: its settings.
        prompts: (K, Dt) the labels as encoded texts, for methods that need them.
    """

    data: LabelledFeatures
    classes: int
    info: EncoderInfo
    method: Method
    preset: Preset
    prompts: Tensor | None = None

    def network(self, features: Features) -> Network:
        """A new network: weights decided by the seed, scales taken from these posts."""
        torch.manual_seed(self.preset.train.seed)
        words = None if features.words is None else features.words.flat()
        regions = None if features.regions is None else features.regions.flat()
        known = ("text_width", "image_width", "shared_space", "word_width")
        values = {name: getattr(self.info, name) for name in known}
        values |= {"classes": self.classes, **self.preset.model}
        values |= self.method.network.measure(words)
        if "initial_temperature" in {f.name for f in dataclasses.fields(self.method.config)}:
            values["initial_temperature"] = initial_temperature(self.info, self.preset)
        network = self.method.network(self.method.config(**values))
        network.prepare(features.texts, features.images, words, regions)
        if self.prompts is not None:
            network.get_buffer("prompts").copy_(self.prompts)
        return network


class RunOptions(TypedDict, total=False):
    """How a training runs, whatever it learns; see `sgmft.training.trainer.train`."""

    checkpoint: Path | None
    track: str | Path | None
    device: str | None
    on_epoch: Callable[[Epoch], None] | None
    on_step: Callable[[SolveStep], None] | None


class HeldOutLogits(NamedTuple):
    """Logits of N labelled posts by a network that has not learned from them."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)


class FitResult(NamedTuple):
    """A trained network, and the log of its training."""

    network: Network
    history: list[Epoch]
    held_out: HeldOutLogits  # of posts that it had not learned from; there may be none
    selected: Epoch  # whose weights it has, or had before it was trained anew on all posts


def fit_network(
    task: TrainingTask, held_out: Sequence[int], **run: Unpack[RunOptions]
) -> FitResult:
    """Train as the preset says: choose on held-out posts, and with `refit` train on all after that.

    Args:
        held_out: positions of the validation posts; may be empty.
        run: of both trainings; each has a folder of its own in that of the checkpoints.

    Returns:
        The network; the rest is of the training with held-out posts.
    """
    result = train_with_validation(task, held_out, **in_subfolder(run, "choose"))
    if not task.preset.refit or not held_out:
        return result
    network = train_on_all(task, result.selected.epoch, **in_subfolder(run, "refit"))
    return result._replace(network=network)


def train_with_validation(
    task: TrainingTask, held_out: Sequence[int], **run: Unpack[RunOptions]
) -> FitResult:
    """Train on the posts that are not held out; those that are (positions) select the epoch.

    With none held out, all epochs are trained on all posts.

    Raises:
        SgmftError: the training has diverged.
    """
    train_set, validation = task.data, None
    if held_out:
        mask = mask_of(held_out, len(task.data.labels))
        train_set, validation = task.data.take(~mask), task.data.take(mask)
    network = task.network(train_set.features)
    history = train(network, train_set, validation, task.preset.train, **run)
    _check_finite(network, task)
    logits, labels = torch.zeros(0, task.classes), task.data.labels[:0]
    if validation is not None:
        logits, labels = predict_logits(network, validation.features).logits, validation.labels
    elif isinstance(network, ClosedFormNetwork) and network.held_out is not None:
        logits, labels = network.held_out, task.data.labels  # of each by a fold without it
    selected = selected_epoch(history, task.preset.train.patience)
    return FitResult(network, history, HeldOutLogits(logits, labels), selected)


def train_on_all(task: TrainingTask, epochs: int, **run: Unpack[RunOptions]) -> Network:
    """Train anew on all posts, for as many epochs as held-out posts chose.

    Raises:
        SgmftError: the training has diverged.
    """
    network = task.network(task.data.features)
    settings = dataclasses.replace(task.preset.train, epochs=epochs, patience=0)
    train(network, task.data, None, settings, **run)
    _check_finite(network, task)
    return network


def in_subfolder(run: RunOptions, name: str) -> RunOptions:
    """The options with the checkpoint in a folder of that name in its folder."""
    folder = run.get("checkpoint")
    return {**run, "checkpoint": None if folder is None else folder / name}


def mask_of(positions: Sequence[int], length: int) -> Tensor:
    """A mask (length,) that is True at the positions."""
    mask = torch.zeros(length, dtype=torch.bool)
    mask[list(positions)] = True
    return mask


def _check_finite(network: Network, task: TrainingTask) -> None:
    """Refuse a network whose logits of some training posts are not finite."""
    some = task.data.features.take(torch.arange(min(len(task.data.labels), 32)))
    if not predict_logits(network, some).logits.isfinite().all():
        raise SgmftError(
            f"The training of {task.method.title} has diverged: its logits are not finite. A "
            f"lower learning rate than {task.preset.train.learning_rate:g} may help."
        )


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
    width = shared_width(info.text_width, info.image_width, info.shared_space)
    return float((preset.model.get("width") or width) ** -0.5)


def validation_metrics(selected: Epoch) -> dict[str, float]:
    """Validation figures of an epoch; none without validation posts."""
    if math.isnan(selected.val_loss):
        return {}
    return {"validation accuracy": selected.val_accuracy, "validation loss": selected.val_loss}


@dataclass(frozen=True)
class TrainingSet:
    """N posts with features and labels."""

    encoded: EncodedPosts
    names: list[str]  # the label of each
    labels: list[str]  # the K different ones, sorted
    skipped: dict[str, int]  # number of other posts, by the reason why they were left out

    @property
    def classes(self) -> Tensor:
        """The place of each post's label among `labels`, (N,)."""
        number = {label: k for k, label in enumerate(self.labels)}
        return torch.tensor([number[name] for name in self.names])

    def record(self, held_out: int) -> dict[str, Any]:
        """Facts about them for a saved model; `held_out` of them chose the epoch."""
        return {
            "fingerprint": fingerprint(zip(self.encoded.keys, self.names, strict=True)),
            "posts": len(self.names),
            "train": len(self.names) - held_out,
            "validation": held_out,
            "skipped": self.skipped,
        }


def training_set(
    posts: Sequence[Post], encode: Callable[[Sequence[Post]], EncodedPosts], strict: bool = False
) -> TrainingSet:
    """Encode the labelled posts; warn of a label that only one of them has.

    Args:
        strict: refuse all posts when one has an error or a warning, or cannot be encoded.

    Raises:
        SgmftError: fewer than two labels are left; with `strict`, for the first bad post.
    """
    unlabelled = sum(post.error is None and post.label is None for post in posts)
    encoded = encode([post for post in posts if post.label is not None or post.error is not None])
    if strict:
        raise_first_error([*encoded.refused, *encoded.posts])
    skipped = count_errors(encoded.refused)
    if unlabelled:
        skipped["no label"] = unlabelled
    names = [str(post.label) for post in encoded.posts]
    labels = sorted(set(names))
    if len(labels) < 2:
        reasons = describe_errors(skipped)
        raise SgmftError(
            f"Training needs posts of at least two labels; {len(names)} usable posts have "
            f"{len(labels)}" + (f", and were left out: {reasons}." if reasons else ".")
        )
    warn_about_singleton_labels(names)
    warn_about_similar_labels(labels)
    warn_about_parts(encoded.posts)
    return TrainingSet(encoded, names, labels, skipped)
