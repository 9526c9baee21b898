"""A method: a network, its settings, and what a reader of its results must know."""

import math
import pkgutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_type_hints

from sgmft.errors import TEXTS, SgmftError, check_name
from sgmft.features.encoders.base import Encoder, FloatArray
from sgmft.models.arrays import normalize
from sgmft.models.base import ClosedFormModel, NetworkConfig
from sgmft.models.presets import Preset, TrainConfig, parse_setting

if TYPE_CHECKING:
    from sgmft.models.network import Network

BUDGET = TrainConfig(  # of a compared system, unless its `Method` has presets
    epochs=15, batch_size=32, learning_rate=3e-4, beta2=0.999, weight_decay=0.05, patience=3
)
LISTED: Any = tomllib.loads(Path(__file__).with_name("methods.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Method:
    """One system, usable as `SemanticLocator(method=name)`."""

    name: str  # as users type it
    title: str  # how tables name it
    source: str  # where it comes from
    network: "type[ClosedFormModel] | type[Network]"  # built from a `config`
    config: type[NetworkConfig]  # a dataclass; fields beyond `NetworkConfig`'s are settings
    presets: Mapping[str, Preset] = field(  # named settings; the first is the default
        default_factory=lambda: {"default": Preset("default", {}, BUDGET, 0.1, refit=True)}
    )
    note: str = ""  # what a reader of its figures must know
    tokens: bool = False  # whether it needs word and region features
    encoder: str | None = None  # the one it brings along, where it can work on no other's features
    prompts: Sequence[str] = ()  # texts with {} for a label, where it needs the labels encoded
    attributes: bool = False  # whether it reads other columns, see `sgmft.features.attributes`
    tuned: str = "learning_rate"  # the setting that a comparison tries values of; "" for none

    @classmethod
    def listed(cls, name: str) -> Self:
        """Return the one of this name in methods.toml."""
        known = dict(LISTED[name])
        settings = known.pop("settings", None)  # other than the default's
        for key in ("network", "config"):
            known[key] = pkgutil.resolve_name(f"sgmft.models.{known[key]}")
        for preset, own in LISTED[name].get("presets", {}).items():
            own = own | {"train": TrainConfig(**own.get("train", {}))}
            known["presets"] = known["presets"] | {preset: Preset(preset, **own)}
        made = cls(name, **known)
        return replace(made, presets={"default": made.preset(None, settings)}) if settings else made

    def preset(self, name: Any = None, settings: Mapping[str, Any] | None = None) -> Preset:
        """The preset of that name, a preset itself, or the first, with single settings replaced.

        Settings are values, or their text as typed after `--set`, by name of a `TrainConfig` field
        or of a setting of the network. SgmftError for none such, or a value of the wrong kind.
        """
        name = name or next(iter(self.presets))
        if isinstance(name, str):
            check_name(name, self.presets, f"{self.name} has no preset")
        chosen = self.presets[name] if isinstance(name, str) else name
        own, of_training = self.setting_kinds(), get_type_hints(TrainConfig)
        kinds, known = of_training | own, sorted({*of_training, *own})
        if issubclass(self.network, ClosedFormModel):  # no epochs to set anything for
            known = [*own, "seed", *["class_weights"] * (not self.prompts)]
        model, train = dict(chosen.model), dict[str, Any]()
        for key, value in (settings or {}).items():
            check_name(key, known, f"{self.name} has no setting")
            part = model if key in own else train
            part[key] = parse_setting(key, value, kinds[key])
        preset = replace(chosen, model=model, train=replace(chosen.train, **train))
        # What a network of these settings would raise is raised before any post is encoded.
        parts = [preset.model.get(name, 1) for name in ("heads", "element_width")]
        width = 3 if self.encoder == "cnn" else 8 * math.prod(max(1, part) for part in parts)
        self.config(2, width, width, shared_space=True, **preset.model)
        return preset

    def load_config(self, values: Mapping[str, Any]) -> NetworkConfig:
        """The config of a saved network; unknown names raise SgmftError (a newer version's)."""
        if unknown := values.keys() - {f.name for f in fields(self.config)}:
            names = ", ".join(sorted(unknown))
            raise SgmftError(f"The model's settings {names} are not known here.")
        return self.config(**values)

    def title_with(self, preset: Preset) -> str:
        """Title and source for a reader of figures; the preset if there are several; a teacher."""
        chosen = f", preset {preset.name}" if len(self.presets) > 1 else ""
        chosen += f", taught by {preset.train.teacher}" * (preset.train.teacher != "none")
        return f"{self.title} ({self.source}){chosen}"

    def setting_kinds(self) -> dict[str, Any]:
        """Name and type of every setting of the network."""
        fixed = {f.name for f in fields(NetworkConfig)} | {"initial_temperature", "vocabulary_size"}
        kinds = get_type_hints(self.config)
        return {name: kind for name, kind in kinds.items() if name not in fixed}

    def pick_encoder(self, name: str | None) -> str:
        """The encoder of that name, or the one this method works on; SgmftError if they differ."""
        if self.encoder is not None and name not in (None, self.encoder):
            raise SgmftError(TEXTS["own words"], name=self.name, own=self.encoder, other=name)
        if self.encoder is None and name == "cnn":
            raise SgmftError(TEXTS["words as numbers"], name=self.name)
        return name or self.encoder or "compact"

    def encode_prompts(self, labels: Sequence[str], encoder: Encoder) -> FloatArray | None:
        """The labels as texts (K, Dt), means of their prompts' unit vectors; None without any."""
        if not self.prompts:
            return None
        names = [label.replace("_", " ") for label in labels]
        texts = [prompt.format(name) for name in names for prompt in self.prompts]
        unit: FloatArray = normalize(encoder.encode_texts(texts, False).pooled)
        return unit.reshape(len(labels), len(self.prompts), -1).mean(1)

    def reads_attributes(self, preset: Preset) -> bool:
        """Whether this preset of the method reads other columns of the posts' table."""
        return self.attributes or preset.model.get("view") == "tokens"

    def uses_tokens(self, preset: Preset) -> bool:
        """Whether this preset of the method needs word and region features."""
        return self.tokens or preset.model.get("view") == "tokens"
