"""The similarity-aware feed-forward block: equations 14 to 16."""

from __future__ import annotations

from torch import Tensor, nn

from sgmft.nn.rank_one import rank_one_attention
from sgmft.nn.similarity import element_probabilities


def interaction(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    temperature: Tensor,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Equation 14: X_inter = P^e X of the other side.

    Args:
        queries: features of the guided side, which ask: (B, D) or tokens (B, n, D).
        keys: features of the other side, which are compared: (B, D) or (B, m, D).
        values: X^C of the other side, in the shape of `keys`.
        key_mask: True where a token of the other side is real, tokens view only.

    Returns:
        X_inter, in the shape of `queries`.
    """
    if queries.dim() == 2:
        return rank_one_attention(queries, keys, values, temperature)
    return element_probabilities(queries, keys, temperature, key_mask) @ values


class FeedForward(nn.Module):
    """LayerNorm(ReLU(x W1 + X_inter W3 + b1) W2 + b2 + x); without W3 it is the conventional block.

    Args:
        width: D.
        hidden: d_h, 4 D by default in the model.
        guided: whether X_inter comes in.
    """

    def __init__(self, width: int, hidden: int, guided: bool, dropout: float = 0.1) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)  # carries b1
        self.w3 = nn.Linear(width, hidden, bias=False) if guided else None
        self.w2 = nn.Linear(hidden, width)  # carries b2
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, inter: Tensor | None = None) -> Tensor:
        """Equations 15 and 16, on x = X^C; `inter` is required exactly when the block is guided."""
        hidden = self.w1(x)
        if self.w3 is not None:
            if inter is None:
                raise ValueError("a guided feed-forward block needs X_inter")
            hidden = hidden + self.w3(inter)
        elif inter is not None:
            raise ValueError("this feed-forward block is not guided and takes no X_inter")
        output: Tensor = self.norm(self.dropout(self.w2(hidden.relu())) + x)
        return output
