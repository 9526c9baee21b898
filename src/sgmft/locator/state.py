"""The state of a saved model, as config.json has it: typed, read and written without torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sgmft.data.preprocessing.text import LONGEST
from sgmft.errors import TEXTS, SgmftError, raising
from sgmft.features.attributes import Attribute
from sgmft.locator.abstention import FILE as HELD_OUT, HeldOutProbabilities
from sgmft.models.presets import Preset, TrainConfig
from sgmft.utils.checksums import FILES, check_file, read_own
from sgmft.utils.runtime import versions

FORMAT = 1  # of config.json; raised when an older sgmft could not read it
CONFIG, WEIGHTS = "config.json", "model.safetensors"
FIX = "save or copy the model again"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name on the hub


@dataclass
class TrainingData:
    """The posts that a model was trained on."""

    fingerprint: str = ""  # digest of their contents and labels; "" for a zero-shot model
    posts: int = 0  # labelled posts that could be used
    train: int = 0  # those of them that the weights were learned from
    validation: int = 0  # those held out to choose the epoch
    skipped: dict[str, int] = field(default_factory=dict)  # number of posts left out, by reason
    window: int = LONGEST  # words of a text that are read together; see `window_of`
    traits: dict[str, int] = field(default_factory=dict)  # posts with each, see `locator.drift`
    soft: int = 0  # those with soft labels: of another model, or estimated from annotators


@dataclass
class TrainingRecord:
    """The record of a training."""

    data: TrainingData = field(default_factory=TrainingData)
    metrics: dict[str, float] = field(default_factory=dict)  # of the held-out posts, if any
    # by which logits are divided: of posts as they are, then by `sgmft.features.features.PARTS`
    temperatures: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    history: list[dict[str, Any]] = field(default_factory=list)  # loss, accuracy, ... by epoch
    # with which the encoder was fine-tuned, and whether an epoch was `better`; None if it was not
    tuning: dict[str, Any] | None = None
    descriptions: dict[str, list[str]] | None = None  # of the labels of a zero-shot model
    versions: dict[str, str] = field(default_factory=dict)  # of packages; none before it is saved

    def to_config(self) -> dict[str, Any]:
        """Return the entries of config.json by their names there."""
        whole, *by_parts = self.temperatures
        values = asdict(self) | {"temperatures": None, "versions": self.versions or None}
        values["data"] = {key: value for key, value in values["data"].items() if value != ""}
        values["calibration"] = {"temperature": whole, "by_parts": by_parts}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the entries that `to_config` wrote; an earlier sgmft wrote fewer."""
        own, calibration = _known_fields(cls, config), config.get("calibration", {})
        own["data"] = TrainingData(**_known_fields(TrainingData, config.get("data", {})))
        whole = float(calibration.get("temperature", 1.0))  # once that of all posts
        own["temperatures"] = (whole, *map(float, calibration.get("by_parts", [whole] * 3)))
        return cls(**own)


@dataclass
class EncoderState:
    """The encoder that a model was trained with."""

    name: str  # as `load_encoder` takes it, its revision pinned; of a fine-tuned one, of its base
    cleaning: str  # as in `SemanticLocator`; `patch_grid` too
    patch_grid: int | None = None
    fingerprint: str = ""  # as in `EncoderInfo`
    weights: str = ""  # as in `EncoderInfo`; "" of a model saved early
    plugin: dict[str, str] | None = None  # which it comes from, see `find_plugin`
    trust_remote_code: bool | None = None  # whether it runs Python files that came with it
    files: dict[str, str] | None = None  # digests of a fine-tuned one's, saved beside the model


@dataclass
class ModelState:
    """A saved model but for its weights."""

    labels: list[str]  # the K labels, in the order of the probabilities
    encoder: EncoderState
    method: str
    preset: Preset  # settings of the training, with every replaced one
    network: dict[str, Any]  # fields of the network's configuration
    training: TrainingRecord
    files: dict[str, str] = field(default_factory=dict)  # digests of the other files, if known
    attributes: Sequence[Attribute] = ()  # other columns that it reads

    def to_config(self) -> dict[str, Any]:
        """Return the values of config.json, with the versions of the packages at work."""
        return {
            "format": FORMAT,
            "labels": self.labels,
            "encoder": {k: x for k, x in asdict(self.encoder).items() if x is not None},
            "model": self.network,
            "method": self.method,
            "preset": self.preset.name,
            "settings": dict(self.preset.model),
            "refit": self.preset.refit,
            "train": asdict(self.preset.train),
            "val_size": self.preset.val_size,
            **({"attributes": [asdict(x) for x in self.attributes]} if self.attributes else {}),
            **self.training.to_config(),
            "versions": versions(),
            FILES: self.files,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read values that `to_config` wrote; KeyError, TypeError or ValueError for others."""
        settings, method = config["settings"].items(), config["method"]
        if (method, config["preset"]) == ("sgmft", "default"):
            method = "gated-experts"  # sgmft 0.1 called it a preset of sgmft
        chosen = {key: tuple(x) if isinstance(x, list) else x for key, x in settings}
        rest = config["val_size"], config["refit"], config["encoder"]["cleaning"]
        preset = Preset(config["preset"], chosen, TrainConfig(**config["train"]), *rest)
        encoder = EncoderState(**_known_fields(EncoderState, config["encoder"]))
        given = config["model"], TrainingRecord.from_config(config), config.get(FILES, {})
        attributes = [Attribute(**x) for x in config.get("attributes", ())]
        return cls(list(config["labels"]), encoder, method, preset, *given, attributes)


def _known_fields(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in kind.__annotations__ if key in values}


def read_state(model_id: str, hub: Mapping[str, Any]) -> tuple[ModelState, Path]:
    """Read a model's config.json; return it and the weights' file, both checked by digests."""
    config_file, weights_file = (model_file(model_id, name, hub) for name in (CONFIG, WEIGHTS))
    try:
        config = read_own(config_file, FORMAT, model_id, FIX)
        check_file(weights_file, config, FIX)
        return ModelState.from_config(config), weights_file
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(model_id, error) from error


def model_file(model_id: str, name: str, hub: Mapping[str, Any]) -> Path:
    """Return a file of a saved model; SgmftError where there is none, or it may not be read."""
    folder = Path(model_id)
    with raising(f"{model_id} cannot be read ({{error}}).", OSError):
        if folder.is_dir():
            if not (folder / name).is_file():
                raise SgmftError(f"{model_id} is not a model saved by sgmft: it has no {name}.")
            return folder / name
    if not REPOSITORY.fullmatch(model_id):  # the hub's client would try for half a minute
        raise SgmftError(f"There is no model {model_id}: no such folder.")
    from huggingface_hub import hf_hub_download

    keys = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    # The hub's client raises many kinds; all mean the same to a user.
    with raising(TEXTS["no model"].format(name=model_id), Exception):
        return Path(hf_hub_download(model_id, name, **{k: hub[k] for k in keys if k in hub}))


def read_held_out(model_id: str, state: ModelState, hub: dict[str, Any]) -> HeldOutProbabilities:
    """Read held-out probabilities; models saved before there was such a file have none."""
    try:
        file = model_file(model_id, HELD_OUT, hub)
    except SgmftError:
        return HeldOutProbabilities.none(len(state.labels))
    check_file(file, {FILES: state.files}, FIX)
    return HeldOutProbabilities.load(file, len(state.labels))


def unreadable(model_id: str, error: Exception) -> SgmftError:
    """Return the error for a config.json whose reading raised `error`."""
    reason = "not readable" if isinstance(error, OSError | ValueError) else "of another kind"
    return SgmftError(TEXTS["no config"], model=model_id, name=CONFIG, reason=reason, fix=FIX)
