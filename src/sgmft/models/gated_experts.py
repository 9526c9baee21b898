"""Similarity-gated experts, the default method: evidence of text and image for each label, pooled.

Our own, after the idea of SG-MFT (arXiv 2405.05760) and not its network, which is
`sgmft.models.sgmft`. docs/method.md says what it keeps of the paper, what it leaves out, and why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, logsigmoid
from torch.nn.utils import parameters_to_vector

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.base import ClosedFormNetwork, NetworkConfig, Output, divisor
from sgmft.models.experts import DenseExpert, NgramExpert, class_prior, draw_folds, evidence
from sgmft.models.method import Method
from sgmft.models.presets import Preset
from sgmft.models.similarity import Guidance, gate_entropy

INITIAL_POWER = 0.3  # between a product of both modalities' probabilities, 0, and a mixture, 1


@dataclass(frozen=True)
class GatedExpertsConfig(NetworkConfig):
    """Settings.

    Attributes:
        gate: "similarity", or "constant": the same for all posts.
        power: of the mean of both modalities; "learned", or a number: 0 is their weighted product,
            1 their mixture.
        joint: whether an expert on both modalities' features stands beside those on one.
        lexical: whether an expert on the text's n-grams stands beside that on its features.
        folds: of the cross-fitting.
        vocabulary_size: n-grams; the training posts decide it.

    Raises:
        SgmftError: fewer than two folds, a negative power or number of n-grams.
    """

    gate: Literal["similarity", "constant"] = "similarity"
    power: float | Literal["learned"] = "learned"
    joint: bool = True
    lexical: bool = True
    folds: int = 5
    vocabulary_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds < 2:
            raise SgmftError(f"folds must be at least 2, not {self.folds}.")
        if self.power != "learned" and not 0 <= self.power < math.inf:
            raise SgmftError(f"power must be 'learned' or at least 0, not {self.power}.")

    def _minimum(self, name: str) -> int:
        return 0 if name == "vocabulary_size" else super()._minimum(name)


class GatedExperts(ClosedFormNetwork):
    """Experts on the text, the image and both; a gate between the modalities by their similarity.

    Features of text and image share no space, but their evidence for each label does: there, their
    similarity means something. The experts are logistic regressions. The pools above them are
    fitted to predictions for posts that the experts were not fitted to (cross-fitting), so that an
    expert counts by how well it generalises. A post with one modality gets that one's prediction, a
    post with none the class frequencies of the training posts. A modality that no training post had
    is not read.
    """

    config: GatedExpertsConfig
    text: DenseExpert
    image: DenseExpert
    prior: Tensor  # (K,) log p(y)
    known: Tensor  # (2,) bool, whether any training post had a text, an image

    def __init__(self, config: GatedExpertsConfig) -> None:
        super().__init__(config)
        t, v, classes = config.text_width, config.image_width, config.classes
        self.text, self.image = DenseExpert(t, classes), DenseExpert(v, classes)
        self.uses_ngrams = config.lexical
        self.lexical = NgramExpert(config.vocabulary_size, classes) if config.lexical else None
        self.joint = DenseExpert(t + v, classes) if config.joint else None
        self.text_pool = ProductPool(1 + config.lexical)
        self.image_pool = ProductPool(1)
        self.pool = SimilarityGatedPool(config.gate == "similarity", config.joint, config.power)
        self.register_buffer("prior", torch.zeros(classes))
        self.register_buffer("known", torch.zeros(2, dtype=torch.bool))

    @torch.no_grad()
    def solve(self, batch: Batch, labels: Tensor) -> Tensor:
        """Fit experts and pools; return log-probabilities (N, K) of experts held out, pooled."""
        fold = draw_folds(labels, self.config.folds)
        self.prior.copy_(class_prior(labels, self.config.classes))
        t, v = batch.has_text, batch.has_image
        self.known.copy_(torch.stack([t.any(), v.any()]))
        both = t & v
        text, image, joint = (self.prior.repeat(len(labels), 1) for _ in range(3))
        if t.any():
            held_out = [self.text.fit(batch.text[t], labels[t], fold[t], self.report("text"))]
            if self.lexical is not None:
                report = self.report("n-grams")
                held_out.append(self.lexical.fit(_ngrams(batch)[t], labels[t], fold[t], report))
                size = len(self.lexical.vocabulary)
                self.config = dataclasses.replace(self.config, vocabulary_size=size)
            text[t] = self._fit_pool(self.text_pool, held_out, labels[t])
        if v.any():
            report = self.report("image")
            held_out = [self.image.fit(batch.image[v], labels[v], fold[v], report)]
            image[v] = self._fit_pool(self.image_pool, held_out, labels[v])
        if self.joint is not None:
            self.joint.bias.copy_(self.prior)  # no evidence, unless there are posts to learn from
        if both.any():
            if self.joint is not None:
                features = torch.cat([batch.text, batch.image], -1)[both]
                report = self.report("both")
                joint[both] = self.joint.fit(features, labels[both], fold[both], report)
            e_t, e_v, e_j = (evidence(x[both], self.prior) for x in (text, image, joint))
            self.pool.fit(e_t, e_v, e_j, self.prior, labels[both])
        return self._combine(batch, text, image, joint).logits

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K); `parts` has the gate P^m (B,)."""
        text, image, joint = self._dense(batch.text, batch.image)  # (B, K) each
        experts = [text]
        if self.lexical is not None:
            grams, counts = _ngrams(batch), batch.ngram_counts  # counted beforehand, or not
            experts.append(
                self.lexical(grams) if counts is None else self.lexical.counted(grams, counts)
            )
        text = self.text_pool([evidence(x, self.prior) for x in experts], self.prior)
        image = self.image_pool([evidence(image, self.prior)], self.prior)
        return self._combine(batch, text, image, joint)

    def _dense(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities (B, K) by the experts on text, image and both.

        Features are far more numbers than weights, so each modality's are read once for two
        experts.
        """
        if self.joint is None:
            alone = self.text(text)
            return alone, self.image(image), self.prior.expand_as(alone)
        weight, both = self.joint.unscaled()
        shares = weight.split([text.shape[-1], image.shape[-1]], -1)
        own = []
        for expert, x, share in zip((self.text, self.image), (text, image), shares, strict=True):
            weight, bias = expert.unscaled()
            alone, jointly = linear(x, torch.cat([weight, share])).chunk(2, -1)
            own.append(alone + bias)
            both = both + jointly
        by_text, by_image, by_both = (x.log_softmax(-1) for x in (*own, both))
        return by_text, by_image, by_both

    def _fit_pool(self, pool: ProductPool, experts: list[Tensor], labels: Tensor) -> Tensor:
        """Fit a modality's pool to its experts' log-probabilities, and return its own, (N, K)."""
        known = [evidence(x, self.prior) for x in experts]
        pool.fit(known, self.prior, labels)
        return pool(known, self.prior)

    def _combine(self, batch: Batch, text: Tensor, image: Tensor, joint: Tensor) -> Output:
        """Pool the log-probabilities (B, K) of the modalities that a post has."""
        known = [evidence(x, self.prior) for x in (text, image, joint)]
        pooled, gate = self.pool(*known, self.prior)
        t, v = (torch.stack([batch.has_text, batch.has_image]) & self.known[:, None])[..., None]
        one = torch.where(t, text, torch.where(v, image, self.prior))
        logits = torch.where(t & v, pooled, one)
        gate = torch.where((t & v)[:, 0], gate, t[:, 0].to(gate))
        given = zip((t, v, t & v), known, strict=True)
        fused = torch.cat([torch.where(has, x, 0.0) for has, x in given], -1)  # (B, 3 K)
        entropy = gate_entropy(gate[:, None], "sigmoid")
        guidance = Guidance(entropy, torch.full_like(entropy, torch.nan))
        return Output(logits, fused, guidance, {"gate": gate})


def _ngrams(batch: Batch) -> Tensor:
    """The posts' n-grams (B, g).

    Raises:
        SgmftError: the features were made without.
    """
    if batch.ngrams is None:
        raise SgmftError(
            "This model reads the texts' n-grams, and these features hold none: encode the posts "
            "again."
        )
    return batch.ngrams


class ProductPool(nn.Module):
    """A product of experts, each to a power: log p = log p(y) + sum_k w_k e_k + constant.

    With powers of 1 this is Bayes' rule for experts that are independent given the label. The
    powers are positive. They start at 1 / experts, and a penalty of |log (experts w)|^2 / N keeps
    them there when posts are few (Genest & Zidek 1986, logarithmic opinion pool).
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.full((experts,), -math.log(experts)))

    def forward(self, experts: Sequence[Tensor], prior: Tensor) -> Tensor:
        """Evidence of each expert (B, K) and log p(y) (K,) to log-probabilities (B, K)."""
        weight = self.log_weight.exp()
        return (prior + (weight[:, None, None] * torch.stack(list(experts))).sum(0)).log_softmax(-1)

    def fit(self, experts: Sequence[Tensor], prior: Tensor, labels: Tensor) -> None:
        """Find the powers under which the labels (N,) are most likely."""
        start = -math.log(len(self.log_weight))
        _minimise(
            self,
            lambda: (
                cross_entropy(self(experts, prior), labels)
                + (self.log_weight - start).square().sum() / len(labels)
            ),
        )


class GatedPrediction(NamedTuple):
    """Prediction of a gated pool for B posts."""

    logits: Tensor  # (B, K)
    gate: Tensor  # (B,) P^m, the weight of the text; the image has the rest


class SimilarityGatedPool(nn.Module):
    """A mean of two modalities, weighted by a gate that their similarities decide.

    With e_t, e_v and e_j the evidence of text, image and both together, and p = p(y) exp e:

        S^m = log [<p_t, p_t>, <p_v, p_v>, <p_t, p_v>]          how sure each modality is, and how
                                                               far the two agree (cf. eq. 1)
        P^m = sigmoid(b + u . S^m)                              cf. eq. 3
        m   = log(P^m exp(a e_t) + (1 - P^m) exp(a e_v)) / a    cf. eq. 6 to 13
        logits = log p(y) + 2 c m + w e_j                       cf. eq. 17

    m is the mean of power a of both modalities: the weighted product for a = 0, where one can veto
    what the other is sure of, and the mixture for a = 1, where it cannot. S^m is
    standardised on the training posts. The pool starts with b = u = 0, a = 0.3, c = 1, w = 1/2.

    Args:
        guided: whether similarities move the gate; without, it is the same for all posts.
        joint: whether there is a third expert.
        power: a; learned, or fixed.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, guided: bool, joint: bool, power: float | Literal["learned"] = "learned"
    ) -> None:
        super().__init__()
        self.power = None if power == "learned" else power  # a
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))
        self.balance = nn.Parameter(torch.zeros(()))  # b
        self.slopes = nn.Parameter(torch.zeros(3)) if guided else None  # u
        learned = self.power is None
        self.log_power = (
            nn.Parameter(torch.tensor(INITIAL_POWER).log()) if learned else None
        )  # log a
        self.log_sharpness = nn.Parameter(torch.zeros(()))  # log c
        self.log_joint = nn.Parameter(torch.tensor(0.5).log()) if joint else None  # log w

    def forward(
        self, text: Tensor, image: Tensor, joint: Tensor | None, prior: Tensor
    ) -> GatedPrediction:
        """Evidence of the modalities (B, K) and log p(y) (K,) to logits and gate."""
        score = self.balance.expand(len(text))
        if self.slopes is not None:
            similarities = _similarities(text, image, prior)
            score = score + ((similarities - self.mean) / self.deviation) @ self.slopes
        mean = self._mean(text, image, score[:, None])
        logits = prior + 2 * self.log_sharpness.exp() * mean
        if self.log_joint is not None and joint is not None:
            logits = logits + self.log_joint.exp() * joint
        return GatedPrediction(logits, score.sigmoid())

    def fit(
        self, text: Tensor, image: Tensor, joint: Tensor | None, prior: Tensor, labels: Tensor
    ) -> None:
        """Find the parameters under which the labels (N,) are most likely.

        A penalty of 3 |u|^2 / N, and of a third of that on the others' distance from where they
        start, keeps them there when posts are few.
        """
        similarities = _similarities(text, image, prior)
        if len(labels) > 1:
            self.mean.copy_(similarities.mean(0))
            self.deviation.copy_(divisor(similarities.std(0)))
        start = {name: x.detach().clone() for name, x in self.named_parameters()}

        def loss() -> Tensor:
            far = sum(
                (x - start[name]).square().sum() * (3.0 if name == "slopes" else 1.0)
                for name, x in self.named_parameters()
            )
            logits = self(text, image, joint, prior).logits
            return cross_entropy(logits, labels) + far / len(labels)

        _minimise(self, loss)

    def _mean(self, text: Tensor, image: Tensor, score: Tensor) -> Tensor:
        """m, (B, K)."""
        if self.power == 0:
            return score.sigmoid() * text + (-score).sigmoid() * image
        power = self.power if self.log_power is None else self.log_power.exp()
        assert power is not None
        parts = logsigmoid(score) + power * text, logsigmoid(-score) + power * image
        return torch.logaddexp(*parts) / power


def _similarities(text: Tensor, image: Tensor, prior: Tensor) -> Tensor:
    """S^m, (B, 3)."""
    pairs = ((text, text), (image, image), (text, image))
    return torch.stack([(2 * prior + a + b).logsumexp(-1) for a, b in pairs], -1)


def _minimise(module: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Set a module's few parameters to where a smooth loss is least.

    By SciPy's BFGS: the optimizers of torch import its compiler, which takes longer than this does.
    """
    from scipy.optimize import minimize

    parameters = list(module.parameters())

    @torch.no_grad()
    def load(point: NDArray[np.float64]) -> None:
        values = torch.from_numpy(point).split([x.numel() for x in parameters])
        for x, value in zip(parameters, values, strict=True):
            x.copy_(value.view_as(x))

    def value_and_slope(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        load(point)
        value = loss()
        slope = parameters_to_vector(torch.autograd.grad(value, parameters))
        return value.item(), slope.double().cpu().numpy()

    start = parameters_to_vector(parameters).detach().double().cpu().numpy()
    with torch.enable_grad():
        found = minimize(value_and_slope, start, method="BFGS", jac=True, options={"gtol": 1e-6})
    load(found.x)


METHOD = Method(
    name="gated-experts",
    title="Similarity-gated experts",
    source="the default of sgmft",
    network=GatedExperts,
    config=GatedExpertsConfig,
    presets={"default": Preset("default", refit=True)},
    note="Our own, after the idea of SG-MFT; the paper's network is the method sgmft.",
)
