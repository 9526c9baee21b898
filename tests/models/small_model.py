"""A small SG-MFT in all its variants, and posts for it."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from sgmft.features.batch import Batch
from sgmft.models.sgmft import SGMFT, SGMFTConfig

SMALL = SGMFTConfig(
    classes=3,
    text_width=12,
    image_width=10,
    width=16,
    heads=2,
    hidden_ratio=2.0,
    classifier_widths=(12, 10, 8, 6),
    max_images=3,
)
WORDS, REGIONS = [5, 1, 4, 2, 3], [4, 6, 2, 8, 2]  # two regions a picture
HAS_TEXT, HAS_IMAGE = [True, True, False, True, False], [True, True, True, False, False]
NAMES = {"view", "gate", "guided", "fusion"}
VIEWS = ["elements", "tokens"]
views = pytest.mark.parametrize("view", VIEWS)

CONFIGS = [
    replace(SMALL, view=view, gate=gate, guided=guided)
    for view, gate, guided in product(VIEWS, ("softmax", "sigmoid"), ("text", "image"))
] + [
    replace(SMALL, view=view, **changes)
    for view in VIEWS
    for changes in (
        {"sim": False},
        {"fusion": "sum"},
        {"sim": False, "fusion": "sum"},
        {"scale": "unit", "temperature": 20.0},
        {"scale": "standard", "temperature": "learned", "initial_temperature": 3.0},
        {"fusion_layers": 1, "element_width": 2},
        {"element_width": 4, "guided": "image"},
        {"shared_space": True, "text_width": 16, "image_width": 16, "word_width": 16},
        {"word_width": 7, "scale": "standard"},
        {"word_width": 7, "sim": False},
    )
]


def name_of(config):
    changed = {k: v for k, v in vars(config).items() if v != getattr(SMALL, k) or k == "view"}
    return "-".join(str(v) if k in NAMES else f"{k}={v}" for k, v in changed.items())


configs = pytest.mark.parametrize("config", CONFIGS, ids=name_of)


def random_batch(config, missing=True, seed=0, dtype=torch.float64):
    """Five posts of unequal length with random numbers in padding and in missing sides."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    def mask(lengths, present):
        return torch.arange(max(lengths)) < (torch.tensor(lengths) * present)[:, None]

    present = [
        torch.tensor(x) if missing else torch.tensor([True] * 5) for x in (HAS_TEXT, HAS_IMAGE)
    ]
    pooled = normal(5, config.text_width), normal(5, config.image_width)
    if config.view == "elements":
        return Batch(*pooled, *present)
    return Batch(
        *pooled,
        *present,
        normal(5, max(WORDS), config.word_width),
        mask(WORDS, present[0]),
        normal(5, max(REGIONS), config.image_width),
        mask(REGIONS, present[1]),
        (torch.arange(max(REGIONS)) // 2).expand(5, -1),
    )


def randomised(config, seed=0):
    """A model in float64, eval mode, whose every parameter and buffer is drawn."""
    torch.manual_seed(seed)
    model = SGMFT(config).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * (0.1 if "log_value" in name else 0.3))
        for name, b in model.named_buffers():
            b.copy_(torch.rand_like(b) + 0.5 if "deviation" in name else torch.randn_like(b))
    return model


def fresh(config, seed=0):
    torch.manual_seed(seed)
    return SGMFT(config)


def post(batch, i):
    """One post as `reference.sgmft` takes it: real tokens only."""

    def side(pooled, has, tokens, mask):
        if not has[i]:
            return None, None
        return pooled[i].tolist(), None if tokens is None else tokens[i][mask[i]].tolist()

    text, words = side(batch.text, batch.has_text, batch.text_tokens, batch.text_mask)
    image, regions = side(batch.image, batch.has_image, batch.image_tokens, batch.image_mask)
    index = (
        None if batch.image_index is None else batch.image_index[i][batch.image_mask[i]].tolist()
    )
    return {"text": text, "words": words, "image": image, "regions": regions, "index": index}
