"""Small networks and quick trainings of them, and what two trainings are compared by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sgmft.features.features import LabelledFeatures
from sgmft.models.network import Network
from sgmft.models.presets import TrainConfig
from sgmft.models.sgmft import SGMFT, SGMFTConfig
from sgmft.training.history import Epoch

SMALL = SGMFTConfig(
    classes=3,
    text_width=12,
    image_width=10,
    width=16,
    heads=2,
    hidden_ratio=1.0,
    classifier_widths=(12,),
    dropout=0.0,
    scale="standard",
    gate="sigmoid",
)
FAST = TrainConfig(epochs=6, batch_size=8, learning_rate=3e-3)


def mislabelled(data: LabelledFeatures) -> LabelledFeatures:
    """Every other post with a wrong label: a validation loss on these soon rises."""
    labels = data.labels.copy()
    labels[::2] = (labels[::2] + 1) % 3
    return LabelledFeatures(data.features, labels)


def make_network(config: SGMFTConfig = SMALL, seed: int = 0) -> SGMFT:
    torch.manual_seed(seed)
    return SGMFT(config)


def weights_of(model: Network) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def equal_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states, of tensors or arrays, are the same to the last bit."""
    return one.keys() == other.keys() and all(np.array_equal(x, other[n]) for n, x in one.items())


def history_text(history: list[Epoch]) -> str:
    return repr([tuple(epoch) for epoch in history])  # NaN equals NaN as a word


class StopHereError(Exception):
    """What interrupts a training."""


def stop_after(*epochs: int) -> Callable[[Epoch], None]:
    """Interrupts trainings after these epochs, counted over all of them."""
    told: list[Epoch] = []

    def stop(epoch: Epoch) -> None:
        told.append(epoch)
        if len(told) in epochs:
            raise StopHereError

    return stop


@pytest.fixture
def steps(monkeypatch):
    """Learning rate of each parameter group at each step of Adam, as it is taken."""
    taken = []

    class Watched(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            taken.append([group["lr"] for group in self.param_groups])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    return taken
