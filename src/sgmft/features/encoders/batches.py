"""Batches of texts and images through a network: how many, and on which device, fastest here."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sgmft.errors import TEXTS, SgmftError, needs_extra
from sgmft.features.encoders.base import IMAGE_OUTPUTS, Encoded, FloatArray, Images
from sgmft.utils.onnx_session import Session

if TYPE_CHECKING:
    import torch

SHARE, MOST = 1 / 8, 128  # of the memory, for one batch; and of a batch, on a GPU
TOKENS = 8192  # of texts that go through a network together, at the most


def pick_device(device: str | None = None) -> "torch.device":
    """Return the device asked for, if it is there, else a GPU if there is one, else the CPU."""
    with needs_extra("torch", f"The device {device}" if device else "A network of torch"):
        import torch
    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # "not compiled with CUDA" is the latter
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise SgmftError(TEXTS["no device"], name=device, reason=reason) from error
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
    import psutil  # which exported models do without

    return int(psutil.virtual_memory().total)  # Apple's GPUs share it


def encode_image_batches(
    images: Images, batch_size: int, width: int, tokens: bool, graph: Callable[[], Session]
) -> Encoded:
    """Encode N squares (N, s, s, 3) by a graph, opened at the first, to (D,) and regions (r, D)."""
    pooled = [np.zeros((0, width), np.float32)]
    regions: list[FloatArray] = []
    for start in range(0, len(images), batch_size):
        inputs = {"pictures": images[start : start + batch_size]}
        outputs = graph().run(IMAGE_OUTPUTS if tokens else IMAGE_OUTPUTS[:1], inputs)
        pooled.append(outputs[0])
        if tokens:
            regions.extend(outputs[1])
    return Encoded(np.concatenate(pooled), regions if tokens else None)


def batches_by_length(lengths: Any, batch_size: int) -> Iterator[list[int]]:
    """Yield positions of texts of similar length, fewer of long ones; short texts first."""
    order = np.argsort(lengths, kind="stable").tolist()
    while order:
        fits = (i for i in range(batch_size, 1, -1) if i * lengths[order[:i][-1]] <= TOKENS)
        count = next(fits, 1)
        yield order[:count]
        order = order[count:]


def alike_batches(images: Sequence[Any], batch_size: int) -> Iterator[list[int]]:
    """Yield positions of prepared images whose arrays have the same shapes."""
    groups: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(repr([x.shape for x in image.values()]), []).append(i)
    for rows in groups.values():
        yield from (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))


def encode_joint(
    encoder: Any,  # an `Encoder`, perhaps with `encode_joint`
    posts: Sequence[tuple[str, Sequence[Any]]],
) -> list[FloatArray | None]:
    """Encode cleaned texts and their images together; None where one is missing, or by others."""
    found: dict[int, FloatArray] = {}
    rows = [i for i, (text, images) in enumerate(posts) if text and images]
    if encoder.info.joint_width and rows:
        texts, images = zip(*(posts[i] for i in rows), strict=True)
        found = dict(zip(rows, encoder.encode_joint(texts, images), strict=True))
    return [found.get(i) for i in range(len(posts))]
