"""Low-rank fusion (Wang et al. 2021): a bilinear product of text and image, of low rank."""

from dataclasses import dataclass

from torch import Tensor, nn

from sgmft.models.baselines.feature_level_cnn import TextCNN, TextCNNConfig
from sgmft.models.baselines.word_embeddings import WordNetwork, word_method


@dataclass(frozen=True)
class LowRankConfig(TextCNNConfig):
    """The shape of the network.

    Attributes:
        rank: R, products that are summed.
        width: D, of the fused feature (ours).
    """

    rank: int = 4
    width: int = 256


class LowRankFusion(nn.Module):
    """h = sum over r of (W_t^r [t; 1]) * (W_v^r [v; 1]); the bias is the last column of W.

    Weights start such that inputs of unit variance give a sum of unit variance, of which the
    product of both modalities and each alone have equal shares. `width` is D, `rank` R.
    """

    def __init__(self, text_width: int, image_width: int, width: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.text = nn.Linear(text_width, rank * width)
        self.image = nn.Linear(image_width, rank * width)
        for linear in (self.text, self.image):
            variance = 0.5 * rank**-0.5
            nn.init.normal_(linear.weight, std=(variance / linear.in_features) ** 0.5)
            nn.init.normal_(linear.bias, std=variance**0.5)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """t (B, Dt) and v (B, Dv) -> h (B, D)."""
        factors = self.text(text) * self.image(image)  # (B, R D)
        return factors.unflatten(1, (self.rank, -1)).sum(1)


class LowRank(WordNetwork):
    """TextCNN and the image feature, fused by products; dropout, one linear layer."""

    config: LowRankConfig

    def __init__(self, config: LowRankConfig) -> None:
        c = config
        pool = TextCNN(c.embedding_width, c.windows, c.filters)
        super().__init__(c, pool, c.text_features, None)
        self.fusion = LowRankFusion(c.text_features, c.image_width, c.width, c.rank)
        self.classifier = nn.Linear(c.width, c.classes)

    def fuse(self, text: Tensor, image: Tensor) -> Tensor:
        """See `LowRankFusion`."""
        return self.fusion(text, image)


NOTE = (
    "Without the user attributes, which our features do not have; TextCNN from memory; "
    "EfficientNet-Lite in place of PlacesCNN."
)
METHOD = word_method(
    "low-rank", "Low-rank fusion", "Wang et al. 2021", LowRank, LowRankConfig, note=NOTE
)
