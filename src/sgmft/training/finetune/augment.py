"""Training images at random mirrored, cropped and in other colours, by kornia."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sgmft.errors import SgmftError

CROP = (0.6, 1.0)  # share of the area that is kept

COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


def augmentation(size: int) -> Callable[[Tensor], Tensor]:
    """A function that changes RGB images (P, s, s, 3), uint8, each in its own way.

    torch's random numbers decide, so that its seed does.

    Args:
        size: s, in pixels.

    Raises:
        SgmftError: kornia is not installed.
    """
    try:
        from kornia import augmentation as kornia
    except ImportError as error:
        raise SgmftError(
            "Changing pictures needs kornia, which is not installed: pip install 'sgmft[tune]', "
            "or --set tune.augment=false."
        ) from error
    change = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), scale=CROP, p=1.0),
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.ColorJiggle(**COLOURS, p=0.8),
        data_keys=["input"],
    )

    def augment(images: Tensor) -> Tensor:
        if not len(images):
            return images
        floats = images.permute(0, 3, 1, 2).float() / 255
        changed: Tensor = change(floats).clamp(0, 1).mul(255).round().byte()
        return changed.permute(0, 2, 3, 1)

    return augment
