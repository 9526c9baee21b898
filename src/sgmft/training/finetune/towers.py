"""Both towers of a Chinese-CLIP checkpoint in training: what is trained, and how it is kept."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgmft.features.encoders import clip_checkpoint as clip
from sgmft.features.encoders.chinese_clip import ImageTower, TextTower, tokenize
from sgmft.features.encoders.device import pick_device, pick_dtype
from sgmft.training.finetune.settings import Tuning
from sgmft.utils.extras import needs_extra

LAYER = re.compile(r"(text|vision)_model\.encoder\.layers?\.(\d+)\.")

ATTENTION = (
    *("query", "key", "value", "attention.output.dense"),  # of the text tower
    *("q_proj", "k_proj", "v_proj", "out_proj"),
)

EVALUATED = 16  # texts or images at a time where nothing is trained
CROP = (0.6, 1.0)  # share of an image's area that augmentation keeps
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


class Towers(nn.Module):
    """Texts and images to projected features, with gradients."""

    def __init__(
        self,
        read: clip.ClipCheckpoint,  # its model is changed in place
        tuning: Tuning,
        name: str,  # by which an adapter names the checkpoint
        patch_grid: int = 4,
        dtype: torch.dtype = torch.float32,  # in which the towers compute
    ) -> None:
        super().__init__()
        self.tuning, self._read, self._name, self._low = tuning, read, name, dtype
        model = self.adapted = read.model.requires_grad_(False)
        chosen = _layers(model, tuning.last)
        if tuning.kind == "lora":
            linear = [n for n in chosen if isinstance(model.get_submodule(n), nn.Linear)]
            maps = [n for n in linear if tuning.maps == "all" or n.endswith(ATTENTION)]
            self.adapted = clip.add_adapter(model, maps, tuning.rank, tuning.alpha)
        else:
            parts = [model.text_model, model.vision_model] if tuning.last is None else []
            parts += [model.get_submodule(n) for n in chosen]
            parts += [model.text_projection, model.visual_projection]
            for part in [*parts, model.vision_model.post_layernorm]:
                part.requires_grad_(True)
        if tuning.gradient_checkpointing:  # by the library's own switch, which it renamed
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.texts = TextTower(model)
        self.images = ImageTower(model, read.pixels, patch_grid)
        size = model.config.vision_config.image_size
        self._augment = augmentation(size) if tuning.augment else None

    def encode_texts(self, ids: Tensor, mask: Tensor, words: bool) -> Tensor:
        """Token ids and mask (T, n) to projected tokens (T, n, D), or [CLS] alone (T, 1, D)."""
        (tokens,) = self._in_parts(lambda *part: (self.texts(*part, words),), ids, mask)
        return tokens

    def encode_images(self, images: Tensor, regions: bool) -> tuple[Tensor, ...]:
        """Images (P, s, s, 3), uint8, to projected class tokens (P, D), and regions (P, r, D)."""
        if self.training and self._augment is not None:
            images = self._augment(images)
        return self._in_parts(lambda part: self.images(part, regions), images)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text's tokens, as the encoder has them."""
        return tokenize(self._read.tokenizer, texts)

    def save(self, folder: Path) -> None:
        """Write the encoder as it is now; LoRA as its matrices only, unless they are to be merged.

        Merged towers are not to be used any more. SgmftError where the folder cannot be written.
        """
        if self.tuning.kind == "lora" and not self.tuning.merge:
            clip.save_adapter(self.adapted, folder, self._name, self._read)
            return
        model = self.adapted.merge_and_unload() if self.tuning.kind == "lora" else self.adapted
        clip.save_checkpoint(self._read._replace(model=model), folder)

    def _in_parts(self, run: Callable[..., Any], *given: Tensor) -> tuple[Tensor, ...]:
        """Run on a few rows at a time; in training their activations are computed again later."""
        size = self.tuning.micro_batch or (len(given[0]) if self.training else EVALUATED)
        parts = [*zip(*(x.split(size) for x in given), strict=True)]
        low, kind = self._low == torch.bfloat16, given[0].device.type
        with torch.autocast(kind, torch.bfloat16) if low else nullcontext():
            if self.training and len(parts) > 1:
                run = partial(checkpoint, run, use_reentrant=False)
            outputs = [run(*part) for part in parts]
        return tuple(torch.cat(x).float() for x in zip(*outputs, strict=True))


def open_towers(settings: Mapping[str, Any], tuning: Tuning, device: str | None) -> Towers:
    """The towers of an encoder as it is, given the arguments of `load_encoder`.

    The device decides the precision where `tuning` does not. SgmftError where the encoder cannot be
    read, or a package is missing.
    """
    name, low = str(settings["name"]), pick_dtype(pick_device(device))
    if tuning.precision != "auto":
        low = getattr(torch, tuning.precision)
    dtype = low if tuning.kind == "lora" else torch.float32  # weights that are trained
    read = clip.open_checkpoint(name, dtype, settings.get("base"))
    return Towers(read, tuning, name, settings.get("patch_grid", 4), low)


def _layers(model: Any, last: int | None) -> list[str]:
    """Names of the modules inside the layers that are trained, those of both towers."""
    chosen = []
    for name, _ in model.named_modules():
        if found := LAYER.match(name + "."):
            count = getattr(model.config, f"{found[1]}_config").num_hidden_layers
            if last is None or int(found[2]) >= count - last:
                chosen.append(name)
    return chosen


def augmentation(size: int) -> Callable[[Tensor], Tensor]:
    """A function that changes RGB images (P, s, s, 3), uint8, each in its own way; s is the `size`.

    torch's random numbers decide, so that its seed does. SgmftError without kornia.
    """
    with needs_extra("tune", "Changing pictures (--set tune.augment=true)"):
        from kornia import augmentation as kornia
    change = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), scale=CROP, p=1.0),
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.ColorJiggle(**COLOURS, p=0.8),
        data_keys=["input"],
    )

    def augment(images: Tensor) -> Tensor:
        if not len(images):
            return images
        changed: Tensor = change(images.permute(0, 3, 1, 2).float() / 255)
        return changed.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)

    return augment
