"""A small Balance-MLA with random weights, posts for it, and what its branches say and learn."""

import math

import torch

from sgmft.features.batch import Batch
from sgmft.models.baselines.balance_mla import BalanceMLA, BalanceMLAConfig

SMALL = BalanceMLAConfig(classes=3, text_width=7, image_width=5, width=8, heads=2)
WORDS, REGIONS = [5, 1, 4, 2, 3], [4, 6, 2, 4, 2]  # two regions a picture
HAS_TEXT, HAS_IMAGE = [True, True, False, True, False], [True, True, True, False, False]


def softmax(x):
    powers = [math.exp(a - max(x)) for a in x]
    return [a / sum(powers) for a in powers]


def random_batch(config=SMALL, seed=0):
    """Five posts of unequal length with random numbers in padding and in missing sides."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def mask(lengths, present):
        return torch.arange(max(lengths)) < (torch.tensor(lengths) * present)[:, None]

    present = torch.tensor(HAS_TEXT), torch.tensor(HAS_IMAGE)
    return Batch(
        normal(5, config.text_width),
        normal(5, config.image_width),
        *present,
        normal(5, max(WORDS), config.text_width),
        mask(WORDS, present[0]),
        normal(5, max(REGIONS), config.image_width),
        mask(REGIONS, present[1]),
        (torch.arange(max(REGIONS)) // 2).expand(5, -1),
        torch.full((5, 1), -1, dtype=torch.int32),
    )


def randomised(config=SMALL, seed=0):
    torch.manual_seed(seed)
    model = BalanceMLA(config).double().eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            x.copy_(torch.rand_like(x) + 0.5 if "deviation" in name else torch.randn_like(x) * 0.5)
    return model


def logits_of(output):
    return output.logits, output.parts["text_logits"], output.parts["image_logits"]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(a, b):
    b = torch.as_tensor(b, dtype=torch.float64)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
