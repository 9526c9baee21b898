"""From labelled posts to a trained model: validation posts choose, then all posts train."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from sgmft.data import source
from sgmft.data.posts import Post, raise_first_error, warn_about_singleton_labels
from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.encoders.base import EncoderInfo, FloatArray
from sgmft.features.features import PARTS, Features, LabelledData, LabelledFeatures
from sgmft.models.arrays import Floats, Integers, one_hot, softmax
from sgmft.models.base import ClosedFormModel, Model, SolveStep, predict_logits
from sgmft.models.method import Method
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import get_method
from sgmft.training.history import UNKNOWN, Epoch, classification_figures, selected_epoch
from sgmft.utils.runtime import keep_freed_memory

VALIDATION_LOSS = "validation loss"  # its name among the metrics


@dataclass(frozen=True)
class TrainingTask:
    """All the training posts, and how to learn from them."""

    data: LabelledFeatures
    classes: int
    info: EncoderInfo  # of the encoder that made the features
    method: Method
    preset: Preset
    prompts: FloatArray | None = None  # (K, Dt) the labels as texts, for methods that need them

    def model(self, features: Features) -> Model:
        """A new model; a network's weights are decided by the seed, its scales by these posts."""
        known = ("text_width", "image_width", "shared_space", "word_width", "joint_width")
        values = {name: getattr(self.info, name) for name in known}
        values |= {"classes": self.classes, **self.preset.model}
        if features.attributes is not None:
            values["attributes_width"] = features.attributes.shape[1]
        if issubclass(self.method.network, ClosedFormModel):
            model = self.method.network(self.method.config(**values))
            if self.prompts is not None:
                model.load_state_dict(model.state_dict() | {"prompts": self.prompts})
            return model
        import torch

        torch.manual_seed(self.preset.train.seed)
        values |= self.method.network.measure(features.words)
        if "initial_temperature" in {f.name for f in fields(self.method.config)}:
            values["initial_temperature"] = initial_temperature(self.info, self.preset)
        network = self.method.network(self.method.config(**values))
        network.prepare(features.texts, features.images, features.words, features.regions)
        if self.prompts is not None:
            network.get_buffer("prompts").copy_(torch.from_numpy(self.prompts))
        return network


class RunOptions(TypedDict, total=False):
    """How a training runs; see `train`. `on_step` is called while a closed-form model is fitted."""

    checkpoint: Path | None
    device: str | None
    on_epoch: Callable[[Epoch], None] | None
    on_step: Callable[[SolveStep], None] | None


class HeldOutLogits(NamedTuple):
    """Logits of N labelled posts by a model that has not learned from them."""

    by_parts: Floats  # (4, N, K) as if a post had no others than each of `PARTS`
    parts: NDArray[np.int8]  # (N,) what each has, a place in `PARTS`
    labels: Integers  # (N,), the most probable of soft ones

    @property
    def logits(self) -> Floats:
        """Those of the posts as they are, (N, K)."""
        return self.by_parts[self.parts, np.arange(len(self.labels))]

    def having(self, parts: int) -> tuple[Floats, Integers]:
        """Return logits and labels of the posts that have these parts, as if they were all."""
        has = (self.parts & parts) == parts
        return self.by_parts[parts, has], self.labels[has]


class FitResult(NamedTuple):
    """A trained model, and the log of its training."""

    model: Model
    history: list[Epoch]
    held_out: HeldOutLogits  # of posts that it had not learned from; there may be none
    selected: Epoch  # whose weights it has, or had before it was trained anew on all posts


def fit_network(task: TrainingTask, held: Sequence[int], **run: Unpack[RunOptions]) -> FitResult:
    """Train on all but the held-out posts (positions), and with `refit` then on all."""
    result = train_with_validation(task, held, **in_subfolder(run, "choose"))
    if not task.preset.refit or not held:
        return result
    model = train_on_all(task, result.selected.epoch, **in_subfolder(run, "refit"))
    return result._replace(model=model)


def train_with_validation(
    task: TrainingTask, held_out: Sequence[int], **run: Unpack[RunOptions]
) -> FitResult:
    """Train on all posts but the held-out ones (positions), which then select the epoch."""
    train_set, validation = task.data, None
    if held_out:
        mask = np.isin(np.arange(len(task.data.labels)), held_out)
        train_set, validation = task.data.take(~mask), task.data.take(mask)
    model, history, found = _train(task, train_set, validation, task.preset.train, run)
    return FitResult(model, history, found, selected_epoch(history, task.preset.train.patience))


def predict_by_parts(model: Model, posts: LabelledData) -> HeldOutLogits:
    """Predict labelled posts, as if each had no others than each of the parts that it has."""
    features, count = posts.features, len(posts.labels)
    by_parts = np.zeros((4, count, model.config.classes), np.float32)
    for parts in range(len(PARTS)):
        rows = np.flatnonzero((features.parts & parts) == parts if parts else features.parts == 0)
        by_parts[parts, rows] = predict_logits(model, features.take(rows).with_parts(parts)).logits
    return HeldOutLogits(by_parts, features.parts, posts.labels)


def train_on_all(task: TrainingTask, epochs: int, **run: Unpack[RunOptions]) -> Model:
    """Train anew on all posts, for so many epochs. SgmftError if the training diverges."""
    settings = replace(task.preset.train, epochs=epochs, patience=0)
    return _train(task, task.data, None, settings, run)[0]


def _train(
    task: TrainingTask,
    data: LabelledFeatures,
    validation: LabelledFeatures | None,
    config: TrainConfig,
    run: RunOptions,
) -> tuple[Model, list[Epoch], HeldOutLogits]:
    """Train a network, or fit a closed-form model, whose log has one line.

    Without validation posts, its predictions for training posts by folds without them stand in.
    """
    keep_freed_memory()
    model: Any = task.model(data.features)
    held_out = data.take(np.zeros(0, np.int64)) if validation is None else validation
    if not isinstance(model, ClosedFormModel):
        from sgmft.training.trainer import train

        if config.teacher != "none":
            data = taught(task, data, run)
        history = train(model, data, validation, config, **run)
        _check_finite(model, task)
        return model, history, predict_by_parts(model, held_out)
    before = model.on_step
    model.on_step = run.get("on_step") or before
    batch, rng = data.features.batch(None, model.uses_ngrams), RandomState(config.seed % 2**32)
    data = data.balanced() if config.class_weights else data
    by_folds = model.fit(batch, data.targets, rng, data.weights)
    model.on_step = before
    _check_finite(model, task)
    if validation is None and by_folds is not None:
        found = HeldOutLogits(by_folds, data.features.parts, data.labels)
    else:
        found = predict_by_parts(model, held_out)
    figures = classification_figures(predict_logits(model, data.features).logits, data.labels)
    known = classification_figures(found.logits, found.labels) if len(found.labels) else UNKNOWN
    line = Epoch(1, 1, *figures, *known, math.nan, math.nan)
    if on_epoch := run.get("on_epoch"):
        on_epoch(line)
    return model, [line], found


def taught(task: TrainingTask, data: LabelledFeatures, run: RunOptions) -> LabelledFeatures:
    """Posts with the mean of their label and what the teacher, by other folds, says of them.

    Knowledge distillation (Hinton et al. 2015) at temperature 1, half and half.
    """
    config, method = task.preset.train, get_method(task.preset.train.teacher)
    shared = {"seed": config.seed, "class_weights": config.class_weights}
    task = replace(task, method=method, preset=method.preset(None, shared), prompts=None)
    seen = data._replace(features=replace(data.features, words=None, regions=None))
    found = _train(task, seen, None, task.preset.train, {"on_step": run.get("on_step")})[2]
    targets = (one_hot(data.targets, task.classes) + softmax(found.logits)) / 2
    return data._replace(soft=targets.astype(np.float32))


def in_subfolder(run: RunOptions, name: str) -> RunOptions:
    """The options with the checkpoint in a folder of that name in its folder."""
    folder = run.get("checkpoint")
    return {**run, "checkpoint": folder and folder / name}


def _check_finite(model: Model, task: TrainingTask) -> None:
    some = task.data.features.take(np.arange(min(len(task.data.labels), 32)))
    if not np.isfinite(predict_logits(model, some).logits).all():
        rate = task.preset.train.learning_rate
        raise SgmftError(TEXTS["diverged"], method=task.method.title, rate=rate)


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
    from sgmft.models.sgmft import shared_width

    width = shared_width(info.text_width, info.image_width, info.shared_space)
    return float((preset.model.get("width") or width) ** -0.5)


def validation_metrics(selected: Epoch) -> dict[str, float]:
    """Validation figures of an epoch; none without validation posts."""
    if math.isnan(selected.val_loss):
        return {}
    return {"validation accuracy": selected.val_accuracy, VALIDATION_LOSS: selected.val_loss}


@dataclass(frozen=True)
class TrainingSet:
    """N posts with features and labels."""

    encoded: EncodedPosts
    names: list[str]  # the label of each
    labels: list[str]  # the K different ones
    classes: Integers  # (N,) the place of each among these
    weights: NDArray[np.float64] | None  # (N,) of each, where they differ
    soft: FloatArray | None  # (N, K) probabilities of the labels, where any post has soft ones
    skipped: dict[str, int]  # number of other posts, by the reason why they were left out
    examples: dict[str, str]  # the first of each reason, and its place


def training_set(
    posts: Sequence[Post],
    encode: Callable[[Sequence[Post]], EncodedPosts],
    strict: bool = False,
    order: Sequence[str] = (),  # of labels, where it is not that of their names
) -> TrainingSet:
    """Encode labelled posts, and warn of rare labels; SgmftError for fewer than two labels."""
    unlabelled = [post for post in posts if post.error is None and post.label is None]
    encoded = encode([post for post in posts if post.label is not None or post.error is not None])
    if strict:
        raise_first_error([*encoded.refused, *encoded.posts])
    left_out = source.JobSummary.of(encoded.refused)
    skipped, examples = left_out.errors, left_out.examples
    if unlabelled:
        skipped["no label"], examples["no label"] = len(unlabelled), unlabelled[0].place
    names = [str(post.label) for post in encoded.posts]
    probs = [post.soft or {str(post.label): 1.0} for post in encoded.posts]
    present = {label for each in probs for label, p in each.items() if p > 0}
    labels = [x for x in order if x in present] if present <= {*order} else sorted(present)
    if len(labels) < 2:
        reasons = source.describe_errors(skipped)
        others = f", and were left out: {reasons}" if reasons else ""
        raise SgmftError(TEXTS["one label"], posts=len(names), count=len(labels), others=others)
    warn_about_singleton_labels(names)
    source.warn_about_odd_labels(labels)
    source.warn_about_parts(encoded.posts)
    place = {label: number for number, label in enumerate(labels)}
    classes = np.array([place[name] for name in names])
    if not (weights := np.array([post.weight for post in encoded.posts])).any():
        raise SgmftError("All posts that can be used have weight 0: give some of them more.")
    given = weights if (weights != 1).any() else None
    soft = None
    if any(post.soft for post in encoded.posts):
        soft = np.array([[each.get(label, 0) for label in labels] for each in probs], np.float32)
    return TrainingSet(encoded, names, labels, classes, given, soft, skipped, examples)
