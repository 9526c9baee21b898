"""Several processes of one training, as torchrun or accelerate start them: who is who, who writes.

Everything here is known from what the launcher says in the environment, so that it can be asked
before anything heavy is imported, and nothing happens where there is one process only.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sgmft.errors import SgmftError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LONGEST_WAIT = timedelta(days=7)  # for the main process, which may have many posts to encode


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def on_cpu(device: str | None) -> bool:
    """Whether accelerate must be told to stay on the CPU: asked for, or several find no GPU."""
    if device == "cpu" or world_size() == 1:
        return device == "cpu"
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return found is None or found.type == "mps"  # which cannot be shared by processes


def join(device: str | None) -> None:
    """Meet the other processes. What was joined before stays so.

    Args:
        device: as in `sgmft.training.trainer.train`.
    """
    if world_size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        return
    from accelerate import PartialState

    PartialState(cpu=on_cpu(device), timeout=LONGEST_WAIT)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(launcher: int) -> None:
    """End this process when the launcher is gone: it would go on beside the one started next."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    print("sgmft: the launcher has ended, and so does this process", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may be waiting for another process for ever


def wait() -> None:
    """Wait until all have come here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes first, and the others when it is done.

    Should it fail, the launcher ends the others.
    """
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def gather(x: Tensor, device: torch.device) -> Tensor:
    """x (...) of every process, (P, ...) in their order, on the CPU.

    Args:
        device: on which the processes talk to one another.
    """
    from sgmft.utils.distributed_loss import BatchShard

    return BatchShard(world_size(), rank(), world_size()).gather(x[None].to(device)).cpu()


def require_agreement(told: bytes, device: torch.device) -> None:
    """See to it that all processes do the same, since one that does not lets the others wait.

    Args:
        told: what must be the same: settings, posts, what is done already.
        device: as in `gather`.

    Raises:
        SgmftError: it is not.
    """
    import torch

    digest = torch.frombuffer(bytearray(hashlib.sha256(told).digest()), dtype=torch.uint8)
    if not (gather(digest, device) == digest).all():
        raise SgmftError(
            "The processes of this training found different posts, settings or checkpoints: give "
            "all of them the same table, feature store and output folder."
        )


def broadcast_weights(module: torch.nn.Module) -> None:
    """Give all processes the main one's weights and buffers."""
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
