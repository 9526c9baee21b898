"""Post-norm transformer layers over tokens: torch's own, as the compared systems set them."""

from __future__ import annotations

from torch import nn

from sgmft.errors import SgmftError
from sgmft.nn.heads import Heads


def self_attention_layer(
    width: int, heads: int, hidden: int, dropout: float = 0.1
) -> nn.TransformerEncoderLayer:
    """x = LN(x + SA(x)); x = LN(x + FFN(x)), FFN = GELU(x W1 + b1) W2 + b2.

    It is called with x (B, n, D) and `src_key_padding_mask`, which is True where there is no token.
    """
    return nn.TransformerEncoderLayer(width, heads, hidden, dropout, "gelu", batch_first=True)


def asymmetric_layer(
    width: int, heads: int, hidden: int, dropout: float = 0.1
) -> nn.TransformerDecoderLayer:
    """x = LN(x + SA(x)); x = LN(x + CA(x, V)); x = LN(x + FFN(x)): mPLUG's asymmetric co-attention.

    It is called with x (B, n, D), V (B, m, D), and `tgt_key_padding_mask` and
    `memory_key_padding_mask`, which are True where there is no token. V is read only.
    """
    return nn.TransformerDecoderLayer(width, heads, hidden, dropout, "gelu", batch_first=True)


def require_tokens(heads: Heads, name: str) -> None:
    """Refuse the elements view.

    Raises:
        SgmftError: `heads` are those of the elements view.
    """
    if heads.element_width is not None:
        raise SgmftError(
            f"The fusion module {name} attends over words and regions, which the elements view "
            "does not have: use view=tokens."
        )
