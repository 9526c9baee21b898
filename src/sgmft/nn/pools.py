"""Experts' opinions into one: a product of them, and a mean of two sides that their similarity
guides. Opinions come as evidence e (B, K), see `sgmft.nn.experts.evidence`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from sgmft.nn.inputs import divisor

START_POWER = 0.3  # between a product of opinions, 0, and a mixture of them, 1


class ProductPool(nn.Module):
    """A product of experts, each to a power: log p = log p(y) + sum_k w_k e_k + constant.

    With powers of 1 this is Bayes' rule for experts that are independent given the label. The
    powers are positive. They start at 1 / experts, and a penalty of |log (experts w)|^2 / N keeps
    them there when posts are few (Genest & Zidek 1986, logarithmic opinion pool).
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.full((experts,), -math.log(experts)))

    def forward(self, said: Sequence[Tensor], prior: Tensor) -> Tensor:
        """Evidence of each expert (B, K) and log p(y) (K,) to log-probabilities (B, K)."""
        weight = self.log_weight.exp()
        return (prior + (weight[:, None, None] * torch.stack(list(said))).sum(0)).log_softmax(-1)

    def fit(self, said: Sequence[Tensor], prior: Tensor, labels: Tensor) -> None:
        """Find the powers under which the labels (N,) are most likely."""
        start = -math.log(len(self.log_weight))
        _minimise(
            self,
            lambda: (
                cross_entropy(self(said, prior), labels)
                + (self.log_weight - start).square().sum() / len(labels)
            ),
        )


class Gated(NamedTuple):
    """What a gated pool says of B posts."""

    logits: Tensor  # (B, K)
    gate: Tensor  # (B,) P^m, the weight of the text; the picture has the rest


class SimilarityGatedPool(nn.Module):
    """A mean of two sides, weighted by a gate that their similarities decide.

    With e_t, e_v and e_j the evidence of text, picture and both together, and p = p(y) exp e:

        S^m = log [<p_t, p_t>, <p_v, p_v>, <p_t, p_v>]          how sure each side is, and how far
                                                               the two say the same (cf. eq. 1)
        P^m = sigmoid(b + u . S^m)                              cf. eq. 3
        m   = log(P^m exp(a e_t) + (1 - P^m) exp(a e_v)) / a    cf. eq. 6 to 13
        logits = log p(y) + 2 c m + w e_j                       cf. eq. 17

    m is the mean of power a of what the sides say: the weighted product for a = 0, where one side
    can veto what the other is sure of, and the mixture for a = 1, where it cannot. S^m is
    standardised on the training posts. The pool starts with b = u = 0, a = 0.3, c = 1, w = 1/2.

    Args:
        guided: whether similarities move the gate; without, it is the same for all posts.
        joint: whether there is a third expert.
        power: a; learned, or fixed.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, guided: bool, joint: bool, power: float | Literal["learned"] = "learned"
    ) -> None:
        super().__init__()
        self.power = None if power == "learned" else power  # a
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))
        self.balance = nn.Parameter(torch.zeros(()))  # b
        self.slopes = nn.Parameter(torch.zeros(3)) if guided else None  # u
        learned = self.power is None
        self.log_power = nn.Parameter(torch.tensor(START_POWER).log()) if learned else None  # log a
        self.log_sharpness = nn.Parameter(torch.zeros(()))  # log c
        self.log_joint = nn.Parameter(torch.tensor(0.5).log()) if joint else None  # log w

    def forward(self, text: Tensor, image: Tensor, joint: Tensor | None, prior: Tensor) -> Gated:
        """Evidence of the sides (B, K) and log p(y) (K,) to logits and gate."""
        score = self.balance.expand(len(text))
        if self.slopes is not None:
            similarities = _similarities(text, image, prior)
            score = score + ((similarities - self.mean) / self.deviation) @ self.slopes
        sides = self._mean(text, image, score[:, None])
        logits = prior + 2 * self.log_sharpness.exp() * sides
        if self.log_joint is not None and joint is not None:
            logits = logits + self.log_joint.exp() * joint
        return Gated(logits, score.sigmoid())

    def fit(
        self, text: Tensor, image: Tensor, joint: Tensor | None, prior: Tensor, labels: Tensor
    ) -> None:
        """Find the parameters under which the labels (N,) are most likely.

        A penalty of 3 |u|^2 / N, and of a third of that on the others' distance from where they
        start, keeps them there when posts are few.
        """
        similarities = _similarities(text, image, prior)
        if len(labels) > 1:
            self.mean.copy_(similarities.mean(0))
            self.deviation.copy_(divisor(similarities.std(0)))
        start = {name: x.detach().clone() for name, x in self.named_parameters()}

        def loss() -> Tensor:
            far = sum(
                (x - start[name]).square().sum() * (3.0 if name == "slopes" else 1.0)
                for name, x in self.named_parameters()
            )
            logits = self(text, image, joint, prior).logits
            return cross_entropy(logits, labels) + far / len(labels)

        _minimise(self, loss)

    def _mean(self, text: Tensor, image: Tensor, score: Tensor) -> Tensor:
        """m, (B, K)."""
        if self.power == 0:
            return score.sigmoid() * text + (-score).sigmoid() * image
        power = self.power if self.log_power is None else self.log_power.exp()
        assert power is not None
        parts = logsigmoid(score) + power * text, logsigmoid(-score) + power * image
        return torch.logaddexp(*parts) / power


def _similarities(text: Tensor, image: Tensor, prior: Tensor) -> Tensor:
    """S^m, (B, 3)."""
    pairs = ((text, text), (image, image), (text, image))
    return torch.stack([(2 * prior + a + b).logsumexp(-1) for a, b in pairs], -1)


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
