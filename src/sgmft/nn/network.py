"""What every network has in common, SG-MFT and the systems compared with it: features to logits."""

from __future__ import annotations

import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from sgmft.errors import SgmftError
from sgmft.nn.batch import Batch
from sgmft.nn.inputs import ModalityInput, Scale, Vectors
from sgmft.nn.share import Criterion
from sgmft.nn.similarity import Guidance


@dataclass(frozen=True)
class NetworkConfig:
    """What decides the shape of any network.

    Attributes:
        classes: K, the number of labels.
        text_width, image_width: Dt and Dv, what the encoder gives.
        shared_space: whether the encoder's towers share one space.
        word_width: Dw, of one word's features; 0 for the same as `text_width`.

    Raises:
        SgmftError: a whole number below 1 (or what `_least` says), a choice that is not there, or
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
            if kind is int and value < self._least(name):
                raise SgmftError(f"{name} must be at least {self._least(name)}, not {value}.")
            if typing.get_origin(kind) is typing.Literal and value not in choices:
                raise SgmftError(f"{name}={value!r} is not known: use {' or '.join(choices)}.")
            if name == "dropout" and not 0 <= value < 1:
                raise SgmftError(f"dropout must be at least 0 and below 1, not {value}.")

    def _least(self, name: str) -> int:
        """The least value of a field that is a whole number."""
        return 1

    def _require(self, name: str, expected: str = "positive") -> None:
        """Raise SgmftError unless a number is finite and positive, or 0 with "0 or more"."""
        value = getattr(self, name)
        zero = value == 0 and expected == "0 or more"
        if isinstance(value, str) or not (0 < value < math.inf or zero):
            raise SgmftError(f"{name} must be {expected}, not {value}.")


class Output(NamedTuple):
    """What a network says of B posts."""

    logits: Tensor  # (B, K)
    fused: Tensor  # (B, D) the representation behind them, which the figures show
    guidance: Guidance | None = None  # None where the network has no similarity guidance
    parts: Mapping[str, Tensor] | None = None  # what the network's own objective needs besides


class TokenInputs(NamedTuple):
    """Word and region features in the network's width, with null tokens for missing sides."""

    text: Tensor  # (B, n, D)
    image: Tensor  # (B, m, D)
    text_mask: Tensor  # (B, n) True where real; at least one in each row
    image_mask: Tensor  # (B, m)


class Network(nn.Module, ABC):
    """A network that `sgmft.training` can train, and `sgmft.saving` can save.

    A subclass sets `config`.
    """

    config: NetworkConfig
    reads_ngrams: bool = False  # whether its batches must have them

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
        """Take what must be known before training from the training features.

        Args:
            text: pooled features of the texts there are (N, Dt).
            image: pooled features of the posts that have pictures (M, Dv).
            words, regions: all their tokens, (., Dw) and (., Dv), float16 as they are kept; None
                without token features. None of the four need fit into memory; see `Vectors`.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Features of B posts to logits (B, K)."""

    def loss(self, output: Output, labels: Tensor, criterion: Criterion) -> Tensor:
        """What training minimises, a scalar; `criterion` is the cross-entropy of equation 19.

        With several processes, output and labels are those of this one's posts. The criterion is
        of all processes' posts; whatever else compares posts asks `criterion.whole` for them.
        """
        return criterion(output.logits, labels)

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The weights that are trained, by learning rate, as torch's optimizers take them."""
        return [{"params": [x for x in self.parameters() if x.requires_grad], "lr": learning_rate}]


class Solved(Network):
    """A network without epochs: its weights are the solution of a convex problem, or are given.

    Attributes:
        held_out: what `solve` returned, after training.
    """

    held_out: Tensor | None = None

    @abstractmethod
    def solve(self, batch: Batch, labels: Tensor) -> Tensor | None:
        """Set the weights from all training posts at once; labels (N,).

        Returns:
            Logits (N, K) of each post from weights found without it, where there are such.
        """


class TwoSided(Network):
    """A network both of whose sides come in through a `ModalityInput` of width D.

    Args:
        config: its `text_width` is the pooled texts' and its `word_width` the words'.
        width: D.
        scale, projected: see `ModalityInput`.
        tokens: whether word and region features come in, for `token_inputs`.
        pictures: of one post, told apart.
        pooled: whether pooled features come in, for `pooled_inputs`.
    """

    text: ModalityInput
    image: ModalityInput

    def __init__(
        self,
        config: NetworkConfig,
        width: int,
        *,
        scale: Scale = "standard",
        tokens: bool = False,
        projected: bool = True,
        pictures: int = 16,
        pooled: bool = True,
    ) -> None:
        super().__init__(config)
        c, common = config, (width, projected, scale, tokens)
        self.text = ModalityInput(c.text_width, *common, token_source=c.word_width, pooled=pooled)
        self.image = ModalityInput(c.image_width, *common, pictures, pooled=pooled)

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
        """Word and region features.

        Raises:
            SgmftError: the batch holds pooled features only.
        """
        if (
            batch.text_tokens is None
            or batch.text_mask is None
            or batch.image_tokens is None
            or batch.image_mask is None
        ):
            raise SgmftError(
                "This model works on token features (words and regions), and these features hold "
                "pooled ones only: encode the posts again with tokens."
            )
        text, text_mask = self.text.tokens(batch.text_tokens, batch.text_mask, batch.has_text)
        image, image_mask = self.image.tokens(
            batch.image_tokens, batch.image_mask, batch.has_image, batch.image_index
        )
        return TokenInputs(text, image, text_mask, image_mask)
