"""Run a model on many posts, batch by batch."""

from typing import NamedTuple

import numpy as np

from sgmft.models.arrays import Floats
from sgmft.models.base import BatchSource, ClosedFormModel, Model

NETWORK_BATCH = 256  # posts; networks may compare every feature of one with every other
CLOSED_FORM_BATCH = 1024  # they would otherwise spend their time between batches


class ModelOutputs(NamedTuple):
    """Outputs of a model for N posts."""

    logits: Floats  # (N, K)
    fused: Floats  # (N, D)
    guidance: Floats  # (N, 2) relative entropies of P^m and P^e; NaN without guidance


def predict_logits(model: Model, posts: BatchSource) -> ModelOutputs:
    """Return the outputs for all posts; a network is in evaluation mode afterwards."""
    if not len(posts):
        none = np.zeros((0, model.config.classes), np.float32)
        return ModelOutputs(none, none, np.zeros((0, 2), np.float32))
    parts = []
    size = CLOSED_FORM_BATCH if isinstance(model, ClosedFormModel) else NETWORK_BATCH
    for start in range(0, len(posts), size):
        output = model.predict(posts.batch(slice(start, start + size), model.uses_ngrams))
        guidance = np.full((len(output.logits), 2), np.nan, np.float32)
        if output.guidance is not None:
            guidance = np.stack(output.guidance, 1)
        parts.append((output.logits, output.fused, guidance))
    return ModelOutputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))
