"""Predictive dynamic fusion (PDF; Cao et al. 2024): predicted confidence weighs each modality."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.features.features import Batch
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.layers import hidden_layers
from sgmft.models.method import Method
from sgmft.models.network import BimodalNetwork
from sgmft.models.presets import Dropout
from sgmft.utils.distributed import BatchCrossEntropy

TINY = 1e-12  # what is divided by is at least as far from 0


@dataclass(frozen=True)
class DynamicFusionConfig(NetworkConfig):
    """Settings of the network."""

    width: int = 256  # D of the representations h_t and h_v
    dropout: Dropout = 0.1  # between the two hidden layers of each modality


def fusion_weights(scores: Tensor, logits: Tensor | None = None) -> Tensor:
    """Weights (B, 2) of text and image, which add up to 1; of a modality m beside the other, n:

    c_m = sigmoid(s_m)                       Mono-Confidence, of scores (B, 2)   (1)
    d_m = log c_n / (log c_m + log c_n)      Holo-Confidence                     (2)
    u_m = mean over K of |p_m - 1/K|         p_m = softmax(y_m), logits (B, 2, K) (3)
    r_m = min(1, u_m / u_n)                  Relative Calibration; 1 without y    (4)
    w   = softmax over m of r_m (c_m + d_m)  of the Co-Belief, calibrated         (5)
    """
    c, log_c = scores.sigmoid(), nn.functional.logsigmoid(scores)  # (B, 2)
    belief = c + log_c.flip(1) / log_c.sum(1, keepdim=True).clamp(max=-TINY)
    if logits is not None:
        u = (logits.softmax(-1) - 1 / logits.shape[-1]).abs().mean(-1)  # (B, 2)
        belief = belief * (u / u.flip(1).clamp(min=TINY)).clamp(max=1)
    return belief.softmax(1)


class DynamicFusion(BimodalNetwork):
    """A classifier of each modality; their logits are mixed by how right each seems to be.

    From the paper (arXiv 2406.04802) and its code, whose encoders are trained: here a projection of
    cached features and two hidden layers stand for each, and the null vector for what is missing.
    As in the code, predictions alone are calibrated (3, 4), three linear layers make a score, and
    no gradient passes through w, nor from the scores to what they are of. The numbers are ours.
    """

    config: DynamicFusionConfig

    def __init__(self, config: DynamicFusionConfig) -> None:
        D, K, names = config.width, config.classes, ("text", "image")
        super().__init__(config, D)
        self.hidden = nn.ModuleDict({x: hidden_layers(D, D, config.dropout) for x in names})
        self.heads = nn.ModuleDict({x: nn.Linear(D, K) for x in names})
        shape = (D, 2 * D), (2 * D, D), (D, 1)
        confidence = {x: nn.Sequential(*(nn.Linear(*size) for size in shape)) for x in names}
        self.confidence = nn.ModuleDict(confidence)

    def forward(self, batch: Batch) -> Output:
        """Pooled features of B posts to logits (B, K): w_t y_t + w_v y_v."""
        inputs = zip(self.hidden.items(), self.pooled_inputs(batch), strict=True)
        h = {name: layers(x) for (name, layers), x in inputs}  # (B, D) each
        y = torch.stack([head(h[name]) for name, head in self.heads.items()], 1)  # (B, 2, K)
        scores = [net(h[name].detach()) for name, net in self.confidence.items()]
        s = torch.cat(scores, 1)  # (B, 2)
        weights = fusion_weights(s.detach(), None if self.training else y.detach())
        fused = torch.cat([*h.values()], 1)  # (B, 2 D)
        parts = {"logits": y, "confidence": s.sigmoid()}
        return Output((weights[..., None] * y).sum(1), fused, parts=parts)

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """CE(y), and CE(y_m) + |c_m - p_m of the true label| of each modality (6)."""
        y, c = output.parts["logits"], output.parts["confidence"]  # (B, 2, K), (B, 2)
        true = y.detach().softmax(-1)[torch.arange(len(y)), :, labels]  # (B, 2)
        gaps = criterion.gather((c - true).abs()).mean(0).sum()
        return (
            criterion(output.logits, labels) + sum(criterion(x, labels) for x in y.unbind(1)) + gaps
        )


METHOD = Method.of("dynamic-fusion", DynamicFusion, DynamicFusionConfig)
