"""Both towers of a dual encoder in training: what is trained, and how it is kept."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgmft.errors import TEXTS, SgmftError, needs_extra
from sgmft.features.encoders.batches import pick_device, pick_dtype
from sgmft.features.encoders.library_encoders import TorchEncoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.encoders.tuned import lora_library, save_adapter
from sgmft.training.finetune.settings import Tuning
from sgmft.utils.files import writing

EVALUATED = 16  # texts or images at a time where nothing is trained
CROP = (0.6, 1.0)  # share of an image's area that augmentation keeps
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


class Towers(nn.Module):
    """Texts and images to an encoder's features, with gradients."""

    def __init__(
        self, encoder: TorchEncoder, tuning: Tuning, dtype: torch.dtype = torch.float32
    ) -> None:  # the `trainable` encoder is changed in place; the towers compute in `dtype`
        super().__init__()
        self.encoder, self.tuning, self._low = encoder, tuning, dtype
        model = self.adapted = encoder.model.requires_grad_(False)
        layers = tuple(f"{name}." for name in _last_layers(model, tuning.last))
        if tuning.kind == "lora":
            modules = dict(model.named_modules())
            kind = "Attention" if tuning.maps == "attention" else ""
            inside = tuple(f"{n}." for n, x in modules.items() if kind in type(x).__name__)
            linear = [n for n, x in modules.items() if isinstance(x, nn.Linear)]
            maps = [n for n in linear if n.startswith(layers) and n.startswith(inside)]
            with lora_library() as peft:
                lora = peft.LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, target_modules=maps)
                self.adapted = peft.get_peft_model(model, lora)
        else:
            # Parameters are in the order in which they are used, as far as this matters.
            waiting = {name.split(".")[0] for name in layers if tuning.last is not None}
            for name, x in model.named_parameters():
                tower = name.split(".")[0]
                if name.startswith(layers):
                    waiting.discard(tower)
                x.requires_grad_(tower not in waiting and not tower.startswith("logit_"))
        if tuning.gradient_checkpointing:  # by the library's own switch, which it renamed
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self._augment = augmentation() if tuning.augment else None

    def encode_texts(self, batch: Mapping[str, Tensor], words: bool) -> tuple[Tensor, ...]:
        """Map T texts, see `batch_texts`, to features (T, D), and of their tokens (T, n, Dw)."""
        return self._in_parts(lambda part: self.encoder.text_features(part, words), batch)

    def encode_images(self, batch: Mapping[str, Tensor], regions: bool) -> tuple[Tensor, ...]:
        """Map P images, see `batch_images`, to features (P, D), and of regions (P, r, D)."""
        if self.training and self._augment is not None:
            batch = {"pictures": self._augment(batch["pictures"])}
        return self._in_parts(lambda part: self.encoder.image_features(part, regions), batch)

    def save(self, folder: Path) -> None:
        """Write the encoder as it is now; LoRA as matrices, or merged, and then not to be used."""
        lora, info = self.tuning.kind == "lora", self.encoder.info
        if lora and not self.tuning.merge:
            base = info.pinned or info.name
            save_adapter(self.adapted, folder, base, self.encoder.revision, info.weights)
            return
        with writing(folder):
            self.encoder.save(self.adapted.merge_and_unload() if lora else self.adapted, folder)

    def _in_parts(self, run: Callable[..., Any], batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run on a few rows at a time; in training their activations are computed again later."""
        count, device = next((len(x), x.device.type) for x in batch.values())
        size = self.tuning.micro_batch or (count if self.training else EVALUATED)
        columns = zip(*(x.split(size) for x in batch.values()), strict=True)
        parts = [dict(zip(batch, column, strict=True)) for column in columns]
        low = self._low == torch.bfloat16
        with torch.autocast(device, torch.bfloat16) if low else nullcontext():
            if self.training and len(parts) > 1:
                run = partial(checkpoint, run, use_reentrant=False)
            outputs = [[x for x in run(part) if x is not None] for part in parts]
        return tuple(torch.cat(x).float() for x in zip(*outputs, strict=True))


def check_tunable(encoder: Any, tuning: Tuning) -> None:
    """Raise SgmftError if this kind of encoder cannot be fine-tuned so."""
    if not getattr(encoder, "is_dual", False):
        raise SgmftError(TEXTS["not dual"], name=encoder.info.name)
    if tuning.kind == "lora":
        with lora_library():  # SgmftError where it is missing
            pass
    if tuning.augment and not encoder.cuts_squares:
        raise SgmftError(TEXTS["own proportions"], name=encoder.info.name)


def open_towers(settings: Mapping[str, Any], tuning: Tuning, device: str | None) -> Towers:
    """The towers of an encoder, by arguments of `load_encoder`; the device decides precision."""
    low = pick_dtype(pick_device(device))
    if tuning.precision != "auto":
        low = getattr(torch, tuning.precision)
    dtype = low if tuning.kind == "lora" else torch.float32  # weights that are trained
    how: dict[str, Any] = {"device": device, "dtype": str(dtype).removeprefix("torch.")}
    encoder: Any = load_encoder(**settings, **how, trainable=True)
    return Towers(encoder, tuning, low)


def _last_layers(model: nn.Module, last: int | None) -> list[str]:
    """Return the names of each tower's last layers, or of all: they are the items of its lists."""
    lists = {n: len(x) for n, x in model.named_modules() if isinstance(x, nn.ModuleList)}
    outer = [n for n in lists if not any(n.startswith(f"{other}.") for other in lists)]
    return [f"{n}.{i}" for n in outer for i in range(lists[n])[-(last or lists[n]) :]]


def augmentation() -> Callable[[Tensor], Tensor]:
    """A function that changes RGB images (P, s, s, 3), uint8, each by torch's random numbers."""
    with needs_extra("tune", "Changing pictures (--set tune.augment=true)"):
        from kornia import augmentation as kornia

    def augment(images: Tensor) -> Tensor:
        if not len(images):
            return images
        change = kornia.AugmentationSequential(
            kornia.RandomResizedCrop(tuple(images.shape[1:3]), scale=CROP, p=1.0),
            kornia.RandomHorizontalFlip(p=0.5),
            kornia.ColorJiggle(**COLOURS, p=0.8),
            data_keys=["input"],
        )
        changed: Tensor = change(images.permute(0, 3, 1, 2).float() / 255)
        return changed.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)

    return augment
