"""Run a network on many posts, batch by batch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sgmft.models.base import BatchSource, ClosedFormNetwork, Network, Output

EVALUATION_BATCH = 256  # posts; networks may compare every feature of one with every other
SOLVED_BATCH = 1024  # of networks without layers, which otherwise spend their time between steps


class NetworkOutputs(NamedTuple):
    """Outputs of a network for N posts, on the CPU."""

    logits: Tensor  # (N, K)
    fused: Tensor  # (N, D)
    guidance: Tensor  # (N, 2) relative entropies of P^m and P^e; NaN without guidance


@torch.inference_mode()
def predict_logits(model: Network, posts: BatchSource) -> NetworkOutputs:
    """Outputs for all posts; the network is in evaluation mode afterwards."""
    model.eval()
    if not len(posts):
        none = torch.zeros(0, model.config.classes)
        return NetworkOutputs(none, none, torch.zeros(0, 2))
    device = next(iter(model.state_dict().values())).device
    parts = []
    size = SOLVED_BATCH if isinstance(model, ClosedFormNetwork) else EVALUATION_BATCH
    for start in range(0, len(posts), size):
        batch = posts.batch(slice(start, start + size), model.uses_ngrams).to(device)
        output: Output = model(batch)
        guidance = torch.full((len(output.logits), 2), math.nan)
        if output.guidance is not None:
            guidance = torch.stack(tuple(output.guidance), 1)
        parts.append([x.float().cpu() for x in (output.logits, output.fused, guidance)])
    return NetworkOutputs(*(torch.cat(part) for part in zip(*parts, strict=True)))
