"""SG-MFT (default): similarity-guided interaction of what text and picture say of the label.

docs/method.md says what it keeps of the paper, what it leaves out, and why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, logsigmoid

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.base import ClosedFormNetwork, NetworkConfig, Output, divisor
from sgmft.models.experts import DenseExpert, LexicalExpert, draw_folds, evidence
from sgmft.models.logistic import log_frequencies
from sgmft.models.similarity import Guidance, gate_entropy

START_POWER = 0.3  # between a product of opinions, 0, and a mixture of them, 1


class ProductPool(nn.Module):
    """A product of experts, each to a power: log p = log p(y) + sum_k w_k e_k + constant.

    With powers of 1 this is Bayes' rule for experts that are independent given the label. The
    powers are positive. They start at 1 / experts, and a penalty of |log (experts w)|^2 / N keeps
    them there when posts are few (Genest & Zidek 1986, logarithmic opinion pool).
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.full((experts,), -math.log(experts)))

    def forward(self, said: Sequence[Tensor], prior: Tensor) -> Tensor:
        """Evidence of each expert (B, K) and log p(y) (K,) to log-probabilities (B, K)."""
        weight = self.log_weight.exp()
        return (prior + (weight[:, None, None] * torch.stack(list(said))).sum(0)).log_softmax(-1)

    def fit(self, said: Sequence[Tensor], prior: Tensor, labels: Tensor) -> None:
        """Find the powers under which the labels (N,) are most likely."""
        start = -math.log(len(self.log_weight))
        _minimise(
            self,
            lambda: (
                cross_entropy(self(said, prior), labels)
                + (self.log_weight - start).square().sum() / len(labels)
            ),
        )


class Gated(NamedTuple):
    """What a gated pool says of B posts."""

    logits: Tensor  # (B, K)
    gate: Tensor  # (B,) P^m, the weight of the text; the picture has the rest


class SimilarityGatedPool(nn.Module):
    """A mean of two sides, weighted by a gate that their similarities decide.

    With e_t, e_v and e_j the evidence of text, picture and both together, and p = p(y) exp e:

        S^m = log [<p_t, p_t>, <p_v, p_v>, <p_t, p_v>]          how sure each side is, and how far
                                                               the two say the same (cf. eq. 1)
        P^m = sigmoid(b + u . S^m)                              cf. eq. 3
        m   = log(P^m exp(a e_t) + (1 - P^m) exp(a e_v)) / a    cf. eq. 6 to 13
        logits = log p(y) + 2 c m + w e_j                       cf. eq. 17

    m is the mean of power a of what the sides say: the weighted product for a = 0, where one side
    can veto what the other is sure of, and the mixture for a = 1, where it cannot. S^m is
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
        self.log_power = nn.Parameter(torch.tensor(START_POWER).log()) if learned else None  # log a
        self.log_sharpness = nn.Parameter(torch.zeros(()))  # log c
        self.log_joint = nn.Parameter(torch.tensor(0.5).log()) if joint else None  # log w

    def forward(self, text: Tensor, image: Tensor, joint: Tensor | None, prior: Tensor) -> Gated:
        """Evidence of the sides (B, K) and log p(y) (K,) to logits and gate."""
        score = self.balance.expand(len(text))
        if self.slopes is not None:
            similarities = _similarities(text, image, prior)
            score = score + ((similarities - self.mean) / self.deviation) @ self.slopes
        sides = self._mean(text, image, score[:, None])
        logits = prior + 2 * self.log_sharpness.exp() * sides
        if self.log_joint is not None and joint is not None:
            logits = logits + self.log_joint.exp() * joint
        return Gated(logits, score.sigmoid())

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
    """Set a module's few parameters to where a smooth loss is least (L-BFGS)."""
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(step)


@dataclass(frozen=True)
class EvidenceConfig(NetworkConfig):
    """Settings.

    Attributes:
        gate: "similarity", or "constant": the same for all posts.
        power: of the mean of both sides; "learned", or a number: 0 is their weighted product, 1
            their mixture.
        joint: whether an expert on both sides' features stands beside those on one.
        lexical: whether the text is judged by its n-grams too.
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

    def _least(self, name: str) -> int:
        return 0 if name == "vocabulary_size" else super()._least(name)


class EvidenceNetwork(ClosedFormNetwork):
    """Experts on the text, the picture and both; a gate between the sides by their similarity.

    Features of text and picture share no space, but what each says of the label does: there, their
    similarity means something. The experts are logistic regressions; the pools above them are
    fitted to what experts say of posts that they have not seen (cross-fitting), so that an expert
    counts by how well it generalises. A post with one side gets that side's answer, a post with
    none the class frequencies of the training posts. A side that no training post had is not read.
    """

    config: EvidenceConfig
    text: DenseExpert
    image: DenseExpert
    prior: Tensor
    known: Tensor

    def __init__(self, config: EvidenceConfig) -> None:
        super().__init__(config)
        t, v, classes = config.text_width, config.image_width, config.classes
        self.text, self.image = DenseExpert(t, classes), DenseExpert(v, classes)
        self.reads_ngrams = config.lexical
        self.lexical = LexicalExpert(config.vocabulary_size, classes) if config.lexical else None
        self.joint = DenseExpert(t + v, classes) if config.joint else None
        self.text_pool = ProductPool(1 + config.lexical)
        self.image_pool = ProductPool(1)
        self.pool = SimilarityGatedPool(config.gate == "similarity", config.joint, config.power)
        self.register_buffer("prior", torch.zeros(classes))  # logarithms
        self.register_buffer("known", torch.zeros(2, dtype=torch.bool))  # text, picture

    @torch.no_grad()
    def solve(self, batch: Batch, labels: Tensor) -> Tensor:
        """Fit experts and pools; what held-out experts and the pools say of each post, (N, K)."""
        fold = draw_folds(labels, self.config.folds)
        self.prior.copy_(log_frequencies(labels, self.config.classes))
        t, v = batch.has_text, batch.has_image
        self.known.copy_(torch.stack([t.any(), v.any()]))
        both = t & v
        text, image, joint = (self.prior.repeat(len(labels), 1) for _ in range(3))
        if t.any():
            said = [self.text.fit(batch.text[t], labels[t], fold[t])]
            if self.lexical is not None:
                said.append(self.lexical.fit(_ngrams(batch)[t], labels[t], fold[t]))
                size = len(self.lexical.vocabulary)
                self.config = dataclasses.replace(self.config, vocabulary_size=size)
            text[t] = self._fit_pool(self.text_pool, said, labels[t])
        if v.any():
            said = [self.image.fit(batch.image[v], labels[v], fold[v])]
            image[v] = self._fit_pool(self.image_pool, said, labels[v])
        if self.joint is not None:
            self.joint.bias.copy_(self.prior)  # without a post to learn from, it says nothing
        if both.any():
            if self.joint is not None:
                features = torch.cat([batch.text, batch.image], -1)[both]
                joint[both] = self.joint.fit(features, labels[both], fold[both])
            t_, v_, j_ = (evidence(x[both], self.prior) for x in (text, image, joint))
            self.pool.fit(t_, v_, j_, self.prior, labels[both])
        return self._choose(batch, text, image, joint).logits

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K); `parts` has the gate P^m (B,)."""
        text, image, joint = self._dense(batch.text, batch.image)
        said = [text]
        if self.lexical is not None:
            said.append(self._read(self.lexical, batch))
        text = self.text_pool([evidence(x, self.prior) for x in said], self.prior)
        image = self.image_pool([evidence(image, self.prior)], self.prior)
        return self._choose(batch, text, image, joint)

    def _dense(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the experts on text, picture and both say, (B, K) each.

        Features are far more numbers than weights, so each side's are read once for two experts.
        """
        if self.joint is None:
            said = self.text(text)
            return said, self.image(image), self.prior.expand_as(said)
        weight, both = self.joint.unscaled()
        parts = weight.split([text.shape[-1], image.shape[-1]], -1)
        own = []
        for expert, x, part in zip((self.text, self.image), (text, image), parts, strict=True):
            weight, bias = expert.unscaled()
            alone, share = linear(x, torch.cat([weight, part])).chunk(2, -1)
            own.append(alone + bias)
            both = both + share
        said, seen, joint = (x.log_softmax(-1) for x in (*own, both))
        return said, seen, joint

    def _fit_pool(self, pool: ProductPool, said: list[Tensor], labels: Tensor) -> Tensor:
        """Fit a side's pool to its experts' log-probabilities; what it says, (N, K)."""
        known = [evidence(x, self.prior) for x in said]
        pool.fit(known, self.prior, labels)
        return pool(known, self.prior)

    def _read(self, expert: LexicalExpert, batch: Batch) -> Tensor:
        """What the n-grams say; counted beforehand, or not."""
        grams, counts = _ngrams(batch), batch.ngram_counts
        said: Tensor = expert(grams) if counts is None else expert.counted(grams, counts)
        return said

    def _choose(self, batch: Batch, text: Tensor, image: Tensor, joint: Tensor) -> Output:
        """The answer from the sides that a post has."""
        sides = [evidence(x, self.prior) for x in (text, image, joint)]
        pooled, gate = self.pool(*sides, self.prior)
        t, v = (torch.stack([batch.has_text, batch.has_image]) & self.known[:, None])[..., None]
        one = torch.where(t, text, torch.where(v, image, self.prior))
        logits = torch.where(t & v, pooled, one)
        gate = torch.where((t & v)[:, 0], gate, t[:, 0].to(gate))
        given = zip((t, v, t & v), sides, strict=True)
        fused = torch.cat([torch.where(has, side, 0.0) for has, side in given], -1)
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
