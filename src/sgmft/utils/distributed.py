"""Data-parallel training in the processes that torchrun or accelerate start, and its loss.

Ranks are read from the launcher's environment variables, before anything heavy is imported, and
nothing happens where there is one process only.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from sgmft.errors import TEXTS, SgmftError
from sgmft.utils.runtime import end_with_parent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
    from accelerate import PartialState

    if torch.distributed.is_initialized():
        return
    # The main process, for which the others wait, may have many posts to encode.
    PartialState(cpu=on_cpu(device), timeout=timedelta(days=7))
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


def gather(x: "Tensor", device: "torch.device") -> "Tensor":
    """Gather x (...) of every rank into (P, ...), in their order, on the CPU, through a device."""
    return BatchShard(world_size(), rank(), world_size()).gather(x[None].to(device)).cpu()


def require_agreement(state: bytes, device: "torch.device") -> None:
    """Raise SgmftError unless `state` (settings, posts, what is done) is the same on all ranks."""
    import torch

    digest = torch.frombuffer(bytearray(hashlib.sha256(state).digest()), dtype=torch.uint8)
    if not (gather(digest, device) == digest).all():
        raise SgmftError(TEXTS["different processes"])


def broadcast_weights(module: "torch.nn.Module") -> None:
    """Copy the main process's weights and buffers to all others."""
    if world_size() > 1:
        import torch

        for x in module.state_dict().values():
            torch.distributed.broadcast(x, 0)


def average_gradients(module: "torch.nn.Module") -> None:
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


class BatchShard(NamedTuple):
    """The posts of a batch that one rank has: that of its own number, and every n-th after it."""

    batch_size: int  # B, over all ranks
    rank: int = 0
    world_size: int = 1  # n

    def take(self, x: "Tensor") -> "Tensor":
        """Return the rank's rows of x (B, ...); one without any gets the first, to be dropped."""
        own = x[self.rank :: self.world_size]
        return own if len(own) else x[:1]

    def gather(self, x: "Tensor") -> "Tensor":
        """Return the rows (B, ...) of all ranks in the order of the batch, given the own ones.

        All ranks call it together. Its gradient reaches own rows, times the ranks that average it.
        """
        if self.world_size == 1:
            return x
        import torch

        if x.dtype == torch.bool:
            return self.gather(x.byte()).bool()
        whole = x.new_zeros(self.batch_size, *x.shape[1:])  # of which each rank fills in its rows
        own = whole[self.rank :: self.world_size]
        own.copy_(x[: len(own)].detach())
        torch.distributed.all_reduce(whole)
        if x.requires_grad:  # add nothing, but with a gradient
            x = x[: len(own)]
            whole[self.rank :: self.world_size] += self.world_size * (x - x.detach())
        return whole


@dataclass(frozen=True)
class BatchCrossEntropy:
    """The cross-entropy of equation 19: the mean over the whole batch, whoever has a post."""

    weight: "Tensor | None" = None  # of each post of the batch (B,), for a weighted mean
    label_smoothing: float = 0.0  # share of the target spread over all classes
    shard: BatchShard | None = None  # the posts that this rank has; None where it has all

    def __call__(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Map logits (B, K) and labels (B,) or (B, K) of the own posts to a scalar of all ranks."""
        from torch.nn.functional import cross_entropy

        whole = self.gather(logits), self.gather(labels)
        losses = cross_entropy(*whole, reduction="none", label_smoothing=self.label_smoothing)
        if self.weight is None:
            return losses.mean()
        return (losses * self.weight).sum() / self.weight.sum().clamp(min=1e-12)

    def gather(self, x: "Tensor") -> "Tensor":
        """Gather x from all ranks, for an objective that compares posts; see `BatchShard`."""
        return x if self.shard is None else self.shard.gather(x)
