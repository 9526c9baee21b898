"""BalanceMLA (Fu et al. 2024), reconstructed: bilateral residual attention, weighted decisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.features.batch import Batch
from sgmft.models.attention import check_heads
from sgmft.models.base import BimodalNetwork, NetworkConfig, Output
from sgmft.models.fusions import pool
from sgmft.models.method import Method
from sgmft.utils.distributed_loss import Criterion


@dataclass(frozen=True)
class BalanceMLAConfig(NetworkConfig):
    """What decides the network's shape and objective.

    Attributes:
        width: D. The manuscript's is 512; 256 is the size of the systems compared with it.
        heads: of the attention that both directions share.
        modulation: how much the dominant branch is held back, see `branch_coefficients`; at 0 no
            branch is.
    """

    width: int = 256
    heads: int = 8
    modulation: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("modulation", "0 or more")
        check_heads(self.width, self.heads)


@torch.no_grad()
def branch_coefficients(
    text_logits: Tensor, image_logits: Tensor, labels: Tensor, modulation: float = 0.3
) -> Tensor:
    """What the gradients of the two branches are multiplied by (2,), text first.

    rho, the batch's summed probability of the right class in one branch over that in the other, is
    above 1 for the dominant branch, which gets 1 - tanh(modulation * rho). The other gets 1, and
    both do where they are equal (OGM-GE, Peng et al. 2022, equation 10, without its noise).

    Args:
        text_logits, image_logits: of the branches alone (B, K).
        labels: (B,).
        modulation: alpha in OGM-GE.
    """
    confidence = torch.stack(
        [x.softmax(-1).gather(1, labels[:, None]).sum() for x in (text_logits, image_logits)]
    )
    confidence = confidence.clamp(min=torch.finfo(confidence.dtype).eps)
    rho = confidence / confidence.flip(0)
    return torch.where(rho > 1, 1 - torch.tanh(modulation * rho), torch.ones_like(rho))


class BalanceMLA(BimodalNetwork):
    """Each side reads the other and decides; the decisions are mixed class by class."""

    config: BalanceMLAConfig

    def __init__(self, config: BalanceMLAConfig) -> None:
        D, K = config.width, config.classes
        super().__init__(config, D, tokens=True, pooled=False)
        self.attention = nn.MultiheadAttention(D, config.heads, batch_first=True)
        self.text_head = nn.Linear(D, K)
        self.image_head = nn.Linear(D, K)
        self.weigh = nn.Linear(2 * D, K)

    def forward(self, batch: Batch) -> Output:
        """Token features of B posts to logits (B, K): alpha * y_t + (1 - alpha) * y_v."""
        text, image, text_mask, image_mask = self.token_inputs(batch)  # P_t T, P_v V
        f_t = pool(text + self._read(text, image, image_mask), text_mask)  # (B, D)
        f_v = pool(image + self._read(image, text, text_mask), image_mask)
        text_logits, image_logits = self.text_head(f_t), self.image_head(f_v)  # (B, K)
        fused = torch.cat([f_t, f_v], -1)  # (B, 2D)
        alpha = torch.sigmoid(self.weigh(fused))  # (B, K)
        logits = alpha * text_logits + (1 - alpha) * image_logits
        parts = {
            "text": text,
            "image": image,
            "text_logits": text_logits,
            "image_logits": image_logits,
        }
        return Output(logits, fused, parts=parts)

    def loss(self, output: Output, labels: Tensor, criterion: Criterion) -> Tensor:
        """CE(y) + CE(y_t) + CE(y_v), once for each forward pass.

        As in OGM-GE, what the dominant side learns by is scaled by `branch_coefficients`: the
        gradients of its projection, null token and picture index, through whatever path they come.
        What both sides share, and the heads, learn unscaled.
        """
        assert output.parts is not None
        sides = output.parts["text"], output.parts["image"]  # (B, n, D), (B, m, D)
        alone = output.parts["text_logits"], output.parts["image_logits"]
        whole, modulation = criterion.gather, self.config.modulation  # of all posts of the step
        seen = whole(alone[0]), whole(alone[1]), whole(labels)
        coefficients = branch_coefficients(*seen, modulation)
        for side, coefficient in zip(sides, coefficients, strict=True):
            if side.requires_grad:
                side.register_hook(coefficient.mul)
        return criterion(output.logits, labels) + sum(criterion(x, labels) for x in alone)

    def _read(self, asks: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """Queries (B, n, D) on the other side (B, m, D), whose mask (B, m) is True where real."""
        read: Tensor = self.attention(
            asks, other, other, key_padding_mask=~mask, need_weights=False
        )[0]
        return read


METHOD = Method(
    name="balance-mla",
    title="BalanceMLA (reconstruction)",
    source="Fu et al. 2024",
    network=BalanceMLA,
    config=BalanceMLAConfig,
    tokens=True,
    note=(
        "Our reconstruction from the named parts of a withdrawn manuscript on audio-visual data "
        "that published no code; width 256 in place of its 512."
    ),
)
