"""Presets, named settings of a method and of its training; and `--set name=value` on top."""

import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from sgmft.errors import SgmftError


class Range(NamedTuple):
    """The numbers that a setting may be: in words, and as a test."""

    words: str
    includes: Callable[[Any], bool]


COUNT = Range("at least 1", lambda x: x >= 1)  # of whole numbers without a range of their own
POSITIVE = Range("positive", lambda x: 0 < x < math.inf)
Positive = Annotated[float, POSITIVE]
NOT_NEGATIVE = Range("0 or more", lambda x: 0 <= x < math.inf)
NotNegative = Annotated[float, NOT_NEGATIVE]
Natural = Annotated[int, Range("0 or more", lambda x: x >= 0)]
Share = Annotated[float, Range("in 0..1", lambda x: 0 <= x < 1)]
Dropout = Annotated[float, Range("at least 0 and below 1", lambda x: 0 <= x < 1)]


def check_settings(settings: Any, prefix: str = "") -> None:
    """Raise SgmftError for a field of a dataclass that is out of range; lists become tuples."""
    for name, kind in typing.get_type_hints(type(settings), include_extras=True).items():
        value, parts = getattr(settings, name), list(_parts(kind))
        if typing.get_origin(kind) is Literal and value not in parts:
            choices = " or ".join(parts[1:])
            raise SgmftError(f"{prefix}{name}={value!r} is not known: use {choices}.")
        numbers = [value]
        if typing.get_origin(kind) is tuple:
            numbers = list(value)
            object.__setattr__(settings, name, tuple(value))
        limit = next((x for x in parts if isinstance(x, Range)), COUNT if int in parts else None)
        numbers = [x for x in numbers if x is not None and x not in parts]
        if limit and any(isinstance(x, str) or not limit.includes(x) for x in numbers):
            raise SgmftError(f"{prefix}{name} must be {limit.words}, not {value}.")


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for part in typing.get_args(kind):
        yield from _parts(part)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Defaults are the paper's (section 4.3), or chosen by us (*)."""

    epochs: int = 30  # passes over the training posts, at most
    batch_size: int = 20  # posts in one step, over all processes
    learning_rate: Positive = 1e-5  # Adam's
    beta1: Share = 0.9  # Adam's
    beta2: Share = 0.99  # Adam's
    weight_decay: NotNegative = 0.0  # decoupled, as in AdamW; 0 makes it Adam (*)
    schedule: Literal["none", "cosine"] = "none"  # of the learning rate over all steps (*)
    warmup: Share = 0.0  # share of all steps over which the learning rate rises to its value (*)
    # epochs without a better validation loss after which training stops, and the best epoch's
    # weights are kept; 0 trains all epochs and keeps the last (*)
    patience: Natural = 0
    class_weights: bool = False  # weigh each class by its inverse frequency (*)
    label_smoothing: Share = 0.0  # share of the target spread over all classes (*)
    # share of the training posts with text and image that lose one, drawn anew each epoch (*)
    modality_dropout: Share = 0.0
    # the method, fitted by folds without the post, with whose answer a label is averaged (*)
    teacher: Literal["none", "gated-experts", "linear-probe", "late-average"] = "none"
    # decides initial weights, order and dropout
    seed: Annotated[int, Range("a whole number", lambda x: True)] = 0

    def __post_init__(self) -> None:
        check_settings(self)


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
        with suppress(ValueError, KeyError, TypeError):  # from None, which no text stands for
            return _parse(value, choice)
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
