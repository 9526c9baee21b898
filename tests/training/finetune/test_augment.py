"""Training pictures changed at random: the same with the same seed, others with another."""

from __future__ import annotations

import numpy as np
import torch

from image_files import scene
from sgmft.training.finetune.towers import augmentation

PICTURES = torch.from_numpy(np.stack([np.asarray(scene((84, 84)))] * 6))


def test_pictures_stay_pictures_and_become_different_ones():
    torch.manual_seed(0)
    found = augmentation(84)(PICTURES)
    assert found.shape == PICTURES.shape and found.dtype == torch.uint8
    assert len({x.numpy().tobytes() for x in found}) == len(found), "each in its own way"
    difference = (found.float() - PICTURES.float()).abs().mean()
    assert 2 < difference < 100
    assert len(augmentation(84)(PICTURES[:0])) == 0


def test_the_seed_decides():
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augmentation(84)(PICTURES))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
