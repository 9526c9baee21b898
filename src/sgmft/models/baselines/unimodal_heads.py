"""Systems in which each modality also decides alone, so that none learns at another's expense.

UniS-MMC (Zou et al. 2023); BalanceMLA (Fu et al. 2024), reconstructed; predictive dynamic fusion
(PDF; Cao et al. 2024); alternating unimodal adaptation (MLA; Zhang et al. 2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from sgmft.features.features import Batch
from sgmft.models.arrays import most_probable
from sgmft.models.attention import check_heads
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.fusions import pool
from sgmft.models.network import BimodalNetwork, Losses, classifier as layers
from sgmft.models.presets import Dropout, NotNegative, Positive
from sgmft.utils.distributed import BatchCrossEntropy


@dataclass(frozen=True)
class UniSMMCConfig(NetworkConfig):
    """Settings of UniS-MMC and its objective."""

    width: int = 256  # D of the representations r_t and r_v, and of the heads' hidden layers
    contrast: NotNegative = 0.1  # lambda, the weight of the contrastive loss; 0 leaves it out
    contrast_temperature: Positive = 0.07  # tau, by which cosines are divided
    dropout: Dropout = 0.1  # between the two hidden layers of each head


def multimodal_contrast(
    text: Tensor, image: Tensor, text_right: Tensor, image_right: Tensor, paired: Tensor, tau: float
) -> Tensor:
    """The contrastive loss of UniS-MMC, a scalar.

    L_mmc = -log[ sum over P and S of exp(cos(r_t, r_v) / tau)
                  / sum over all pairs of exp(cos(r_t, r_v) / tau) ]

    A post is in P where the predictions from text alone and from image alone are both right, in S
    where exactly one is, and in N where neither is. In S the right modality is detached, so that
    only the wrong one moves. Without a post in P or S, or without one in N, the loss is 0.

    Text and image are r_t and r_v (B, D); bools (B,) tell whether the prediction of each alone is
    right, and whether a post has both modalities; the others take no part.
    """
    text, image = text[paired], image[paired]  # (pairs, D)
    text_right, image_right = text_right[paired], image_right[paired]
    text = torch.where((text_right & ~image_right)[:, None], text.detach(), text)
    image = torch.where((image_right & ~text_right)[:, None], image.detach(), image)
    similarity = cosine_similarity(text, image) / tau  # (pairs,)
    positive = similarity[text_right | image_right]
    if len(positive) == 0:
        return similarity.sum() * 0  # still a function of r_t and r_v
    return similarity.logsumexp(0) - positive.logsumexp(0)


class UniSMMC(BimodalNetwork):
    """Two unimodal heads and a multimodal one on projected features; the latter predicts."""

    config: UniSMMCConfig

    def __init__(self, config: UniSMMCConfig) -> None:
        D, c = config.width, config
        super().__init__(c, D)
        self.text_head, self.image_head = (_Head(D, D, c.classes, c.dropout) for _ in "tv")
        self.head = _Head(2 * D, D, c.classes, c.dropout)

    def forward(self, batch: Batch) -> Output:
        """Pooled features of B posts to the multimodal head's logits (B, K)."""
        t, v = self.pooled_inputs(batch)  # (B, D)
        alone = self.text_head(t)[1], self.image_head(v)[1]  # (B, K)
        fused, logits = self.head(torch.cat([t, v], -1))  # (B, D), (B, K)
        parts = {"sides": (t, v), "alone": alone, "paired": batch.has_text & batch.has_image}
        return Output(logits, fused, parts=parts)

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """L_text + L_image + L_multi + lambda L_mmc."""
        parts, tau = output.parts, self.config.contrast_temperature
        right = [x.argmax(-1) == most_probable(labels) for x in parts["alone"]]
        given = *parts["sides"], *right, parts["paired"]
        r_t, r_v, right_t, right_v, paired = map(criterion.gather, given)  # all posts of the step
        contrast = multimodal_contrast(r_t, r_v, right_t, right_v, paired, tau)
        supervised = sum(criterion(x, labels) for x in (*parts["alone"], output.logits))
        return supervised + self.config.contrast * contrast


class _Head(nn.Module):
    """Two hidden layers with dropout between, then logits; gives the last hidden layer too."""

    def __init__(self, source: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        first = nn.Linear(source, width), nn.ReLU(), nn.Dropout(dropout)
        self.hidden = nn.Sequential(*first, nn.Linear(width, width), nn.ReLU())
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)  # (B, width)
        return hidden, self.output(hidden)


@dataclass(frozen=True)
class BalanceMLAConfig(NetworkConfig):
    """Settings of BalanceMLA and its objective."""

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


@dataclass(frozen=True)
class DynamicFusionConfig(NetworkConfig):
    """Settings of PDF."""

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


@dataclass(frozen=True)
class AlternatingAdaptationConfig(DynamicFusionConfig):
    """Settings of MLA and its training."""

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
