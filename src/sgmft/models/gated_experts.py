"""Similarity-gated experts, the default method: evidence of text and image for each label, pooled.

Our own, after the idea of SG-MFT (arXiv 2405.05760) and not its network, which is
`sgmft.models.sgmft`. docs/method.md says what it keeps of the paper, what it leaves out, and why.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.random import RandomState as Rng

from sgmft.features.features import Batch
from sgmft.models import arrays
from sgmft.models.arrays import ArrayModule, Doubles, Floats, Labels, Weights, log_sigmoid
from sgmft.models.base import ClosedFormModel, Guidance, NetworkConfig, Output, divisor
from sgmft.models.experts import DenseExpert, Expert, NgramExpert, draw_folds, evidence, ngrams_of
from sgmft.models.logistic import log_frequencies
from sgmft.models.presets import NOT_NEGATIVE, Natural, Range

INITIAL_POWER = 0.3  # between a product of both modalities' probabilities, 0, and a mixture, 1
_POWER = Range("'learned' or at least 0", NOT_NEGATIVE.includes)


@dataclass(frozen=True)
class GatedExpertsConfig(NetworkConfig):
    """Settings."""

    gate: Literal["similarity", "constant"] = "similarity"  # "constant": the same for all posts
    # of the mean of both modalities; "learned", or a number: 0 is their weighted product, 1 their
    # mixture
    power: Annotated[float | Literal["learned"], _POWER] = "learned"
    # whether an expert on both modalities' features stands beside those on one, and one on the
    # encoder's feature of both together, where it has such
    joint: bool = True
    lexical: bool = True  # whether an expert on n-grams stands beside that on the text's features
    folds: Annotated[int, Range("at least 2", lambda x: x >= 2)] = 5  # of the cross-fitting
    vocabulary_size: Natural = 0  # n-grams; the training posts decide it


class GatedExperts(ClosedFormModel):
    """Experts on the text, the image and both; a gate between the modalities by their similarity.

    The pools above the experts are fitted to predictions for posts that the experts were not fitted
    to (cross-fitting). A post with one modality gets that one's prediction, a post with none the
    class frequencies of the training posts. To whatever it gets the evidence of its attributes is
    added, times a power, where there are such.
    """

    config: GatedExpertsConfig

    def __init__(self, config: GatedExpertsConfig) -> None:
        super().__init__(config)
        t, v, a = config.text_width, config.image_width, config.attributes_width
        classes = config.classes
        self.text, self.image = DenseExpert(t, classes), DenseExpert(v, classes)
        self.uses_ngrams = config.lexical
        self.lexical = NgramExpert(config.vocabulary_size, classes) if config.lexical else None
        self.joint = DenseExpert(t + v, classes) if config.joint else None
        together = config.joint_width if config.joint else 0
        self.together = DenseExpert(together, classes) if together else None
        self.text_pool = ProductPool(1 + config.lexical)
        self.image_pool = ProductPool(1)
        kind = config.gate == "similarity", config.joint, config.power, together > 0
        self.pool = SimilarityGatedPool(*kind)
        self.attributes = DenseExpert(a, classes) if a else None
        self.attribute_pool = ProductPool(1) if a else None
        self.prior: Any = np.zeros(classes, np.float32)  # (K,) log p(y)
        self.known: Any = np.zeros(2, bool)  # whether any training post had a text, an image

    def fit(self, batch: Batch, labels: Labels, rng: Rng, weights: Weights = None) -> Floats:
        """Fit experts and pools; see `ClosedFormModel.fit`."""
        fold = draw_folds(labels, self.config.folds, rng)
        weights = np.ones(len(labels)) if weights is None else weights
        self.prior = log_frequencies(labels, self.config.classes, weights).astype(np.float32)
        t, v = batch.has_text, batch.has_image
        self.known = np.array([t.any(), v.any()])
        both = t & v
        outputs = 3 + (self.together is not None)
        text, image, *joint = (np.tile(self.prior, (len(labels), 1)) for _ in range(outputs))

        def learn(expert: Expert, x: Any, has: Any, part: str) -> Floats:
            return expert.fit(x, labels[has], fold[has], weights[has], self.report(part))(x)

        def pooled(pool: ProductPool, held_out: list[Floats], has: Any) -> Any:
            known = [evidence(x, self.prior) for x in held_out]
            pool.fit(known, self.prior, labels[has], weights[has])
            return pool.forward(known, self.prior)

        if t.any():
            held_out = [learn(self.text, batch.text[t], t, "text")]
            if self.lexical is not None and (ngrams_of(batch)[t] < 0).all():  # no text is known
                self.config = replace(self.config, lexical=False)
                self.uses_ngrams, self.lexical, self.text_pool = False, None, ProductPool(1)
            if self.lexical is not None:
                held_out.append(learn(self.lexical, ngrams_of(batch)[t], t, "n-grams"))
                self.config = replace(self.config, vocabulary_size=len(self.lexical.vocabulary))
            text[t] = pooled(self.text_pool, held_out, t)
        if v.any():
            image[v] = pooled(self.image_pool, [learn(self.image, batch.image[v], v, "image")], v)
        for expert in filter(None, (self.joint, self.together)):
            expert.bias = self.prior.copy()  # no evidence, unless there are posts to learn from
        if self.together is not None and (has := batch.has_joint).any():
            joint[1][has] = learn(self.together, batch.joint[has], has, "together")
        if both.any():
            if self.joint is not None:
                x = np.concatenate([batch.text[both], batch.image[both]], -1)
                joint[0][both] = learn(self.joint, x, both, "both")
            known = [evidence(x[both], self.prior) for x in (text, image, *joint)]
            self.pool.fit(known, self.prior, labels[both], weights[both])
        whole = self._combine(batch, text, image, joint).logits
        by_parts = [np.broadcast_to(self.prior, text.shape), text, image, whole]
        if self.attributes is not None and self.attribute_pool is not None:
            by_folds = learn(self.attributes, batch.attributes, slice(None), "attributes")
            e_a = [evidence(by_folds, self.prior)]
            self.attribute_pool.fit(e_a, whole, labels, weights)
            by_parts = [self.attribute_pool.forward(e_a, part) for part in by_parts]
        return np.stack(by_parts)

    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K); `parts` has the gate P^m (B,)."""
        text, image, *joint = self._dense(batch.text, batch.image)  # (B, K) each
        experts, xp = [text], arrays.array_namespace(text)
        if self.together is not None:
            own = self.together.forward(batch.joint)
            joint.append(xp.where(batch.has_joint[:, None], own, self.prior))
        if self.lexical is not None:  # n-grams are arrays, and so what is read from them
            experts.append(xp.asarray(self.lexical.forward(ngrams_of(batch)), device=text.device))
        text = self.text_pool.forward([evidence(x, self.prior) for x in experts], self.prior)
        image = self.image_pool.forward([evidence(image, self.prior)], self.prior)
        output = self._combine(batch, text, image, joint)
        if self.attributes is None or self.attribute_pool is None:
            return output
        known = evidence(self.attributes.forward(batch.attributes), self.prior)
        logits = self.attribute_pool.forward([known], output.logits)
        return output._replace(logits=logits, fused=xp.concat([output.fused, known], axis=-1))

    def _dense(self, text: Any, image: Any) -> Sequence[Any]:
        """Log-probabilities (B, K) by the experts on text, image and both, read once for two."""
        xp = arrays.array_namespace(text)
        if self.joint is None:
            alone = self.text.forward(text)
            return alone, self.image.forward(image), xp.broadcast_to(self.prior, alone.shape)
        weight, both = self.joint.unscaled()
        shares = weight[:, : text.shape[-1]], weight[:, text.shape[-1] :]
        own = []
        for expert, x, share in zip((self.text, self.image), (text, image), shares, strict=True):
            weight, bias = expert.unscaled()
            logits = x @ xp.concat([weight, share]).T
            own.append(logits[:, : len(weight)] + bias)
            both = both + logits[:, len(weight) :]
        return [arrays.log_softmax(x) for x in (*own, both)]

    def _combine(self, batch: Batch, text: Any, image: Any, joint: Sequence[Any]) -> Output:
        """Pool the log-probabilities (B, K) of the modalities that a post has."""
        xp = arrays.array_namespace(text)
        known = [evidence(x, self.prior) for x in (text, image, *joint)]
        pooled, gate = self.pool.forward(known, self.prior)
        t = (batch.has_text & self.known[0])[:, None]
        v = (batch.has_image & self.known[1])[:, None]
        logits = xp.where(t & v, pooled, xp.where(t, text, xp.where(v, image, self.prior)))
        gate = xp.where((t & v)[:, 0], gate, xp.astype(t[:, 0], gate.dtype))
        given = zip((t, v, *[t & v] * len(joint)), known, strict=True)
        fused = xp.concat([xp.where(has, x, xp.zeros_like(x)) for has, x in given], axis=-1)
        parts = [-x * xp.log(xp.clip(x, min=1e-38)) for x in (gate, 1 - gate)]
        entropy = xp.clip((parts[0] + parts[1]) / math.log(2), min=0.0, max=1.0)
        guidance = Guidance(entropy, xp.full_like(entropy, math.nan))
        return Output(logits, fused, guidance, {"gate": gate})  # `fused` is (B, 3 K), or 4 K


class ProductPool(ArrayModule):
    """A product of experts, each to a power: log p = log p(y) + sum_k w_k e_k + constant.

    With powers of 1 this is Bayes' rule for experts that are independent given the label. The
    powers are positive. They start at 1 / experts, and a penalty of |log (experts w)|^2 / N keeps
    them there when posts are few (Genest & Zidek 1986, logarithmic opinion pool).
    """

    learned = ("log_weight",)

    def __init__(self, experts: int) -> None:
        self.log_weight: Any = np.full(experts, -math.log(experts), np.float32)

    def forward(self, experts: Sequence[Any], prior: Any) -> Any:
        """Evidence of each expert (B, K) and log p(y), (K,) or (B, K), to log-probabilities."""
        weight = arrays.array_namespace(self.log_weight).exp(self.log_weight)
        return arrays.log_softmax(prior + sum(w * x for w, x in zip(weight, experts, strict=True)))

    def fit(
        self, experts: Sequence[Floats], prior: Floats, labels: Labels, weights: Weights = None
    ) -> None:
        """Find the powers under which the labels (N,), by their weights (N,), are most likely."""

        def loss() -> tuple[float, dict[str, Any]]:
            logits = self.forward(experts, prior)
            weight, far = np.exp(self.log_weight), self.log_weight + math.log(len(experts))
            error = _error(logits, labels, weights)
            slope = [w * np.vdot(error, x) for w, x in zip(weight, experts, strict=True)]
            slopes = {"log_weight": np.array(slope) + 2 * far / len(labels)}
            value = arrays.cross_entropy(logits, labels, weights)
            return value + np.square(far).sum() / len(labels), slopes

        _minimise(self, loss)


def _error(logits: Floats, labels: Labels, weights: Weights) -> Floats:
    """The slope of the mean cross-entropy by the logits, (N, K)."""
    error = arrays.softmax(logits) - arrays.one_hot(labels, logits.shape[-1])
    share = 1 / len(labels) if weights is None else (weights / weights.sum())[:, None]
    return np.asarray(error * share)


class GatedPrediction(NamedTuple):
    """Prediction of a gated pool for B posts."""

    logits: Any  # (B, K)
    gate: Any  # (B,) P^m, the weight of the text; the image has the rest


class SimilarityGatedPool(ArrayModule):
    """A mean of two modalities, weighted by a gate that their similarities decide.

    With e_t, e_v and e_j the evidence of text, image and both together, and p = p(y) exp e:

        S^m = log [<p_t, p_t>, <p_v, p_v>, <p_t, p_v>]          how sure each modality is, and how
                                                               far the two agree (cf. eq. 1)
        P^m = sigmoid(b + u . S^m)                              cf. eq. 3
        m   = log(P^m exp(a e_t) + (1 - P^m) exp(a e_v)) / a    cf. eq. 6 to 13
        logits = log p(y) + 2 c m + w e_j + w' e_k              cf. eq. 17

    m is the mean of power a of both modalities: the weighted product for a = 0, where one can veto
    what the other is sure of, and the mixture for a = 1, where it cannot. S^m is standardised on
    the training posts. The pool starts with b = u = 0, a = 0.3, c = 1, w = 1/2. Without `guided`
    the gate is the same for all posts; without `joint` there is no e_j; `power` fixes a. With
    `together` there is e_k, of what an encoder makes of both.
    """

    learned = ("balance", "slopes", "log_power", "log_sharpness", "log_joint", "log_together")

    def __init__(
        self, guided: bool, joint: bool, power: float | str = "learned", together: bool = False
    ) -> None:
        self.power: Any = None if power == "learned" else power  # a
        self.mean: Any = np.zeros(3, np.float32)
        self.deviation: Any = np.ones(3, np.float32)
        self.balance: Any = np.zeros((), np.float32)  # b
        self.slopes: Any = np.zeros(3, np.float32) if guided else None  # u
        start = np.log(np.array(INITIAL_POWER, np.float32)) if self.power is None else None
        self.log_power: Any = start  # log a
        self.log_sharpness: Any = np.zeros((), np.float32)  # log c
        self.log_joint: Any = np.log(np.array(0.5, np.float32)) if joint else None  # log w
        self.log_together: Any = np.log(np.array(0.5, np.float32)) if together else None  # log w'

    def forward(self, experts: Sequence[Any], prior: Any) -> GatedPrediction:
        """Evidence e_t, e_v, .. (B, K) and log p(y) (K,) to logits (B, K) and P^m (B,)."""
        text, image, *others = experts
        xp = arrays.array_namespace(text)
        score = xp.broadcast_to(self._score(self._similar(text, image, prior)), text.shape[:1])
        logits = self._logits(self._mean(text, image, score[:, None]), others, prior)
        return GatedPrediction(logits, xp.exp(log_sigmoid(score)))

    def fit(self, experts: list[Any], prior: Any, labels: Labels, weights: Weights = None) -> None:
        """Find the parameters under which the labels (N,), by their weights, are most likely.

        A penalty of 3 |u|^2 / N, and of a third of that on the others' distance from where they
        start, keeps them there when posts are few.
        """
        text, image, *others = experts
        similarities = _similarities(text, image, prior)
        if len(labels) > 1:
            self.mean = similarities.mean(0)
            self.deviation = divisor(similarities.std(0, ddof=1)).astype(np.float32)
        start = {name: x for name, x in self.state_dict().items() if name in self.learned}
        similar = self._similar(text, image, prior)

        def loss() -> tuple[float, dict[str, Any]]:
            score = np.broadcast_to(self._score(similar), labels.shape[:1])[:, None]
            mean = self._mean(text, image, score)
            sharp = 2 * np.exp(self.log_sharpness)
            logits = self._logits(mean, others, prior)
            error = _error(logits, labels, weights)
            by_score, by_power = self._mean_slopes(text, image, score, mean)
            pull = sharp * (error * by_score).sum(1)  # (N,)
            slopes = {"balance": pull.sum(), "log_sharpness": sharp * np.vdot(error, mean)}
            if similar is not None:
                slopes["slopes"] = pull @ similar
            if self.log_power is not None:
                slopes["log_power"] = sharp * np.vdot(error, by_power)
            for name, x in zip(("log_joint", "log_together"), others, strict=False):
                if name in start:
                    slopes[name] = np.exp(getattr(self, name)) * np.vdot(error, x)
            value = arrays.cross_entropy(logits, labels, weights)
            for name, first in start.items():
                far = getattr(self, name) - first
                strength = (3 if name == "slopes" else 1) / len(labels)
                value += strength * float(np.square(far).sum())
                slopes[name] = slopes[name] + 2 * strength * far
            return value, slopes

        _minimise(self, loss)

    def _logits(self, mean: Any, others: Sequence[Any], prior: Any) -> Any:
        xp = arrays.array_namespace(mean)
        logits = prior + 2 * xp.exp(self.log_sharpness) * mean
        for log_weight, x in zip((self.log_joint, self.log_together), others, strict=False):
            logits = logits if log_weight is None else logits + xp.exp(log_weight) * x
        return logits

    def _similar(self, text: Any, image: Any, prior: Any) -> Any:
        """S^m, standardised, (B, 3); None where it decides nothing."""
        if self.slopes is None:
            return None
        return (_similarities(text, image, prior) - self.mean) / self.deviation

    def _score(self, similar: Any) -> Any:
        """The gate's logit (B,), or one for all posts."""
        return self.balance if similar is None else self.balance + similar @ self.slopes

    def _mean(self, text: Any, image: Any, score: Any) -> Any:
        """m, (B, K)."""
        xp = arrays.array_namespace(text)
        if self.power == 0:
            return xp.exp(log_sigmoid(score)) * text + xp.exp(log_sigmoid(-score)) * image
        power = self.power if self.log_power is None else xp.exp(self.log_power)
        parts = log_sigmoid(score) + power * text, log_sigmoid(-score) + power * image
        return xp.logaddexp(*parts) / power

    def _mean_slopes(self, text: Any, image: Any, score: Any, mean: Any) -> tuple[Any, Any]:
        """Slopes of m (B, K) by the gate's logit and by log a."""
        of_text, of_image = np.exp(log_sigmoid(score)), np.exp(log_sigmoid(-score))
        if self.power == 0:
            return of_text * of_image * (text - image), 0.0
        power = self.power if self.log_power is None else np.exp(self.log_power)
        share = np.exp(log_sigmoid(score + power * (text - image)))  # of the text in m
        by_score = (share * of_image - (1 - share) * of_text) / power
        return by_score, share * text + (1 - share) * image - mean


def _similarities(text: Any, image: Any, prior: Any) -> Any:
    """S^m, (B, 3)."""
    pairs = ((text, text), (image, image), (text, image))
    rows = [arrays.logsumexp(2 * prior + a + b) for a, b in pairs]
    return arrays.array_namespace(text).concat(rows, axis=-1)


def _minimise(part: ArrayModule, loss: Callable[[], tuple[float, dict[str, Any]]]) -> None:
    """Set what a part has `learned` to where a smooth loss, which returns its slopes, is least."""
    from scipy.optimize import minimize

    start = {name: x for name, x in part.state_dict().items() if name in part.learned}

    ends = np.cumsum([x.size for x in start.values()])

    def load(point: Doubles, dtype: type) -> None:
        for (name, x), values in zip(start.items(), np.split(point, ends[:-1]), strict=True):
            setattr(part, name, np.asarray(values.reshape(x.shape), dtype))

    def value_and_slope(point: Doubles) -> tuple[float, Doubles]:
        load(point, np.float64)
        value, slopes = loss()
        return value, np.concatenate([np.ravel(slopes[name]) for name in start])

    first = np.concatenate([np.ravel(x) for x in start.values()]).astype(np.float64)
    found = minimize(value_and_slope, first, method="BFGS", jac=True, options={"gtol": 1e-6})
    load(found.x, np.float32)
