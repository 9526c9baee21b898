"""BalanceMLA (Fu et al. 2024), reconstructed: bilateral residual attention, weighted decisions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.features.features import Batch
from sgmft.models.arrays import most_probable
from sgmft.models.attention import check_heads
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.fusions import pool
from sgmft.models.network import BimodalNetwork
from sgmft.models.presets import NotNegative
from sgmft.utils.distributed import BatchCrossEntropy


@dataclass(frozen=True)
class BalanceMLAConfig(NetworkConfig):
    """Settings of the network and its objective."""

    width: int = 256  # D. The manuscript's is 512; 256 is the size of the systems compared with it.
    heads: int = 8  # of the attention that both directions share
    modulation: NotNegative = 0.3  # how much the dominant branch is held back; at 0 none is

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)


@torch.no_grad()
def branch_coefficients(
    text_logits: Tensor, image_logits: Tensor, labels: Tensor, modulation: float = 0.3
) -> Tensor:
    """Factors (2,) for the gradients of the two branches, text first.

    rho, the batch's summed probability of the right class in one branch over that in the other, is
    above 1 for the dominant branch, which gets 1 - tanh(modulation * rho). The other gets 1, and
    both do where they are equal (OGM-GE, Peng et al. 2022, equation 10, without its noise; its
    alpha is `modulation`). Logits (B, K) are those of the branches alone.
    """
    right = [x.softmax(-1).gather(1, labels[:, None]).sum() for x in (text_logits, image_logits)]
    confidence = torch.stack(right).clamp(min=torch.finfo(right[0].dtype).eps)
    rho = confidence / confidence.flip(0)
    return torch.where(rho > 1, 1 - torch.tanh(modulation * rho), torch.ones_like(rho))


class BalanceMLA(BimodalNetwork):
    """Each modality attends to the other and decides; the decisions are mixed class by class."""

    config: BalanceMLAConfig

    def __init__(self, config: BalanceMLAConfig) -> None:
        D, K = config.width, config.classes
        super().__init__(config, D, tokens=True, pooled=False)
        self.attention = nn.MultiheadAttention(D, config.heads, batch_first=True)
        self.text_head, self.image_head = nn.Linear(D, K), nn.Linear(D, K)
        self.weigh = nn.Linear(2 * D, K)

    def forward(self, batch: Batch) -> Output:
        """Token features of B posts to logits (B, K): alpha * y_t + (1 - alpha) * y_v."""
        text, image, text_mask, image_mask = self.token_inputs(batch)  # P_t T, P_v V
        f_t = pool(text + self._attend(text, image, image_mask), text_mask)  # (B, D)
        f_v = pool(image + self._attend(image, text, text_mask), image_mask)
        y_t, y_v = self.text_head(f_t), self.image_head(f_v)  # (B, K)
        fused = torch.cat([f_t, f_v], -1)  # (B, 2D)
        alpha = torch.sigmoid(self.weigh(fused))  # (B, K)
        parts = {"text": text, "image": image, "text_logits": y_t, "image_logits": y_v}
        return Output(alpha * y_t + (1 - alpha) * y_v, fused, parts=parts)

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """CE(y) + CE(y_t) + CE(y_v), once for each forward pass.

        As in OGM-GE, all gradients of the dominant modality's projection, null token and image
        index are scaled by `branch_coefficients`; what both share, and the heads, learn unscaled.
        """
        inputs = output.parts["text"], output.parts["image"]  # (B, n, D), (B, m, D)
        alone = output.parts["text_logits"], output.parts["image_logits"]
        y_t, y_v, y = (criterion.gather(x) for x in (*alone, labels))  # of all posts of the step
        coefficients = branch_coefficients(y_t, y_v, most_probable(y), self.config.modulation)
        for x, coefficient in zip(inputs, coefficients, strict=True):
            if x.requires_grad:
                x.register_hook(coefficient.mul)
        return criterion(output.logits, labels) + sum(criterion(x, labels) for x in alone)

    def _attend(self, queries: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """Attend from (B, n, D) to the other modality (B, m, D), whose mask is True where real."""
        return self.attention(queries, other, other, key_padding_mask=~mask, need_weights=False)[0]
