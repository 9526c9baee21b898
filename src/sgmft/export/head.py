"""The network behind the encoder as one graph: a batch of features to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmft.encoders.base import EncoderInfo
from sgmft.graphs.writing import write_graph
from sgmft.nn import Batch, Network
from sgmft.runtime.manifest import HEAD_OUTPUTS

POSTS, WORDS, REGIONS, NGRAMS = 1_013, 17, 19, 23  # an example's, lengths nothing else has


class Head(nn.Module):
    """A network and its temperature.

    Args:
        network: reads the fields of a `Batch` named `fields`.
        temperature: that its logits are divided by.
    """

    def __init__(self, network: Network, temperature: float, fields: Sequence[str]) -> None:
        super().__init__()
        self.network, self.temperature, self.fields = network, temperature, fields

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Fields of a batch to probabilities (B, K) and relative guidance entropies (B, 2)."""
        output = self.network(Batch(**dict(zip(self.fields, tensors, strict=True))))
        probabilities = (output.logits / self.temperature).softmax(-1)
        if output.guidance is None:
            return probabilities, torch.full_like(probabilities[:, :2], torch.nan)
        return probabilities, torch.stack(tuple(output.guidance), 1)


def write_head(
    network: Network, temperature: float, info: EncoderInfo, tokens: bool, path: Path
) -> None:
    """Write it; the graph's inputs are those fields of `sgmft.nn.Batch` that the network reads."""
    inputs = example(network, info, tokens)
    write_graph(Head(network.eval(), temperature, list(inputs)), inputs, HEAD_OUTPUTS, path)


def example(network: Network, info: EncoderInfo, tokens: bool) -> dict[str, tuple[Tensor, int]]:
    """A batch by field, each with how many of its first axes are of any length."""
    B, n, m, g = POSTS, WORDS, REGIONS, NGRAMS
    found = {
        "text": (torch.rand(B, info.text_width), 1),
        "image": (torch.rand(B, info.image_width), 1),
        "has_text": (torch.ones(B, dtype=torch.bool), 1),
        "has_image": (torch.ones(B, dtype=torch.bool), 1),
    }
    if tokens:
        found |= {
            "text_tokens": (torch.rand(B, n, info.word_width), 2),
            "text_mask": (torch.ones(B, n, dtype=torch.bool), 2),
            "image_tokens": (torch.rand(B, m, info.image_width), 2),
            "image_mask": (torch.ones(B, m, dtype=torch.bool), 2),
            "image_index": (torch.zeros(B, m, dtype=torch.long), 2),
        }
    if network.reads_ngrams:
        numbers = torch.arange(B * g, dtype=torch.int32).reshape(B, g)
        found |= {"ngrams": (numbers, 2), "ngram_counts": (torch.ones_like(numbers), 2)}
    return found
