"""One process's share of the posts of a step, and what all processes say of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Share(NamedTuple):
    """Which of a step's posts a process has: its own number's, and every `processes`-th after it.

    Attributes:
        posts: B, of all processes.
        process: 0 .. processes - 1.
        processes: how many there are.
    """

    posts: int
    process: int = 0
    processes: int = 1

    def of(self, x: Tensor) -> Tensor:
        """This process's rows of x (B, ...).

        A process without a post gets the first one, so that every network has something to
        compute; `whole` leaves it out.
        """
        own = x[self.process :: self.processes]
        return own if len(own) else x[:1]

    def whole(self, x: Tensor) -> Tensor:
        """Rows (B, ...) of all processes in the order of the step, from the own ones.

        All processes must ask for it together, and compute the same from it. Its gradient reaches
        each process's own rows alone, times the number of processes, since gradients are averaged
        over them.
        """
        if self.processes == 1:
            return x
        if x.dtype == torch.bool:
            return self.whole(x.byte()).bool()
        whole: Tensor = _Whole.apply(x, self)  # type: ignore[no-untyped-call]
        return whole


class _Whole(torch.autograd.Function):
    """Each process fills in its rows, zeros elsewhere; the sum over processes is the whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Share) -> Tensor:
        ctx.share, ctx.shape = share, x.shape
        rows = range(share.process, share.posts, share.processes)
        whole = x.new_zeros(share.posts, *x.shape[1:])
        whole[rows.start :: share.processes] = x[: len(rows)]
        torch.distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        share: Share = ctx.share
        own = gradients[0][share.process :: share.processes] * share.processes
        gradient = own.new_zeros(ctx.shape)
        gradient[: len(own)] = own
        return gradient, None


@dataclass(frozen=True)
class Criterion:
    """The cross-entropy of equation 19: the mean over all posts of a step, whoever has them.

    Attributes:
        weight: of each class (K,); the mean is then a weighted one.
        label_smoothing: share of the target spread over all classes.
        share: the posts that this process has; None where it has all.
    """

    weight: Tensor | None = None
    label_smoothing: float = 0.0
    share: Share | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """From logits (B, K) and labels (B,) of the own posts to a scalar, the same everywhere."""
        return cross_entropy(
            self.whole(logits),
            self.whole(labels),
            weight=self.weight,
            label_smoothing=self.label_smoothing,
        )

    def whole(self, x: Tensor) -> Tensor:
        """What an objective must ask for that compares posts with one another; `Share.whole`."""
        return x if self.share is None else self.share.whole(x)
