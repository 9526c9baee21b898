"""Feature-level fusion CNNs (Meng et al. 2017): TextCNN beside an image's CNN feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmft.errors import SgmftError
from sgmft.models.baselines.word_embeddings import WordConfig, WordNetwork, word_method


@dataclass(frozen=True)
class TextCNNConfig(WordConfig):
    """The shape of a network with a TextCNN.

    Attributes:
        windows: words in one window, one convolution each.
        filters: of each convolution.
    """

    windows: tuple[int, ...] = (3, 4, 5)
    filters: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.windows:
            raise SgmftError("windows must be one or more numbers of words, not none.")

    @property
    def text_features(self) -> int:
        """Width of a text's vector."""
        return len(self.windows) * self.filters


class TextCNN(nn.Module):
    """Convolutions over word embeddings of width E, ReLU, maximum over the text (Kim 2014).

    A window lies within the text; a text shorter than the window is padded with zeros to it.
    """

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
    """The two features side by side, dropout, one linear layer.

    The image feature is projected to the text vector's width, so that both weigh alike.
    """

    config: TextCNNConfig

    def __init__(self, config: TextCNNConfig) -> None:
        D, c = config.text_features, config
        super().__init__(c, TextCNN(c.embedding_width, c.windows, c.filters), D, D)
        self.classifier = nn.Linear(2 * D, c.classes)

    def fuse(self, text: Tensor, image: Tensor) -> Tensor:
        """Text and image, (B, D) each, to (B, 2 D)."""
        return torch.cat([text, image], 1)


METHOD = word_method(
    name="feature-level-cnn",
    title="Feature-level fusion CNNs",
    source="Meng et al. 2017",
    network=FeatureLevelCNN,
    config=TextCNNConfig,
    note="TextCNN from memory; EfficientNet-Lite in place of CaffeNet, whose weights are not "
    "distributed.",
)
