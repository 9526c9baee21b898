"""The Baseline of SG-MFT's Table 2: word embeddings, an image's CNN feature, the classifier."""

from dataclasses import dataclass

from torch import Tensor, nn

from sgmft.models.baselines.word_embeddings import WordConfig, WordNetwork, word_method
from sgmft.models.layers import classifier
from sgmft.models.presets import Dropout


@dataclass(frozen=True)
class WordAverageConfig(WordConfig):
    """The shape of the network.

    Attributes:
        width: D.
        classifier_widths: the classifier's hidden widths; four make five layers.
    """

    dropout: Dropout = 0.1
    width: int = 256
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

    config: WordAverageConfig

    def __init__(self, config: WordAverageConfig) -> None:
        D, c = config.width, config
        super().__init__(c, ProjectedMean(c.embedding_width, D), D, D)
        self.dropout = nn.Identity()  # the classifier's own is between its layers
        self.classifier = classifier(D, c.classes, c.classifier_widths, c.dropout)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def fuse(self, text: Tensor, image: Tensor) -> Tensor:
        """The sum, (B, D)."""
        return text + image


METHOD = word_method(
    name="word-average",
    title="Baseline (word embeddings + CNN)",
    source="arXiv 2405.05760, Table 2",
    network=WordAverage,
    config=WordAverageConfig,
    note="The mean of learned word embeddings; EfficientNet-Lite0 and -Lite2 as the CNN.",
)
