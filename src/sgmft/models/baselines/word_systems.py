"""Systems on learned embeddings of the words that the encoder `cnn` numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encoders.text_encoders import HASH_WIDTH
from sgmft.features.features import Batch
from sgmft.features.ragged import Ragged
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.network import ModalityInput, Network, Scale, Tokens, classifier, lookup
from sgmft.models.presets import Dropout

NO_WORD = -1  # fills a vocabulary before it is known: no word has this number


@dataclass(frozen=True)
class WordConfig(NetworkConfig):
    """Settings of all networks with learned word embeddings."""

    vocabulary_size: int = 1  # V, different words; the training posts decide it
    embedding_width: int = 128  # E, numbers in one word's embedding
    dropout: Dropout = 0.5  # share of the classifier's inputs dropped in training
    # of the image features; "unit" by default, since 1280 standardised numbers are learned, and
    # overfitted, in an epoch or two, before any word embedding is
    scale: Scale = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_width != HASH_WIDTH:
            raise SgmftError(TEXTS["no word hashes"], own=HASH_WIDTH, width=self.text_width)


def word_ids(words: Tensor) -> Tensor:
    """Word features (..., 3), bytes as floats, to the numbers (...) in 0..2^24 they stand for."""
    first, second, third = words.round().long().clamp(0, 255).unbind(-1)
    return (first * 256 + second) * 256 + third


def vocabulary(words: Ragged | None) -> Tensor:
    """The numbers (V,), ascending, of the different words among words (M, 3); none of None."""
    parts = () if words is None else words.split(1 << 20)
    different = [torch.unique(word_ids(torch.from_numpy(part))) for part in parts]
    return torch.unique(torch.cat([torch.empty(0, dtype=torch.long), *different]))


class WordEmbeddings(nn.Module):
    """Word features to learned embeddings; words outside the vocabulary share one, zero."""

    vocabulary: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vocabulary", torch.full((size,), NO_WORD))  # (V,) ascending
        self.embedding = nn.Embedding(size + 1, width)  # the last one is <unk>
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.zeros_(self.embedding.weight[-1])

    def fit(self, words: Ragged) -> None:
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
    """A text's embeddings (B, n, E), pooled under its mask to (B, D); a vector for no text."""

    def __init__(self, size: int, width: int, pool: nn.Module, pooled_width: int) -> None:
        super().__init__()
        self.embeddings = WordEmbeddings(size, width)
        self.pool = pool
        self.null = nn.Parameter(torch.randn(pooled_width) * pooled_width**-0.5)

    def forward(self, batch: Batch) -> Tensor:
        """The texts of B posts, (B, D); SgmftError where the batch holds pooled features only."""
        if batch.text_tokens is None or batch.text_mask is None:
            raise SgmftError(TEXTS["no word features"])
        mask = batch.text_mask & batch.has_text[:, None]
        pooled = self.pool(self.embeddings(batch.text_tokens, mask), mask)
        return torch.where(mask.any(1)[:, None], pooled, self.null)


class WordNetwork(Network):
    """A network of learned word embeddings and a pooled feature of the images.

    A subclass makes `fusion`, of both at these widths (None: images as they are) and perhaps the
    attributes to what is classified, (B, D), and `classifier`.
    """

    config: WordConfig
    classifier: nn.Module
    fusion: Callable[..., Tensor]

    def __init__(self, config: WordConfig, pool: nn.Module, text: int, image: int | None) -> None:
        super().__init__(config)
        c, width = config, image or config.image_width
        self.text = WordInput(c.vocabulary_size, c.embedding_width, pool, text)
        self.image = ModalityInput(c.image_width, width, image is not None, c.scale, False)
        self.dropout: nn.Module = nn.Dropout(c.dropout)

    def forward(self, batch: Batch) -> Output:
        """Word features and pooled image features of B posts to logits (B, K)."""
        image = self.image.pooled(batch.image, batch.has_image)
        attributes = [batch.attributes] if self.config.attributes_width else []
        fused = self.fusion(self.text(batch), image, *attributes)
        return Output(self.classifier(self.dropout(fused)), fused)

    @classmethod
    def measure(cls, words: Ragged | None) -> dict[str, int]:
        """How many words the vocabulary holds; at least 1, which is no word without any text."""
        return {"vocabulary_size": max(1, len(vocabulary(words)))}

    def prepare(self, text: Ragged, image: Ragged, words: Tokens, regions: Tokens) -> None:
        """Take the scale of the image features, and the vocabulary from all words (M, 3)."""
        self.image.fit(image, regions)
        if words is not None:
            self.text.embeddings.fit(words)


@dataclass(frozen=True)
class TextCNNConfig(WordConfig):
    """The shape of a network with a TextCNN."""

    windows: tuple[int, ...] = (3, 4, 5)  # words in one window, one convolution each
    filters: int = 128  # of each convolution

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.windows:
            raise SgmftError("windows must be one or more numbers of words, not none.")

    @property
    def text_features(self) -> int:
        """Width of a text's vector."""
        return len(self.windows) * self.filters


class TextCNN(nn.Module):
    """Convolutions over embeddings of width E within a text, ReLU, maximum over it (Kim 2014)."""

    def __init__(self, width: int, windows: Sequence[int], filters: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, k) for k in windows)
        self.windows = tuple(windows)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, n, E), zeros at padding, and mask (B, n) -> (B, windows x filters)."""
        length = mask.sum(1, keepdim=True)  # (B, 1)
        lacking = max(0, max(self.windows) - words.shape[1])
        x = nn.functional.pad(words, (0, 0, 0, lacking)).transpose(1, 2)  # (B, E, n)
        found = []
        for window, convolution in zip(self.windows, self.convolutions, strict=True):
            y = convolution(x)  # (B, filters, n - window + 1)
            start = torch.arange(y.shape[2], device=y.device)
            inside = start <= (length - window).clamp(min=0)  # (B, n - window + 1)
            found.append(y.masked_fill(~inside[:, None], -torch.inf).amax(2).relu())
        return torch.cat(found, 1)


class FeatureLevelCNN(WordNetwork):
    """Both features side by side, the image's projected to the text's width; a linear layer."""

    def __init__(self, config: TextCNNConfig) -> None:
        D, c = config.text_features, config
        super().__init__(c, TextCNN(c.embedding_width, c.windows, c.filters), D, D)
        self.fusion = lambda *sides: torch.cat(sides, 1)  # (B, 2 D)
        self.classifier = nn.Linear(2 * D, c.classes)


@dataclass(frozen=True)
class LowRankConfig(TextCNNConfig):
    """The shape of the network."""

    rank: int = 4  # R, products that are summed
    width: int = 256  # D, of the fused feature (ours)


class LowRankFusion(nn.Module):
    """h = sum over r of (W_t^r [t; 1]) * (W_v^r [v; 1]) * (W_a^r [a; 1]), the last if there are a.

    The bias is the last column of W. Weights start such that inputs of unit variance give a sum of
    unit variance, of which all products of modalities have equal shares. `width` is D, `rank` R.
    """

    def __init__(
        self, text_width: int, image_width: int, width: int, rank: int, attributes_width: int = 0
    ) -> None:
        super().__init__()
        self.rank = rank
        self.text, self.image = (nn.Linear(x, rank * width) for x in (text_width, image_width))
        factors = [self.text, self.image]
        if attributes_width:
            self.attributes = nn.Linear(attributes_width, rank * width)
            factors.append(self.attributes)
        for linear in factors:
            variance = 0.5 * rank ** (-1 / len(factors))
            nn.init.normal_(linear.weight, std=(variance / linear.in_features) ** 0.5)
            nn.init.normal_(linear.bias, std=variance**0.5)

    def forward(self, text: Tensor, image: Tensor, *attributes: Tensor) -> Tensor:
        """t (B, Dt), v (B, Dv) and perhaps a (B, A) -> h (B, D)."""
        factors = self.text(text) * self.image(image)  # (B, R D)
        for a in attributes:
            factors = factors * self.attributes(a)
        return factors.unflatten(1, (self.rank, -1)).sum(1)


class LowRank(WordNetwork):
    """TextCNN, the image feature and attributes, fused by products; dropout, one linear layer."""

    def __init__(self, config: LowRankConfig) -> None:
        c = config
        super().__init__(c, TextCNN(c.embedding_width, c.windows, c.filters), c.text_features, None)
        widths = c.text_features, c.image_width, c.width
        self.fusion = LowRankFusion(*widths, c.rank, c.attributes_width)
        self.classifier = nn.Linear(c.width, c.classes)


@dataclass(frozen=True)
class WordAverageConfig(WordConfig):
    """The shape of the network."""

    dropout: Dropout = 0.1
    width: int = 256  # D
    # the classifier's hidden widths; four make five layers
    classifier_widths: tuple[int, ...] = (512, 256, 128, 64)


class ProjectedMean(nn.Module):
    """The mean of a text's word embeddings, of width E, mapped to D."""

    def __init__(self, width: int, pooled_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, pooled_width)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (B, n, E), zeros at padding, and their mask (B, n) -> (B, D)."""
        return self.project(words.sum(1) / mask.sum(1, keepdim=True).clamp(min=1))


class WordAverage(WordNetwork):
    """The sum of both modalities, as in Table 2's other rows, and SG-MFT's classifier (eq. 18)."""

    def __init__(self, config: WordAverageConfig) -> None:
        D, c = config.width, config
        super().__init__(c, ProjectedMean(c.embedding_width, D), D, D)
        self.fusion = torch.add
        self.dropout = nn.Identity()  # the classifier's own is between its layers
        self.classifier = classifier(D, c.classes, c.classifier_widths, c.dropout)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
