"""Choose the device, number format and batch size that this machine computes fastest in."""

from typing import TYPE_CHECKING

import psutil

from sgmft.errors import SgmftError, needs_extra

if TYPE_CHECKING:
    import torch

SHARE, MOST = 1 / 8, 128  # of the memory, for one batch; and of a batch, on a GPU


def pick_device(device: str | None = None) -> "torch.device":
    """Return the device asked for, if it is there, else a GPU if there is one, else the CPU."""
    with needs_extra("torch", f"The device {device}" if device else "A network of torch"):
        import torch
    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # "not compiled with CUDA" is the latter
            reason = str(error).strip().splitlines()[0].rstrip(".")
            fix = "use cpu, or leave it out"
            raise SgmftError(f"There is no device {device!r} here ({reason}): {fix}.") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(device: "torch.device") -> "torch.dtype":
    """Return bfloat16 where hardware multiplies it (a CPU: AMX, AVX-512 BF16), else float32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes):
            return torch.bfloat16
    return torch.float32


def pick_batch(kind: str, each: int, most: int) -> int:
    """Return how many inputs go through a network together, a power of two.

    An eighth of the device's memory, whatever is free, holds them, so that the last digits are the
    same in every run. `each` are bytes of one input, `most` holds on a CPU, for its caches.
    """
    fit = min(int(SHARE * _memory(kind)) // each, most if kind == "cpu" else MOST)
    return 1 << (max(fit, 1).bit_length() - 1)


def _memory(kind: str) -> int:
    if kind == "cuda":
        import torch

        return int(torch.cuda.get_device_properties("cuda").total_memory)
    return int(psutil.virtual_memory().total)  # Apple's GPUs share it
