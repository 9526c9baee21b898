"""SG-MFT (default): similarity-guided interaction of what text and picture say of the label.

docs/method.md says what it keeps of the paper, what it leaves out, and why.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from sgmft.errors import SgmftError
from sgmft.nn.batch import Batch
from sgmft.nn.experts import DenseExpert, LexicalExpert, draw_folds, evidence
from sgmft.nn.logistic import log_frequencies
from sgmft.nn.network import NetworkConfig, Output, Solved
from sgmft.nn.pools import ProductPool, SimilarityGatedPool
from sgmft.nn.similarity import Guidance, gate_entropy


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


class EvidenceNetwork(Solved):
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
