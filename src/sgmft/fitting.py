"""From labelled features to a trained network: validation posts choose, then all posts train."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from sgmft.encoders import EncoderInfo
from sgmft.features import Features, Ragged
from sgmft.nn import SGMFT, ModelConfig
from sgmft.presets import Preset
from sgmft.training import Epoch, LabelledFeatures, train


def fit_network(
    data: LabelledFeatures,
    held_out: Sequence[int],
    classes: int,
    info: EncoderInfo,
    preset: Preset,
    *,
    checkpoint: Path | None = None,
    track: str | Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[SGMFT, list[Epoch]]:
    """Train as the preset says.

    With held-out posts, the epoch with the least loss on them is kept. A preset with `refit` then
    trains once more from the start, on all posts and for that many epochs, with the fused path's
    share that they chose.

    Args:
        data: all posts.
        held_out: positions of the validation posts; may be empty.
        classes: K.
        info: of the encoder that made the features.
        checkpoint, track, device, on_epoch: see `sgmft.training.train`.

    Returns:
        The network, and the log of the training that the held-out posts watched.
    """
    everything = torch.arange(len(data.labels))
    kept = torch.ones(len(data.labels), dtype=torch.bool)
    kept[list(held_out)] = False
    seen = _choose(data, everything[kept])
    watched = _choose(data, everything[~kept]) if held_out else None
    run = partial(train, track=track, device=device, on_epoch=on_epoch)
    network = build_network(seen.features, classes, info, preset)
    history = run(
        network, seen, watched, preset.train, checkpoint=checkpoint and checkpoint / "choose"
    )
    if not preset.refit or watched is None:
        return network, history
    epochs = best_epoch(history).epoch
    settings = dataclasses.replace(preset.train, epochs=epochs, patience=0)
    refitted = build_network(data.features, classes, info, preset)
    run(refitted, data, None, settings, checkpoint=checkpoint and checkpoint / "refit")
    if refitted.config.direct:
        refitted.share.copy_(network.share)
    return refitted, history


def build_network(features: Features, classes: int, info: EncoderInfo, preset: Preset) -> SGMFT:
    """A new network, its weights decided by the seed and its scales fitted to the features."""
    torch.manual_seed(preset.train.seed)
    network = SGMFT(
        ModelConfig(
            classes=classes,
            text_width=info.text_width,
            image_width=info.image_width,
            shared_space=info.shared_space,
            initial_temperature=initial_temperature(info, preset),
            **preset.model,
        )
    )
    network.text.fit(features.text[features.has_text], _values(features.words))
    network.image.fit(features.image[features.has_image], _values(features.regions))
    return network


def initial_temperature(info: EncoderInfo, preset: Preset) -> float:
    """Where a learned temperature starts: such that similarities begin neither flat nor one-hot.

    The encoder's logit scale belongs to its own features of unit length. Standardised token
    features have length sqrt(D), so their products are divided by sqrt(D), as in attention.
    Products of two standardised numbers, which the elements view compares, are of size 1.
    """
    if preset.model.get("scale") != "standard":
        return info.logit_scale or 1.0
    if preset.model.get("view") != "tokens":
        return 1.0
    return float((preset.model.get("width") or info.text_width) ** -0.5)


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch with the least validation loss."""
    return min(history, key=lambda epoch: epoch.val_loss)


def validation_metrics(history: Sequence[Epoch]) -> dict[str, float]:
    """Validation figures of the best epoch; none without validation posts."""
    best = best_epoch(history)
    if math.isnan(best.val_loss):
        return {}
    return {"validation accuracy": best.val_accuracy, "validation loss": best.val_loss}


def _choose(data: LabelledFeatures, rows: torch.Tensor) -> LabelledFeatures:
    return LabelledFeatures(data.features.take(rows), data.labels[rows])


def _values(tokens: Ragged | None) -> torch.Tensor | None:
    return None if tokens is None else tokens.values.float()
