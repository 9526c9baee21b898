"""The shard of a batch that each process has, and a loss that is the mean over the whole batch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class BatchShard(NamedTuple):
    """The posts of a batch that one rank has: that of its own number, and every n-th after it."""

    batch_size: int  # B, over all ranks
    rank: int = 0
    world_size: int = 1  # n

    def take(self, x: Tensor) -> Tensor:
        """Return the rank's rows of x (B, ...); one without any gets the first, to be dropped."""
        own = x[self.rank :: self.world_size]
        return own if len(own) else x[:1]

    def gather(self, x: Tensor) -> Tensor:
        """Return the rows (B, ...) of all ranks in the order of the batch, given the own ones.

        All ranks call it together. Its gradient reaches own rows, times the number of ranks, since
        gradients are averaged over them.
        """
        if self.world_size == 1:
            return x
        if x.dtype == torch.bool:
            return self.gather(x.byte()).bool()
        whole: Tensor = _Gather.apply(x, self)  # type: ignore[no-untyped-call]
        return whole


class _Gather(torch.autograd.Function):
    """Each rank fills in its rows, zeros elsewhere; the sum over ranks is the whole batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: BatchShard) -> Tensor:
        ctx.shard, ctx.shape = shard, x.shape
        rows = range(shard.rank, shard.batch_size, shard.world_size)
        whole = x.new_zeros(shard.batch_size, *x.shape[1:])
        whole[rows.start :: shard.world_size] = x[: len(rows)]
        torch.distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        shard: BatchShard = ctx.shard
        own = gradients[0][shard.rank :: shard.world_size] * shard.world_size
        gradient = own.new_zeros(ctx.shape)
        gradient[: len(own)] = own
        return gradient, None


@dataclass(frozen=True)
class BatchCrossEntropy:
    """The cross-entropy of equation 19: the mean over the whole batch, whoever has a post."""

    weight: Tensor | None = None  # of each class (K,); the mean is then a weighted one
    label_smoothing: float = 0.0  # share of the target spread over all classes
    shard: BatchShard | None = None  # the posts that this rank has; None where it has all

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (B, K) and labels (B,) of the own posts to a scalar, equal on all ranks."""
        whole = self.gather(logits), self.gather(labels)
        return cross_entropy(*whole, weight=self.weight, label_smoothing=self.label_smoothing)

    def gather(self, x: Tensor) -> Tensor:
        """Gather x from all ranks, for an objective that compares posts; see `BatchShard`."""
        return x if self.shard is None else self.shard.gather(x)
