"""Posts whose label shows in one of two sides, and default networks that learned from them."""

import pytest
import torch

from sgmft.features.batch import Batch
from sgmft.models.experts import DenseExpert, NgramExpert
from sgmft.models.gated_experts import GatedExperts, GatedExpertsConfig

K, DT, DV = 3, 6, 5
SETTINGS = [{}, {"gate": "constant"}, {"power": 0.0}, {"joint": False}, {"lexical": False}]


@pytest.fixture(scope="module", autouse=True)
def _fewer_penalties():
    """Less to search through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenseExpert, "penalties", (3.0, 0.3, 0.1))
        patch.setattr(NgramExpert, "penalties", (1e-3, 1e-4))
        yield


def made(n=120, seed=0, missing=True, **sides):
    """Posts whose label shows either in the text or in the picture, and a few n-grams.

    With `missing`, every tenth has no text, every tenth no picture, every twentieth none of both;
    `text` and `image` False leave that side out everywhere.
    """
    rng = torch.Generator().manual_seed(seed)
    centres = torch.Generator().manual_seed(99)
    labels = torch.randint(0, K, (n,), generator=rng)
    by_text = torch.rand(n, generator=rng) < 0.5
    pooled = []
    for width, good in ((DT, by_text), (DV, ~by_text)):
        centre = 3 * torch.randn(K, width, generator=centres)[labels]
        pooled.append(centre * good[:, None] + torch.randn(n, width, generator=rng) + 1)
    has_text, has_image = torch.ones(2, n, dtype=torch.bool)
    if missing:
        has_text[3::10], has_image[6::10] = False, False
        has_text[9::20], has_image[9::20] = False, False
    has_text &= sides.get("text", True)
    has_image &= sides.get("image", True)
    grams = torch.randint(0, 30, (n, 4), generator=rng)
    grams[:, 0] = 100 + labels * by_text + K * ~by_text
    grams[torch.rand(n, 4, generator=rng) < 0.2] = -1
    grams = torch.where(has_text[:, None], grams, -1).int()
    text, image = pooled[0] * has_text[:, None], pooled[1] * has_image[:, None]
    return Batch(text, image, has_text, has_image, ngrams=grams), labels


def solved(batch, labels, classes=K, **settings):
    torch.manual_seed(0)
    network = GatedExperts(GatedExpertsConfig(classes, DT, DV, **settings))
    network.solve(batch, labels)
    return network.eval()


@torch.no_grad()
def logits(network, batch):
    return network(batch).logits


def probabilities(network, batch):
    return logits(network, batch).softmax(-1)


def rows(batch, chosen):
    return Batch._make(None if x is None else x[chosen] for x in batch)


def only(batch, text, image):
    """The same posts with one side, or none."""
    has = batch.has_text & text, batch.has_image & image
    return batch._replace(has_text=has[0], has_image=has[1])


@pytest.fixture(scope="module")
def network():
    return solved(*made())
