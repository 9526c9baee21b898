"""Base classes of all networks, which map features of posts to logits, and their inputs."""

import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.similarity import Guidance
from sgmft.utils.distributed_loss import BatchCrossEntropy

Scale = Literal["none", "unit", "standard"]


class Vectors(Protocol):
    """N vectors (N, D): a tensor, or what is read part by part since it may not fit into memory."""

    def __len__(self) -> int: ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """The vectors in order, `size` at a time."""
        ...


class BatchSource(Protocol):
    """N posts of which batches are cut: `Features`, or raw posts that an encoder in training reads.

    Networks are trained and run on either.
    """

    def __len__(self) -> int: ...

    def take(self, rows: Tensor, /) -> Self:
        """The posts at these positions, in that order."""
        ...

    def batch(self, rows: Tensor | slice | None, /, ngrams: bool = False) -> Any:
        """The posts at these positions (B,), or all, as a batch; on request with their n-grams."""
        ...

    def contents(self) -> Iterator[Tensor]:
        """Yield, part by part, all numbers that tell these posts from others."""
        ...


def divisor(deviation: Tensor) -> Tensor:
    """The deviation to divide features by, or 1 where they are constant.

    Divided by next to nothing, the rounding of a constant would become a feature itself.
    """
    return deviation.masked_fill(deviation <= 1e-4, 1.0)


class Normalizer(nn.Module):
    """Feature scale: as the encoder gives it, unit length, or standardised on the training set."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, kind: Scale) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def fit(self, x: Vectors) -> None:
        """Take mean and standard deviation from real training features (N, width).

        In float64 and part by part: all regions of many posts would not fit into memory as floats.
        """
        if self.kind == "standard" and len(x) > 1:
            total, squares = self.mean.new_zeros(2, self.mean.numel()).double()
            for part in x.split(8192):
                total += part.double().sum(0)
            mean = total / len(x)
            for part in x.split(8192):
                squares += (part.double() - mean).square_().sum(0)
            deviation = (squares / (len(x) - 1)).sqrt()
            self.mean.copy_(mean)
            self.deviation.copy_(divisor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, rescaled over the last axis."""
        if self.kind == "unit":
            return nn.functional.normalize(x, dim=-1)
        if self.kind == "standard":
            return (x - self.mean) / self.deviation
        return x


class ModalityInput(nn.Module):
    """One modality's way in.

    One learned, unmasked null token stands in for a missing modality, and the same vector for its
    pooled feature; masking every key would make a softmax undefined. Pooled and token features of
    one width are taken to D by one linear map; of two widths, by one map each.

    Args:
        source: the encoder's width of pooled features.
        width: the model's D.
        projected: whether a learned linear map takes source to D (needed where the widths differ
            or the encoder's two towers share no space).
        scale: see `Normalizer`.
        tokens: whether token features come in too.
        max_images: images of one post that have an index of their own; 0 for the text.
        token_source: the encoder's width of one token; 0 for the same as `source`.
        pooled: whether pooled features come in; a map of their own is not made for nothing.
    """

    def __init__(
        self,
        source: int,
        width: int,
        projected: bool,
        scale: Scale,
        tokens: bool,
        max_images: int = 0,
        token_source: int = 0,
        pooled: bool = True,
    ) -> None:
        super().__init__()
        token_source = token_source or source
        separate = tokens and token_source != source
        self.pooled_scale = Normalizer(source, scale)
        self.token_scale = Normalizer(token_source, scale) if tokens else None
        self.reads_pooled = pooled
        used = projected and (pooled or not separate)
        self.project = nn.Linear(source, width) if used else nn.Identity()
        self.project_tokens = nn.Linear(token_source, width) if separate else None
        self.null = nn.Parameter(torch.randn(width) * width**-0.5)
        self.index = nn.Embedding(max_images, width) if max_images and tokens else None
        if self.index is not None:
            nn.init.zeros_(self.index.weight)

    def fit(self, pooled: Vectors, tokens: Vectors | None) -> None:
        """Take the scales from training features (N, source) and tokens (M, token_source)."""
        self.pooled_scale.fit(pooled)
        if self.token_scale is not None and tokens is not None:
            self.token_scale.fit(tokens)

    def pooled(self, x: Tensor, present: Tensor) -> Tensor:
        """(B, source) -> (B, D), the null vector where absent."""
        if not self.reads_pooled:
            raise ValueError("this model was built without pooled features")
        return torch.where(present[:, None], self.project(self.pooled_scale(x)), self.null)

    def tokens(
        self, x: Tensor | None, mask: Tensor | None, present: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, n, token_source), mask -> (B, n, D), mask, the null token first where absent."""
        if self.token_scale is None:
            raise ValueError("this model was built without token features")
        if x is None or mask is None:
            raise SgmftError(
                "This model works on token features (words and regions), and these features hold "
                "pooled ones only: encode the posts again with tokens."
            )
        project = self.project if self.project_tokens is None else self.project_tokens
        tokens = project(self.token_scale(x))
        if self.index is not None and index is not None:
            tokens = tokens + self.index(index.clamp(max=self.index.num_embeddings - 1))
        mask = mask & present[:, None]
        first = torch.zeros_like(mask)
        first[:, 0] = ~mask.any(1)
        tokens = torch.where(first[..., None], self.null, tokens)
        return tokens * (mask | first)[..., None], mask | first


@dataclass(frozen=True)
class NetworkConfig:
    """Settings that every network has.

    Attributes:
        classes: K, the number of labels.
        text_width, image_width: Dt and Dv, what the encoder gives.
        shared_space: whether the encoder's towers share one space.
        word_width: Dw, of one word's features; 0 for the same as `text_width`.

    Raises:
        SgmftError: a whole number below 1 (or below `_minimum`), a choice that is not there, or
            dropout outside 0..1, in these fields and in those of a subclass.
    """

    classes: int
    text_width: int
    image_width: int
    shared_space: bool = False
    word_width: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "word_width", self.word_width or self.text_width)
        for name, kind in typing.get_type_hints(type(self)).items():
            value, choices = getattr(self, name), typing.get_args(kind)
            if kind is int and value < self._minimum(name):
                raise SgmftError(f"{name} must be at least {self._minimum(name)}, not {value}.")
            if typing.get_origin(kind) is typing.Literal and value not in choices:
                raise SgmftError(f"{name}={value!r} is not known: use {' or '.join(choices)}.")
            if typing.get_origin(kind) is tuple:  # of whole numbers, a list in a saved config
                object.__setattr__(self, name, tuple(value))
                if min(value, default=1) < 1:
                    raise SgmftError(f"{name} must be at least 1, not {list(value)}.")
            if name == "dropout" and not 0 <= value < 1:
                raise SgmftError(f"dropout must be at least 0 and below 1, not {value}.")

    def _minimum(self, name: str) -> int:
        """The smallest value allowed for a field that is a whole number."""
        return 1

    def _require(self, name: str, expected: str = "positive") -> None:
        """Raise SgmftError unless a number is finite and positive, or 0 with "0 or more"."""
        value = getattr(self, name)
        zero = value == 0 and expected == "0 or more"
        if isinstance(value, str) or not (0 < value < math.inf or zero):
            raise SgmftError(f"{name} must be {expected}, not {value}.")


class Output(NamedTuple):
    """Output of a network for B posts."""

    logits: Tensor  # (B, K)
    fused: Tensor  # (B, D) the representation behind them, which figures of a comparison show
    guidance: Guidance | None = None  # None where the network has no similarity guidance
    parts: Mapping[str, Tensor] | None = None  # further tensors for the network's own objective


class TokenInputs(NamedTuple):
    """Word and region features in the network's width, with null tokens for missing modalities."""

    text: Tensor  # (B, n, D)
    image: Tensor  # (B, m, D)
    text_mask: Tensor  # (B, n) True where real; at least one in each row
    image_mask: Tensor  # (B, m)


class Network(nn.Module, ABC):
    """A network that `sgmft.training.trainer` can train, and `sgmft.locator.locator` can save.

    A subclass sets `config`.
    """

    config: NetworkConfig
    uses_ngrams: bool = False  # whether its batches must have n-grams

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def measure(cls, words: Vectors | None) -> dict[str, int]:
        """Fields of the config that the training posts decide, from their word features (., Dw)."""
        return {}

    def prepare(
        self, text: Vectors, image: Vectors, words: Vectors | None, regions: Vectors | None
    ) -> None:
        """Take scales, vocabulary and the like from the training features.

        Args:
            text: pooled features of the texts there are (N, Dt).
            image: pooled features of the posts that have images (M, Dv).
            words, regions: all their tokens, (., Dw) and (., Dv), float16 as they are kept; None
                without token features. None of the four need fit into memory; see `Vectors`.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""

    def loss(self, output: Output, labels: Tensor, criterion: BatchCrossEntropy) -> Tensor:
        """The scalar that training minimises; `criterion` is the cross-entropy of equation 19.

        With several processes, output and labels are those of this one's posts. The criterion is
        of all processes' posts; whatever else compares posts gets them by `criterion.gather`.
        """
        return criterion(output.logits, labels)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The weights that are trained, by learning rate, as torch's optimizers take them."""
        return [{"params": [x for x in self.parameters() if x.requires_grad], "lr": learning_rate}]


class SolveStep(NamedTuple):
    """How far one part of a network in closed form is solved."""

    part: str  # as a user reads it, "text" for instance
    done: int  # penalties tried; 0 at its start
    total: int  # reached at its end, also where the last penalties need not be tried


class ClosedFormNetwork(Network):
    """A network without epochs: its weights are the solution of a convex problem, or are given."""

    held_out: Tensor | None = None  # logits that `solve` returned, after training
    on_step: Callable[[SolveStep], None] | None = None  # called while `solve` is at work

    @abstractmethod
    def solve(self, batch: Batch, labels: Tensor) -> Tensor | None:
        """Set the weights from all training posts at once; labels (N,).

        Returns:
            Logits (N, K) of each post from weights found without it, where there are such.
        """

    def report(self, part: str) -> Callable[[int, int], None]:
        """Return what `solve` calls with the penalties of a part that are done, and all of them."""

        def report(done: int, total: int) -> None:
            if self.on_step is not None:
                self.on_step(SolveStep(part, done, total))

        return report


class BimodalNetwork(Network):
    """A network whose two modalities come in through a `ModalityInput` of width D each.

    Args:
        config: its `text_width` is the pooled texts' and its `word_width` the words'.
        width: D.
        scale, projected: see `ModalityInput`.
        tokens: whether word and region features come in, for `token_inputs`.
        max_images: see `ModalityInput`.
        pooled: whether pooled features come in, for `pooled_inputs`.
    """

    def __init__(
        self,
        config: NetworkConfig,
        width: int,
        *,
        scale: Scale = "standard",
        tokens: bool = False,
        projected: bool = True,
        max_images: int = 16,
        pooled: bool = True,
    ) -> None:
        super().__init__(config)
        c, common = config, (width, projected, scale, tokens)
        self.text = ModalityInput(c.text_width, *common, token_source=c.word_width, pooled=pooled)
        self.image = ModalityInput(c.image_width, *common, max_images, pooled=pooled)

    def prepare(
        self, text: Vectors, image: Vectors, words: Vectors | None, regions: Vectors | None
    ) -> None:
        """Take the feature scales; see `Network.prepare`."""
        self.text.fit(text, words)
        self.image.fit(image, regions)

    def pooled_inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pooled features of text and image, each (B, D)."""
        return (
            self.text.pooled(batch.text, batch.has_text),
            self.image.pooled(batch.image, batch.has_image),
        )

    def token_inputs(self, batch: Batch) -> TokenInputs:
        """Word and region features; SgmftError of a batch that holds pooled features only."""
        text, text_mask = self.text.tokens(batch.text_tokens, batch.text_mask, batch.has_text)
        image, image_mask = self.image.tokens(
            batch.image_tokens, batch.image_mask, batch.has_image, batch.image_index
        )
        return TokenInputs(text, image, text_mask, image_mask)
