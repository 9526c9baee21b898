"""Word embeddings learned with the rest of a network, from the words the encoder `cnn` numbers."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.features.encoders.word_hashes import WORD_WIDTH
from sgmft.models.base import NetworkConfig, Output, Tokens, Vectors
from sgmft.models.layers import lookup
from sgmft.models.method import BUDGET, Method
from sgmft.models.network import ModalityInput, Network, Scale
from sgmft.models.presets import Dropout, Preset

_RATE = replace(BUDGET, learning_rate=1e-3)  # embeddings, which start from nothing, need more
_PRESETS = {"default": Preset("default", {}, _RATE, 0.1, refit=True)}
word_method = partial(Method, tokens=True, encoder="cnn", presets=_PRESETS)

NO_WORD = -1  # fills a vocabulary before it is known: no word has this number


@dataclass(frozen=True)
class WordConfig(NetworkConfig):
    """Settings of all networks with learned word embeddings.

    Attributes:
        vocabulary_size: V, different words; the training posts decide it.
        embedding_width: E, numbers in one word's embedding.
        dropout: share of the classifier's inputs dropped in training.
        scale: of the image features; "unit" by default, since 1280 standardised numbers are
            learned, and overfitted, in an epoch or two, before any word embedding is.
    """

    vocabulary_size: int = 1
    embedding_width: int = 128
    dropout: Dropout = 0.5
    scale: Scale = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_width != WORD_WIDTH:
            raise SgmftError(
                f"Word embeddings are learned from words of {WORD_WIDTH} numbers, and this "
                f"encoder gives {self.text_width}: use the encoder cnn."
            )


def word_ids(words: Tensor) -> Tensor:
    """Word features (..., 3), bytes as floats, to the numbers (...) in 0..2^24 they stand for."""
    first, second, third = words.round().long().clamp(0, 255).unbind(-1)
    return (first * 256 + second) * 256 + third


def vocabulary(words: Vectors | None) -> Tensor:
    """The numbers (V,), ascending, of the different words among words (M, 3); none of None."""
    parts = () if words is None else words.split(1 << 20)
    different = [torch.unique(word_ids(torch.from_numpy(part))) for part in parts]
    return torch.unique(torch.cat([torch.empty(0, dtype=torch.long), *different]))


class WordEmbeddings(nn.Module):
    """Word features to learned embeddings.

    Words outside the vocabulary of `size` V share one, <unk>. No training post has such a word, so
    that it stays what it starts as, zero: a word that no training post has counts for nothing.
    """

    vocabulary: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vocabulary", torch.full((size,), NO_WORD))  # (V,) ascending
        self.embedding = nn.Embedding(size + 1, width)  # the last one is <unk>
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.zeros_(self.embedding.weight[-1])

    def fit(self, words: Vectors) -> None:
        """Take the vocabulary from the words of the training posts (M, 3)."""
        found = vocabulary(words)
        if max(1, len(found)) != len(self.vocabulary):
            raise ValueError(f"built for {len(self.vocabulary)} words, not for {len(found)}")
        if len(found):
            self.vocabulary.copy_(found)

    def rows(self, words: Tensor) -> Tensor:
        """Which embedding each word (..., 3) has: its place in the vocabulary, or V."""
        place, known = lookup(self.vocabulary, word_ids(words))
        return torch.where(known, place, len(self.vocabulary))

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """(B, n, 3) and its mask (B, n) -> (B, n, E), zeros where no word is."""
        return self.embedding(self.rows(words)) * mask[..., None]


class WordInput(nn.Module):
    """The text's input: V embeddings of width E, a module that pools them, a vector for no text.

    It pools embeddings (B, n, E), zeros at padding, under their mask (B, n) to (B, D).
    """

    def __init__(self, size: int, width: int, pool: nn.Module, pooled_width: int) -> None:
        super().__init__()
        self.embeddings = WordEmbeddings(size, width)
        self.pool = pool
        self.null = nn.Parameter(torch.randn(pooled_width) * pooled_width**-0.5)

    def forward(self, batch: Batch) -> Tensor:
        """The texts of B posts, (B, D); SgmftError where the batch holds pooled features only."""
        if batch.text_tokens is None or batch.text_mask is None:
            raise SgmftError(
                "This model learns word embeddings, and these features hold no words: encode the "
                "posts again with tokens."
            )
        mask = batch.text_mask & batch.has_text[:, None]
        pooled = self.pool(self.embeddings(batch.text_tokens, mask), mask)
        return torch.where(mask.any(1)[:, None], pooled, self.null)


class WordNetwork(Network):
    """A network of learned word embeddings and a pooled feature of the images.

    A subclass fuses the two, and makes `classifier`. `text_width` and `image_width` are of what is
    fused; None for images as they are.
    """

    config: WordConfig
    classifier: nn.Module

    def __init__(
        self, config: WordConfig, pool: nn.Module, text_width: int, image_width: int | None
    ) -> None:
        super().__init__(config)
        c, width = config, image_width or config.image_width
        self.text = WordInput(c.vocabulary_size, c.embedding_width, pool, text_width)
        self.image = ModalityInput(c.image_width, width, image_width is not None, c.scale, False)
        self.dropout: nn.Module = nn.Dropout(c.dropout)

    @abstractmethod
    def fuse(self, text: Tensor, image: Tensor) -> Tensor:
        """Text (B, Dt) and image (B, Dv) to what is classified, (B, D)."""

    def forward(self, batch: Batch) -> Output:
        """Word features and pooled image features of B posts to logits (B, K)."""
        image = self.image.pooled(batch.image, batch.has_image)
        fused = self.fuse(self.text(batch), image)
        return Output(self.classifier(self.dropout(fused)), fused)

    @classmethod
    def measure(cls, words: Vectors | None) -> dict[str, int]:
        """How many words the vocabulary holds; at least 1, which is no word without any text."""
        return {"vocabulary_size": max(1, len(vocabulary(words)))}

    def prepare(self, text: Vectors, image: Vectors, words: Tokens, regions: Tokens) -> None:
        """Take the scale of the image features, and the vocabulary from all words (M, 3)."""
        self.image.fit(image, regions)
        if words is not None:
            self.text.embeddings.fit(words)
