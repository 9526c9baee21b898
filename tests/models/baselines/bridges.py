"""A small BridgeTower with random weights."""

import torch

from sgmft.models.baselines.bridgetower import BridgeTower, BridgeTowerConfig
from token_batches import randomize

SMALL = BridgeTowerConfig(
    classes=3, text_width=6, image_width=5, width=8, heads=2, hidden_ratio=1.5, max_images=2
)


def made(config, seed=0):
    torch.manual_seed(seed)
    return randomize(BridgeTower(config), seed)
