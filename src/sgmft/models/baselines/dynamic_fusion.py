"""Predictive dynamic fusion (PDF; Cao et al. 2024): predicted confidence weighs each modality."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.features.features import Batch
from sgmft.models.arrays import most_probable
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.layers import classifier as layers
from sgmft.models.network import BimodalNetwork
from sgmft.models.presets import Dropout
from sgmft.utils.distributed import BatchCrossEntropy


@dataclass(frozen=True)
class DynamicFusionConfig(NetworkConfig):
    """Settings of the network."""

    width: int = 256  # D of the representations h_t and h_v
    dropout: Dropout = 0.1  # after the hidden layer of each modality


def fusion_weights(scores: Tensor, logits: Tensor | None = None) -> Tensor:
    """Weights (B, 2) of text and image, which add up to 1; of a modality m beside the other, n:

    c_m = sigmoid(s_m)                       Mono-Confidence, of scores (B, 2)    (1)
    d_m = log c_n / (log c_m + log c_n)      Holo-Confidence                      (2)
    u_m = mean over K of |p_m - 1/K|         p_m = softmax(y_m), logits (B, 2, K) (3)
    r_m = min(1, u_m / u_n)                  Relative Calibration; 1 without y    (4)
    w   = softmax over m of r_m (c_m + d_m)  of the Co-Belief, calibrated         (5)
    """
    log_c = nn.functional.logsigmoid(scores)  # (B, 2)
    belief = log_c.exp() + log_c.flip(1) / log_c.sum(1, keepdim=True).clamp(max=-1e-12)
    if logits is not None:
        u = (logits.softmax(-1) - 1 / logits.shape[-1]).abs().mean(-1)  # (B, 2)
        belief = belief * (u / u.flip(1).clamp(min=1e-12)).clamp(max=1)
    return belief.softmax(1)


class DynamicFusion(BimodalNetwork):
    """A classifier of each modality; their logits are mixed by how right each seems to be.

    From the paper (arXiv 2406.04802) and its code, whose encoders are trained: here a projection of
    cached features and a hidden layer stand for each, and the null vector for what is missing. As
    in the code, only predictions are calibrated (3, 4), a score is linear in h, there by three
    layers, and no gradient passes through w, nor from s to h. The numbers are ours.
    """

    def __init__(self, config: DynamicFusionConfig) -> None:
        D, K = config.width, config.classes
        super().__init__(config, D)
        self.hidden = nn.ModuleList(layers(D, D, (D,), config.dropout) for _ in "tv")
        self.heads = nn.ModuleList(nn.Linear(D, K) for _ in "tv")
        self.scores = nn.ModuleList(nn.Linear(D, 1) for _ in "tv")

    def forward(self, batch: Batch) -> Output:
        """Pooled features of B posts to logits (B, K): w_t y_t + w_v y_v."""
        h = [f(x) for f, x in zip(self.hidden, self.pooled_inputs(batch), strict=True)]  # (B, D)
        y = torch.stack([f(x) for f, x in zip(self.heads, h, strict=True)], 1)  # (B, 2, K)
        s = torch.cat([f(x.detach()) for f, x in zip(self.scores, h, strict=True)], 1)  # (B, 2)
        w = fusion_weights(s.detach(), None if self.training else y.detach())  # (B, 2)
        return Output((w[..., None] * y).sum(1), torch.cat(h, 1), parts={"logits": y, "scores": s})

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """CE(y), and CE(y_m) + |c_m - p_m of the true label| of each modality (6)."""
        y, c = output.parts["logits"], output.parts["scores"].sigmoid()  # (B, 2, K), (B, 2)
        true = y.detach().softmax(-1)[torch.arange(len(y)), :, most_probable(labels)]  # (B, 2)
        gaps = criterion.gather((c - true).abs()).mean(0)  # (2,)
        return gaps.sum() + sum(criterion(x, labels) for x in (output.logits, *y.unbind(1)))
