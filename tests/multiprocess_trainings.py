"""Trainings that are run by one process and by several, which must agree; a script for torchrun."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sgmft.models.base import Network
from sgmft.models.baselines.balance_mla import BalanceMLA, BalanceMLAConfig
from sgmft.models.baselines.unis_mmc import UniSMMC, UniSMMCConfig
from sgmft.models.presets import TrainConfig
from sgmft.training.trainer import train
from sgmft.utils import distributed
from small_networks import FAST, SMALL, make_network, mislabelled, weights_of
from synthetic_features import make_features

WIDTHS = {"classes": 3, "text_width": 12, "image_width": 10}
UNEVEN = 25  # posts in steps of 8: the last step has one, and so one of two processes has none


def trainings() -> dict[str, tuple[Network, TrainConfig, bool]]:
    """Networks with their settings, and whether held-out posts choose the epoch."""
    weighted = replace(FAST, class_weights=True, label_smoothing=0.1, modality_dropout=0.3)
    stopping = replace(FAST, epochs=30, patience=2, learning_rate=1e-2)
    found: dict[str, tuple[Network, TrainConfig, bool]] = {
        "class weights": (make_network(replace(SMALL, view="tokens")), weighted, False),
        "early stopping": (make_network(), stopping, True),
    }
    torch.manual_seed(0)
    contrast = UniSMMC(UniSMMCConfig(**WIDTHS, width=16, dropout=0.0, contrast=1.0))
    found["contrast of posts"] = (contrast, FAST, False)
    modulated = BalanceMLA(BalanceMLAConfig(**WIDTHS, width=16, heads=2))
    found["dominant side"] = (modulated, FAST, False)
    return found


def run(name: str) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Weights and log of one of them."""
    model, config, watched = trainings()[name]
    data = make_features(UNEVEN)
    model.prepare(
        data.features.texts,
        data.features.images,
        *(x.flat() for x in (data.features.words, data.features.regions) if x is not None),
    )
    held = mislabelled(make_features(15, seed=1)) if watched else None
    history = train(model, data, held, config, device="cpu")
    return weights_of(model), [list(epoch) for epoch in history]


if __name__ == "__main__":
    for name in trainings():
        weights, history = run(name)
        path = Path(sys.argv[1]) / f"{name} {distributed.rank()} of {distributed.world_size()}"
        save_file(weights, path, {"history": json.dumps(history)})
