"""Alternating unimodal adaptation (MLA; Zhang et al. 2024): modalities take turns at one head."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.features.features import Batch
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.layers import classifier as layers
from sgmft.models.network import BimodalNetwork, Losses
from sgmft.models.presets import Dropout, Positive
from sgmft.utils.distributed import BatchCrossEntropy


@dataclass(frozen=True)
class AlternatingAdaptationConfig(NetworkConfig):
    """Settings of the network and its training."""

    width: int = 256  # D of the representations h_t and h_v
    dropout: Dropout = 0.1  # after the hidden layer of each modality
    alpha: Positive = 0.1  # of equation 3; the greater, the less the head's gradient changes


class AlternatingAdaptation(BimodalNetwork):
    """One head for both modalities, which learn in turns; predictions are mixed by certainty.

    Each batch is two steps, the text's and then the image's; that of modality m, with P = I first:

        L  = CE(W h_m + b)             moves m's layers, W (K, D) and b (K,) alone    (1)
        W <- W - rate (dL/dW) P        the other modality's part is kept, P (D, D)    (2)
        P <- P - P g g' P / (alpha + g' P g)   g (D,), the mean of h_m over the step  (3)
        e_m = -sum over K of p log p,  p = softmax(W h_m + b)                         (4)
        y  = sum over m of w_m y_m,    w = softmax over m of -e_m                     (5)

    From the paper (arXiv 2311.10707) and its code, whose encoders are trained: here a projection of
    cached features and a hidden layer stand for each, and the null vector for what is missing. (2)
    and (3) are orthogonal weights modification (Zeng et al. 2019), before a step of AdamW; in the
    code they never happen, as no weight has the name looked for. The numbers are ours.
    """

    config: AlternatingAdaptationConfig
    projection: Tensor  # P, kept with the weights so that a training can continue

    def __init__(self, config: AlternatingAdaptationConfig) -> None:
        D = config.width
        super().__init__(config, D)
        self.hidden = nn.ModuleList(layers(D, D, (D,), config.dropout) for _ in "tv")
        self.head = nn.Linear(D, config.classes)
        self.register_buffer("projection", torch.eye(D))

    def forward(self, batch: Batch) -> Output:
        """Pooled features of B posts to logits (B, K), the mixture of both modalities' (5)."""
        h = [f(x) for f, x in zip(self.hidden, self.pooled_inputs(batch), strict=True)]  # (B, D)
        y = torch.stack([self.head(x) for x in h], 1)  # (B, 2, K)
        w = (y.softmax(-1) * y.log_softmax(-1)).sum(-1).softmax(1)  # (B, 2)
        return Output((w[..., None] * y).sum(1), torch.cat(h, 1), parts={"hidden": h, "logits": y})

    def losses(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Losses:
        """Yield the text's loss, and after its step the image's, by the head as it then is."""
        for h in output.parts["hidden"]:  # (B, D)
            W, P = self.head.weight, self.projection
            changed = W.detach() + (W - W.detach()) @ P  # W, but its gradient is times P
            yield criterion(nn.functional.linear(h, changed, self.head.bias), labels)
            g = criterion.gather(h.detach()).mean(0)  # (D,)
            self.projection = P - (P @ g).outer(P @ g) / (self.config.alpha + g @ P @ g)
