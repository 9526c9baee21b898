"""Presets, named settings of a method and of its training; and `--set name=value` on top."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sgmft.errors import SgmftError


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Defaults are the paper's (section 4.3), or chosen by us (*).

    Attributes:
        epochs: passes over the training posts, at most.
        batch_size: posts in one step, over all processes.
        learning_rate, beta1, beta2: Adam's.
        weight_decay: decoupled, as in AdamW; 0 makes it Adam (*).
        schedule: of the learning rate over all steps (*).
        warmup: share of all steps over which the learning rate rises to its value (*).
        patience: epochs without a better validation loss after which training stops, and the best
            epoch's weights are kept; 0 trains all epochs and keeps the last (*).
        class_weights: weigh each class by its inverse frequency (*).
        label_smoothing: share of the target spread over all classes (*).
        modality_dropout: share of the training posts with text and image that lose one of them,
            drawn anew in each epoch (*).
        seed: decides initial weights, order and dropout.
    """

    epochs: int = 30
    batch_size: int = 20
    learning_rate: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    schedule: Literal["none", "cosine"] = "none"
    warmup: float = 0.0
    patience: int = 0
    class_weights: bool = False
    label_smoothing: float = 0.0
    modality_dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SgmftError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise SgmftError(f"learning_rate must be positive, not {self.learning_rate}.")
        if self.schedule not in ("none", "cosine"):
            raise SgmftError(f"schedule={self.schedule!r} is not known: use none or cosine.")
        for name in ("label_smoothing", "modality_dropout", "warmup", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SgmftError(f"{name} must be in 0..1, not {getattr(self, name)}.")
        for name in ("patience", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SgmftError(f"{name} must be 0 or more, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Preset:
    """A named choice of settings."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)  # differing from the config's
    train: TrainConfig = field(default_factory=TrainConfig)
    val_size: float = 0.0  # share of the training posts held out to choose the epoch
    refit: bool = False  # after the held-out posts have chosen the epoch, train anew on all posts
    cleaning: str = "light"  # of the texts, see `sgmft.data.preprocessing.text.CLEANINGS`


def parse_setting(name: str, value: Any, kind: Any) -> Any:
    """A setting's value from its text: the kinds that configs have, and no others."""
    if not isinstance(value, str):
        return value
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    choices = typing.get_args(kind) if union else (kind,)
    for choice in choices:
        try:
            return _parse(value, choice)
        except (ValueError, KeyError, TypeError):  # TypeError from None, which no text stands for
            continue
    expected = " or ".join(_describe_kind(choice) for choice in choices)
    raise SgmftError(f"--set {name}={value}: expected {expected}.")


def _parse(text: str, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        return {choice: choice for choice in typing.get_args(kind)}[text]
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if typing.get_origin(kind) is tuple:
        return tuple(int(part) for part in text.split(",") if part)
    return kind(text)


def _describe_kind(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "whole numbers separated by commas"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, str(kind))
