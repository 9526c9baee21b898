"""Data-parallel training in the processes that torchrun or accelerate start.

Ranks are read from the launcher's environment variables, before anything heavy is imported, and
nothing happens where there is one process only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sgmft.errors import SgmftError
from sgmft.utils.runtime import end_with_parent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONGEST_WAIT = timedelta(days=7)  # for the main process, which may have many posts to encode


def world_size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def is_main() -> bool:
    """Return whether this process is the one that writes and prints."""
    return rank() == 0


def on_cpu(device: str | None) -> bool:
    """Return whether to stay on the CPU: asked for, or several processes find no GPU."""
    if device == "cpu" or world_size() == 1:
        return device == "cpu"
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return found is None or found.type == "mps"  # which cannot be shared by processes


def join(device: str | None) -> None:
    """Join the process group, once; the device is as in `sgmft.training.trainer.train`."""
    if world_size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        return
    from accelerate import PartialState

    PartialState(cpu=on_cpu(device), timeout=LONGEST_WAIT)
    # Else it would go on beside the process that is started next.
    end_with_parent("sgmft: the launcher has ended, and so does this process")


def wait() -> None:
    """Wait until all processes have come here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process go first, and the others when it is done; if it fails, none goes on."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def gather(x: Tensor, device: torch.device) -> Tensor:
    """Gather x (...) of every rank into (P, ...), in their order, on the CPU, through a device."""
    from sgmft.utils.distributed_loss import BatchShard

    return BatchShard(world_size(), rank(), world_size()).gather(x[None].to(device)).cpu()


def require_agreement(state: bytes, device: torch.device) -> None:
    """Raise SgmftError unless `state` (settings, posts, what is done) is the same on all ranks."""
    import torch

    digest = torch.frombuffer(bytearray(hashlib.sha256(state).digest()), dtype=torch.uint8)
    if not (gather(digest, device) == digest).all():
        raise SgmftError(
            "The processes of this training found different posts, settings or checkpoints: give "
            "all of them the same table, feature store and output folder."
        )


def broadcast_weights(module: torch.nn.Module) -> None:
    """Copy the main process's weights and buffers to all others."""
    if world_size() > 1:
        import torch

        for x in module.state_dict().values():
            torch.distributed.broadcast(x, 0)


def average_gradients(module: torch.nn.Module) -> None:
    """Replace each gradient by its mean over all processes; it stays None where none has one."""
    if world_size() == 1:
        return
    import torch

    weights = [x for x in module.parameters() if x.requires_grad]
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in weights]
    has = torch.tensor([x.grad is not None for x in weights]).to(weights[0])
    flat = torch.cat([has, *(x.flatten() for x in gradients)])  # one message, always of one size
    torch.distributed.all_reduce(flat)
    has, *means = flat.split([len(has), *(x.numel() for x in weights)])
    for x, known, mean in zip(weights, has.tolist(), means, strict=True):
        x.grad = (mean / world_size()).view_as(x) if known else None
