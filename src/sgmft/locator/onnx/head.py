"""Write a network of torch as ONNX, from features to calibrated probabilities."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmft.features.batch import Batch
from sgmft.features.encoders.base import EncoderInfo
from sgmft.locator.onnx.locator import HEAD_OUTPUTS
from sgmft.models.network import Network
from sgmft.utils.onnx_writer import write_graph

POSTS, WORDS, REGIONS = 1_013, 17, 19  # an example's, lengths nothing else has


def write_head(
    network: Network, temperatures: Sequence[float], info: EncoderInfo, tokens: bool, path: Path
) -> None:
    """Write a head; the graph's inputs are those fields of `Batch` that the network reads."""
    network = deepcopy(network).cpu().eval()
    B, n, m = POSTS, WORDS, REGIONS
    # A batch by field, each with the number of its first axes that are of any length.
    inputs = {
        "text": (torch.rand(B, info.text_width), 1),
        "image": (torch.rand(B, info.image_width), 1),
        "has_text": (torch.ones(B, dtype=torch.bool), 1),
        "has_image": (torch.ones(B, dtype=torch.bool), 1),
    }
    if tokens:
        inputs |= {
            "text_tokens": (torch.rand(B, n, info.word_width), 2),
            "text_mask": (torch.ones(B, n, dtype=torch.bool), 2),
            "image_tokens": (torch.rand(B, m, info.image_width), 2),
            "image_mask": (torch.ones(B, m, dtype=torch.bool), 2),
            "image_index": (torch.zeros(B, m, dtype=torch.long), 2),
        }
    write_graph(Head(network, temperatures, list(inputs)), inputs, HEAD_OUTPUTS, path)


class Head(nn.Module):
    """A network, which reads the `fields` of a `Batch`, and the temperatures of its logits."""

    def __init__(
        self, network: Network, temperatures: Sequence[float], fields: Sequence[str]
    ) -> None:
        super().__init__()
        self.network, self.fields = network, fields
        self.register_buffer("temperatures", torch.tensor(temperatures))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Fields of a batch to probabilities (B, K) and relative guidance entropies (B, 2)."""
        batch = Batch(**dict(zip(self.fields, tensors, strict=True)))
        output = self.network(batch)
        temperature = self.get_buffer("temperatures")[batch.has_text.long() + 2 * batch.has_image]
        probabilities = (output.logits / temperature[:, None]).softmax(-1)
        if output.guidance is None:
            return probabilities, torch.full_like(probabilities[:, :2], torch.nan)
        return probabilities, torch.stack(tuple(output.guidance), 1)
