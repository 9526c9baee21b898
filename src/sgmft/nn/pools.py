"""Experts' opinions into one: a weighted product of them, and one guided by their similarity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class ProductPool(nn.Module):
    """A product of experts, each to a power: log p = sum_k w_k e_k + constant (Hinton 2002).

    The powers w are positive. They start at 1 / experts, and a penalty of |log (experts w)|^2 / N
    keeps them there when posts are few.
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.full((experts,), -math.log(experts)))

    def forward(self, said: Sequence[Tensor]) -> Tensor:
        """Evidence of each expert (B, K) to log-probabilities (B, K)."""
        weight = self.log_weight.exp()
        return (weight[:, None, None] * torch.stack(list(said))).sum(0).log_softmax(-1)

    def fit(self, said: Sequence[Tensor], labels: Tensor) -> None:
        """Find the powers under which the labels (N,) are most likely."""
        start = -math.log(len(self.log_weight))
        _minimise(
            self,
            lambda: (
                cross_entropy(self(said), labels)
                + (self.log_weight - start).square().sum() / len(labels)
            ),
        )


class Gated(NamedTuple):
    """What a gated pool says of B posts."""

    logits: Tensor  # (B, K)
    gate: Tensor  # (B,) P^m, the weight of the text; the picture has the rest


class SimilarityGatedPool(nn.Module):
    """Interpolates between two sides by a gate that their similarities decide.

    With e_t, e_v and e_j (B, K) the evidence of text, picture and both together, and p = exp e:

        S^m = log [<p_t, p_t>, <p_v, p_v>, <p_t, p_v>]          how sure each side is, and how far
                                                               the two say the same (cf. eq. 1)
        P^m = sigmoid(b + u . S^m)                              cf. eq. 3
        logits = 2 c (P^m e_t + (1 - P^m) e_v) + w e_j          cf. eq. 6 to 13, and 17

    S^m is standardised on the training posts. It starts as the product of the two sides and the
    root of the third (b = u = 0, c = 1, w = 1/2).

    Args:
        guided: whether similarities move the gate; without, it is the same for all posts.
        joint: whether there is a third expert.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, guided: bool, joint: bool) -> None:
        super().__init__()
        self.guided, self.joint = guided, joint
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))
        self.balance = nn.Parameter(torch.zeros(()))  # b
        self.slopes = nn.Parameter(torch.zeros(3)) if guided else None  # u
        self.log_sharpness = nn.Parameter(torch.zeros(()))  # log c
        self.log_joint = nn.Parameter(torch.tensor(0.5).log()) if joint else None  # log w

    def forward(self, text: Tensor, image: Tensor, joint: Tensor | None) -> Gated:
        """Evidence of the sides (B, K) to logits and gate."""
        gate = self.balance.expand(len(text))
        if self.slopes is not None:
            similarities = (self._similarities(text, image) - self.mean) / self.deviation
            gate = gate + similarities @ self.slopes
        gate = gate.sigmoid()
        sides = gate[:, None] * text + (1 - gate[:, None]) * image
        logits = 2 * self.log_sharpness.exp() * sides
        if self.log_joint is not None and joint is not None:
            logits = logits + self.log_joint.exp() * joint
        return Gated(logits, gate)

    def fit(self, text: Tensor, image: Tensor, joint: Tensor | None, labels: Tensor) -> None:
        """Find the parameters under which the labels (N,) are most likely.

        A penalty of 3 |u|^2 / N, and of a third of that on the others' distance from where they
        start, keeps them there when posts are few.
        """
        similarities = self._similarities(text, image)
        if len(labels) > 1:
            self.mean.copy_(similarities.mean(0))
            self.deviation.copy_(similarities.std(0).clamp(min=1e-4))
        start = {name: x.detach().clone() for name, x in self.named_parameters()}

        def loss() -> Tensor:
            far = sum(
                (x - start[name]).square().sum() * (3.0 if name == "slopes" else 1.0)
                for name, x in self.named_parameters()
            )
            return cross_entropy(self(text, image, joint).logits, labels) + far / len(labels)

        _minimise(self, loss)

    @staticmethod
    def _similarities(text: Tensor, image: Tensor) -> Tensor:
        """S^m, (B, 3)."""
        pairs = ((text, text), (image, image), (text, image))
        return torch.stack([(a + b).logsumexp(-1) for a, b in pairs], -1)


def _minimise(module: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Set a module's few parameters to where a smooth loss is least (L-BFGS)."""
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(step)
