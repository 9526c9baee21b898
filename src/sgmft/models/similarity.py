"""The similarity-aware feature polymerizer, equations 1 to 5, and the entropy of its guidance."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from sgmft.models.attention import Mask
from sgmft.models.rank_one import rank_one_entropy

Gate = Literal["softmax", "sigmoid"]


class Temperature(nn.Module):
    """The factor on both similarities: a number (1 in the paper), or learned from `initial` on."""

    def __init__(self, value: float | Literal["learned"] = 1.0, initial: float = 1.0) -> None:
        super().__init__()
        log = torch.tensor(math.log(initial if value == "learned" else value))
        self.log_value = nn.Parameter(log, requires_grad=value == "learned")

    def forward(self) -> Tensor:
        """The factor, a scalar tensor."""
        return self.log_value.exp()


def modality_gate(text: Tensor, image: Tensor, temperature: Tensor, kind: Gate) -> Tensor:
    """Equations 1 and 3: P^m = softmax(tau t * v) over the D features, or its sigmoid, (B, D)."""
    similarity = temperature * text * image  # S^m, (B, D)
    return similarity.softmax(-1) if kind == "softmax" else similarity.sigmoid()


def element_probabilities(queries: Tensor, keys: Tensor, tau: Tensor, mask: Mask = None) -> Tensor:
    """Equations 2, 4 and 5: P^e (B, n, m), the softmax of each row of S^e = tau Q K^T.

    Queries are tokens of the guided modality (B, n, D), keys those of the other (B, m, D);
    the mask (B, m) is True where a key is real, and padding gets 0.
    """
    similarity = tau * queries @ keys.transpose(1, 2)  # S^e, (B, n, m)
    if mask is not None:
        similarity = similarity.masked_fill(~mask[:, None, :], -torch.inf)
    return similarity.softmax(-1)


def gate_entropy(gate: Tensor, kind: Gate) -> Tensor:
    """Relative entropy of P^m (B, D) -> (B,): see `Guidance`."""
    if kind == "softmax":
        return (torch.special.entr(gate).sum(-1) / math.log(max(2, gate.shape[-1]))).clamp(0, 1)
    binary = torch.special.entr(gate) + torch.special.entr(1 - gate)
    return (binary.mean(-1) / math.log(2)).clamp(0, 1)


def element_entropy(
    queries: Tensor, keys: Tensor, tau: Tensor, query_mask: Mask = None, key_mask: Mask = None
) -> Tensor:
    """Relative entropy of P^e (B,), mean over real rows; 1 of a row over a single key."""
    if queries.dim() == 2:
        rows = rank_one_entropy(queries, keys, tau)  # (B, D)
    else:
        probabilities = element_probabilities(queries, keys, tau, key_mask)  # (B, n, m)
        rows = torch.special.entr(probabilities).sum(-1)  # (B, n)
    if key_mask is None:
        key_mask = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
    count = key_mask.sum(-1, keepdim=True)
    rows = torch.where(count > 1, rows / count.clamp(min=2).log(), torch.ones_like(rows))
    rows = rows.clamp(0, 1)  # rounding
    if query_mask is None:
        return rows.mean(-1)
    return (rows * query_mask).sum(-1) / query_mask.sum(-1).clamp(min=1)
