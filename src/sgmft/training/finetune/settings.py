"""How an encoder is fine-tuned."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_type_hints

from sgmft.errors import SgmftError, check_name
from sgmft.models import presets
from sgmft.models.presets import NotNegative, Positive, Range, Share, TrainConfig

LEARNING_RATES = {"lora": 1e-4, "full": 1e-5}  # of the encoder; the second is the paper's


@dataclass(frozen=True)
class Tuning:
    """How training goes on through both towers of an encoder, once its head is trained.

    SgmftError for a value that makes no sense.
    """

    # "lora" adds small matrices to linear maps and trains those (Hu et al. 2021), "full" trains the
    # towers' own weights
    kind: Literal["lora", "full"] = "lora"
    rank: int = 8  # of LoRA; a map W becomes W + alpha / rank B A
    alpha: Positive = 16.0  # of LoRA; a map W becomes W + alpha / rank B A
    maps: Literal["attention", "all"] = "attention"  # which of a layer's linear maps LoRA changes
    # layers of each tower that are trained, counted from its end; None trains all, and with "full"
    # the embeddings too
    last: int | None = None
    epochs: int = 5  # at most
    patience: int = 2  # epochs without a better validation loss after which it stops
    batch_size: int = 20  # posts in one step, over all processes
    # texts or images whose activations are in memory together, so that a step's memory is theirs;
    # the result is the same, for one more forward pass. None: all.
    micro_batch: int | None = None
    encoder_learning_rate: Positive | None = None  # None is 1e-4 for "lora" and 1e-5 for "full"
    head_learning_rate: Positive = 1e-4  # of the network behind the encoder
    warmup: Share = 0.1  # share of all steps over which rates rise; then they fall as a cosine
    weight_decay: NotNegative = 0.01  # decoupled, as in AdamW
    gradient_checkpointing: bool = False  # keep layers' inputs only, and compute the rest again
    # "bfloat16" computes the towers in it, weights that are trained stay float32; "auto" is
    # bfloat16 where the hardware computes it natively
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    augment: bool = True  # show training images mirrored, cropped and in other colours at random
    # share of the training posts held out, where the head's preset holds out none: they choose the
    # epoch, and calibrate
    val_size: Annotated[float, Range("in 0..1", lambda x: 0 < x < 1)] = 0.1
    merge: bool = False  # write the encoder as a whole checkpoint, also with "lora"

    def __post_init__(self) -> None:
        presets.check_settings(self, "tune.")

    @property
    def encoder_rate(self) -> float:
        """The learning rate of the encoder."""
        return self.encoder_learning_rate or LEARNING_RATES[self.kind]

    def config(self, head: TrainConfig) -> TrainConfig:
        """How the joint training goes, given how the head was trained."""
        same = ("epochs", "patience", "batch_size", "warmup", "weight_decay")
        values: dict[str, Any] = {name: getattr(self, name) for name in same}
        values |= {"learning_rate": self.head_learning_rate, "schedule": "cosine"}
        return replace(head, **values)


def tuning_of(kind: str, settings: Mapping[str, Any]) -> Tuning | None:
    """Return a fine-tuning of this kind, by settings or their text; None for "head"."""
    check_name(kind, ("head", *LEARNING_RATES), "There is no --tune")
    if kind == "head" and settings:
        raise SgmftError(f"tune.{next(iter(settings))} is for --tune lora or --tune full.")
    if kind == "head":
        return None
    kinds = {k: v for k, v in get_type_hints(Tuning).items() if k != "kind"}
    for name in settings:
        check_name(name, kinds, f"--tune {kind} has no setting")
    values = {name: presets.parse_setting(name, x, kinds[name]) for name, x in settings.items()}
    return Tuning(kind, **values)  # type: ignore[arg-type]
