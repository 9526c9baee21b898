"""What predictions of mPLUG and BridgeTower depend on, and the settings that they refuse."""

import math
from dataclasses import replace

import pytest
import torch

from sgmft.errors import SgmftError
from sgmft.features.batch import Batch
from sgmft.models.baselines.bridgetower import BridgeTower, BridgeTowerConfig
from sgmft.models.baselines.mplug import MPLUG, MPLUGConfig
from token_batches import assert_close, random_batch, randomize

SIZES = {"width": 8, "heads": 2, "hidden_ratio": 1.5, "max_images": 2}
WIDTHS = {"classes": 3, "text_width": 6, "image_width": 5}
SYSTEMS = {
    MPLUG: MPLUGConfig(**WIDTHS, **SIZES),
    BridgeTower: BridgeTowerConfig(**WIDTHS, **SIZES),
}
systems = pytest.mark.parametrize("system", SYSTEMS)


def build(system, **changes):
    torch.manual_seed(0)
    return randomize(system(replace(SYSTEMS[system], **changes)))


@systems
def test_order_of_words_and_of_an_images_regions_does_not_count(system):
    model, batch = build(system), random_batch()
    words, regions = [2, 0, 3, 1], [5, 3, 0, 4, 1, 2]
    moved = batch._replace(
        text_tokens=batch.text_tokens[:, words],
        text_mask=batch.text_mask[:, words],
        image_tokens=batch.image_tokens[:, regions],
        image_mask=batch.image_mask[:, regions],
        image_index=batch.image_index[:, regions],
    )
    assert_close(model(moved).logits[:2], model(batch).logits[:2])  # posts with both modalities


@systems
@pytest.mark.parametrize("name", ["text_tokens", "image_tokens"])
def test_both_modalities_count(system, name):
    model, batch = build(system), random_batch()
    changed = model(batch._replace(**{name: getattr(batch, name) + 1})).logits
    assert not torch.isclose(model(batch).logits[:2], changed[:2]).any()


@systems
def test_dropout_works_in_training_only(system):
    model, batch = build(system, dropout=0.5), random_batch()
    assert torch.equal(model(batch).logits, model(batch).logits)
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.5}


@systems
def test_training_without_dropout_computes_what_evaluation_does(system):
    model, batch = build(system, dropout=0.0), random_batch()
    with torch.inference_mode():
        evaluated = model(batch).logits
    assert_close(model.train()(batch).logits, evaluated)


@systems
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "cannot be cut into 3 heads"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"max_images": 0}, "max_images must be at least 1"),
        ({"hidden_ratio": 0.0}, "hidden_ratio"),
        ({"hidden_ratio": math.nan}, "hidden_ratio"),
        ({"dropout": 1.0}, "dropout"),
        ({"scale": "minmax"}, "scale='minmax' is not known"),
    ],
)
def test_a_wrong_setting_is_refused(system, changes, message):
    with pytest.raises(SgmftError, match=message):
        replace(SYSTEMS[system], **changes)
    if system is MPLUG:
        with pytest.raises(SgmftError, match="stride must be at least 1"):
            replace(SYSTEMS[MPLUG], stride=0)


@systems
def test_pooled_features_are_refused(system):
    with pytest.raises(SgmftError, match="token features"):
        system(SYSTEMS[system]).double()(Batch(*random_batch()[:4]))
