"""SG-MFT, the network of arXiv 2405.05760, from features to logits; see docs/method.md.

Here are equations 1 to 5, and 14 for elements, in `attention` 6 to 13, in `fusions` 17.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.features import Batch
from sgmft.models.attention import AttentionHeads, InterpolationAttention, Mask, check_heads
from sgmft.models.base import Guidance, NetworkConfig, Output
from sgmft.models.fusions import FUSIONS
from sgmft.models.network import BimodalNetwork, Scale, classifier
from sgmft.models.presets import POSITIVE, Dropout, Positive, Range

TOLERANCE = 1e-7  # of equation 14 by interpolation, times the largest value: float32 rounding
MAX_NODES = 96  # of the interpolation, beyond which the exact form is used
THETA = 1.3  # radians


def rank_one_attention(queries: Tensor, keys: Tensor, values: Tensor, tau: Tensor) -> Tensor:
    """Equation 14 in the elements view: X_inter = softmax(tau t v^T) x, all (B, D).

    Row i depends on the text through t_i alone, so that X_inter,i is g(t_i) with one smooth
    function g(s) = sum_j softmax_j(tau s v_j) x_j, interpolated at G Chebyshev nodes between min(t)
    and max(t): O(D G) instead of O(D^2). docs/method.md derives the least G; where it exceeds
    `MAX_NODES`, or D is so small that it would not pay, the exact form is used.

    It is within `TOLERANCE` times the largest |x| of the exact form, up to rounding. Gradients can
    be taken once: the slope of g counts as a constant.
    """
    return _interpolate(lambda p: (p @ values[:, :, None]).squeeze(-1), tau * queries, keys)


def rank_one_entropy(queries: Tensor, keys: Tensor, tau: Tensor) -> Tensor:
    """Entropy in nats of each row of softmax(tau t v^T): (B, D)."""
    return _interpolate(lambda p: torch.special.entr(p).sum(-1), tau * queries, keys)


def nodes_needed(rho: float) -> int | None:
    """Chebyshev nodes that keep the error under `TOLERANCE`; None where that takes too many."""
    if not math.isfinite(rho):
        return None
    if rho < 1e-6:
        return 4
    slope = THETA / rho
    radius = slope + math.sqrt(1 + slope * slope)
    constant = 4 / math.cos(THETA) / (radius - 1)
    count = 1 + math.ceil(max(3.0, math.log(constant / TOLERANCE) / math.log(radius)))
    return count if count <= MAX_NODES else None


def _interpolate(reduce: Callable[[Tensor], Tensor], points: Tensor, keys: Tensor) -> Tensor:
    """`reduce` (.., D) -> (..) of the softmax over keys (B, D) at every point (B, D).

    By its values at Chebyshev nodes where that is safe. So is its slope, for the gradients of the
    points: the interpolant's own would magnify rounding.
    """
    # Around zero no softmax over the keys changes, and the logits are small.
    low, high = keys.detach().amin(-1, keepdim=True), keys.detach().amax(-1, keepdim=True)
    keys = keys - (low + high) / 2

    def function(points: Tensor) -> Tensor:
        return reduce((points[:, :, None] * keys[:, None, :]).softmax(-1))  # (B, G, D) -> (B, G)

    if torch.compiler.is_exporting():  # which form is safe depends on the posts
        return function(points)
    with torch.no_grad():
        low, high = points.amin(-1, keepdim=True), points.amax(-1, keepdim=True)
        spread = (keys.amax(-1, keepdim=True) - keys.amin(-1, keepdim=True)) / 2
        centre = (low + high) / 2
        half = torch.maximum(high - centre, centre - low)
        count = nodes_needed(float((half * spread).max()))
    if count is None or 2 * count >= points.shape[-1]:
        return function(points)
    index = torch.arange(count, dtype=torch.float64, device=points.device)
    angles = (index + 0.5) * math.pi / count
    transform = (index[:, None] * angles).cos() * 2 / count  # (G, G): node values -> coefficients
    transform[0] /= 2
    transform = transform.to(points.dtype).T
    nodes = centre + half * angles.cos().to(points.dtype)  # (B, G)
    tiny = torch.finfo(half.dtype).tiny
    z = (points.detach() - centre) / half.clamp(min=tiny)  # (B, D) in [-1, 1]
    if not (torch.is_grad_enabled() and points.requires_grad):
        return _clenshaw(function(nodes) @ transform, z)
    at_nodes = function(nodes.requires_grad_())
    slopes = torch.autograd.grad(at_nodes.sum(), nodes, retain_graph=True)[0]
    slope = _clenshaw(slopes @ transform, z)  # (B, D)
    return _clenshaw(at_nodes @ transform, z) + slope * (points - points.detach())


def _clenshaw(coefficients: Tensor, z: Tensor) -> Tensor:
    """The series (B, G) of Chebyshev polynomials at z (B, D) in [-1, 1], by his recurrence."""
    ahead, current = torch.zeros_like(z), torch.zeros_like(z)
    for k in range(coefficients.shape[1] - 1, 0, -1):
        ahead, current = current, coefficients[:, k : k + 1] + 2 * z * current - ahead
    return coefficients[:, :1] + z * current - ahead


Gate = Literal["softmax", "sigmoid"]
_TEMPERATURE = Range("positive or 'learned'", POSITIVE.includes)


@dataclass(frozen=True)
class SGMFTConfig(NetworkConfig):
    """Settings of the network. Defaults are the paper's, or chosen by us (*)."""

    width: int = 0  # D; 0 is that of the encoder's shared space, as printed, or 512 if none (*)
    # pooled features as D scalar elements, or word and region tokens
    view: Literal["elements", "tokens"] = "elements"
    element_width: int = 1  # w, numbers in one element of a head; elements view only
    heads: int = 8  # h
    # d_K of equation 8: the width of an element, w, or of a head, D/h, as it is for tokens
    key_width: Literal["element", "head"] = "element"
    gate: Gate = "softmax"  # how P^m comes from S^m
    # factor on both similarities; "learned" starts at `initial_temperature`
    temperature: Annotated[float | Literal["learned"], _TEMPERATURE] = 1.0
    initial_temperature: Positive = 1.0
    # which modality's feed-forward block the other's features guide (Table 4)
    guided: Literal["text", "image"] = "text"
    sim: bool = True  # whether there is similarity-guided interaction; Table 2 leaves it out
    fusion: str = "sfm"  # or another of `sgmft.models.fusions.FUSIONS` in its place (Table 3)
    fusion_layers: int = 2  # cross-attention layers of each modality in the SFM
    hidden_ratio: Positive = 4.0  # feed-forward width over D (*)
    # the classifier's hidden widths; four make five layers (*)
    classifier_widths: tuple[int, ...] = (512, 256, 128, 64)
    dropout: Dropout = 0.1  # after attention, in the feed-forward block and in the classifier (*)
    scale: Scale = "none"  # of the features that come in (*)
    max_images: int = 16  # images of one post with an index of their own in the tokens view

    def __post_init__(self) -> None:
        if self.width == 0:
            D = shared_width(self.text_width, self.image_width, self.shared_space)
            object.__setattr__(self, "width", D)
        super().__post_init__()
        if self.fusion not in FUSIONS:
            raise SgmftError(TEXTS["no fusion"], name=self.fusion, known=", ".join(FUSIONS))
        check_heads(self.width, self.heads, self.element_width if self.view == "elements" else None)

    @property
    def projected(self) -> bool:
        """Whether each modality gets a learned linear map to D."""
        return not (self.shared_space and self.text_width == self.image_width == self.width)


class SGMFT(BimodalNetwork):
    """Similarity-guided interaction (SIM), similarity-aware fusion (SFM), classifier."""

    config: SGMFTConfig

    def __init__(self, config: SGMFTConfig) -> None:
        D, c = config.width, config
        tokens = c.view == "tokens"
        inputs = {"tokens": tokens, "pooled": c.sim or not tokens, "projected": c.projected}
        super().__init__(c, D, scale=c.scale, max_images=c.max_images, **inputs)
        scale = (D / c.heads) ** -0.5 if c.key_width == "head" else None
        heads = AttentionHeads(c.heads, None if tokens else c.element_width, scale)
        if c.sim:
            hidden = round(c.hidden_ratio * D)
            self.temperature = Temperature(c.temperature, c.initial_temperature)
            self.attention = InterpolationAttention(D, heads, c.dropout)
            self.text_ffn = FeedForward(D, hidden, c.guided == "text", c.dropout)
            self.image_ffn = FeedForward(D, hidden, c.guided == "image", c.dropout)
        self.fusion = FUSIONS[c.fusion](D, heads, c.fusion_layers)
        self.joint = self.attributes = None
        if c.attributes_width:  # not in the paper either
            self.attributes = nn.Linear(c.attributes_width, D)
        if tokens and c.joint_width:  # an encoder of text and image together; not in the paper
            self.joint = nn.Sequential(nn.LayerNorm(c.joint_width), nn.Linear(c.joint_width, D))
        self.classifier = classifier(D, c.classes, c.classifier_widths, c.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: Xavier for linear maps, He for those before a ReLU, zero biases."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.startswith("classifier") or name.endswith(("w1", "w3")):
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                else:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K); the softmax of eq. 18 is the caller's.

        Shapes are those of the tokens view; in the elements view text and image are (B, D)
        throughout, and there are no masks.
        """
        tokens = self.config.view == "tokens"
        text_mask = image_mask = guidance = None
        if tokens:
            text, image, text_mask, image_mask = self.token_inputs(batch)  # (B, n, D), (B, m, D)
            if self.attributes is not None:  # are one more token of the text
                text = torch.cat([text, self.attributes(batch.attributes)[:, None]], 1)
                text_mask = nn.functional.pad(text_mask, (0, 1), value=True)
        else:
            text, image = self.pooled_inputs(batch)  # (B, D), (B, D)
        if self.config.sim:
            t, v = self.pooled_inputs(batch) if tokens else (text, image)  # (B, D), (B, D)
            tau = self.temperature()  # ()
            gate = modality_gate(t, v, tau, self.config.gate)  # (B, D) P^m: eq. 1, 3
            guidance = self._guidance(gate, text, image, text_mask, image_mask)
            # (B, n, D), (B, m, D) X^C: eq. 6 to 13
            x_t, x_v = self.attention(text, image, gate, text_mask, image_mask)
            inter_t = inter_v = None
            if self.config.guided == "text":
                inter_t = interaction(text, image, x_v, tau, image_mask)  # (B, n, D): eq. 2, 4, 14
            else:
                inter_v = interaction(image, text, x_t, tau, text_mask)  # (B, m, D): eq. 2, 5, 14
            text = self.text_ffn(x_t, inter_t)  # (B, n, D): eq. 15, 16
            image = self.image_ffn(x_v, inter_v)  # (B, m, D): eq. 15, 16
        fused = self.fusion(text, image, text_mask, image_mask)  # (B, D) M_fuse: eq. 17
        if self.joint is not None:
            fused = fused + self.joint(batch.joint) * batch.has_joint[:, None]
        return Output(self.classifier(fused), fused, guidance)  # logits (B, K): eq. 18

    @torch.no_grad()
    def element_map(self, batch: Batch) -> Tensor | None:
        """P^e of B posts (eq. 2, 4, 5), words by regions (B, n, m), in the tokens view.

        Each row sums to 1 where the text is guided, each column where the image is. None in the
        elements view, which has no words, and without similarity guidance.
        """
        if not self.config.sim or self.config.view == "elements":
            return None
        text, image, text_mask, image_mask = self.token_inputs(batch)
        if self.config.guided == "text":
            return element_probabilities(text, image, self.temperature(), image_mask)
        by_region = element_probabilities(image, text, self.temperature(), text_mask)  # (B, m, n)
        return by_region.transpose(1, 2)

    @torch.no_grad()
    def _guidance(
        self, gate: Tensor, text: Tensor, image: Tensor, text_mask: Mask, image_mask: Mask
    ) -> Guidance:
        queries, keys, masks = text, image, (text_mask, image_mask)
        if self.config.guided == "image":
            queries, keys, masks = image, text, (image_mask, text_mask)
        elements = element_entropy(queries, keys, self.temperature(), *masks)
        return Guidance(gate_entropy(gate, self.config.gate), elements)


def interaction(queries: Tensor, keys: Tensor, values: Tensor, tau: Tensor, mask: Mask) -> Tensor:
    """Equation 14: X_inter = P^e X^C of the other modality, in the shape of the queries."""
    if queries.dim() == 2:
        return rank_one_attention(queries, keys, values, tau)  # (B, D)
    return element_probabilities(queries, keys, tau, mask) @ values  # (B, n, D)


class FeedForward(nn.Module):
    """LayerNorm(ReLU(x W1 + X_inter W3 + b1) W2 + b2 + x), d_h wide; W3 only if it is guided."""

    def __init__(self, width: int, hidden: int, guided: bool, dropout: float = 0.1) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)  # carries b1
        self.w3 = nn.Linear(width, hidden, bias=False) if guided else None
        self.w2 = nn.Linear(hidden, width)  # carries b2
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, inter: Tensor | None = None) -> Tensor:
        """Equations 15 and 16, on x = X^C; `inter` is required exactly when the block is guided."""
        hidden = self.w1(x)  # (B, d_h) or (B, n, d_h)
        if self.w3 is not None:
            hidden = hidden + self.w3(inter)
        return self.norm(self.dropout(self.w2(hidden.relu())) + x)


def shared_width(text_width: int, image_width: int, shared_space: bool) -> int:
    """D by default: a shared space's width, or 512 where the towers share none."""
    return text_width if shared_space and text_width == image_width else 512


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
