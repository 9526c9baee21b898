"""What a locator knows of its training: who was left out, held out, and what was chosen."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sgmft import Abstention, Post
from sgmft.errors import SgmftError
from sgmft.evaluation.calibration import rescale_probabilities
from small_posts import LABELS, UNUSABLE


def test_posts_left_out_are_counted(tiny, small_posts):
    unlabelled = [replace(post, label=None) for post in small_posts[:3]]
    broken = [replace(post, label="Home") for post in UNUSABLE]
    record = tiny().fit([*small_posts, *unlabelled, *broken]).record["data"]
    assert record["posts"] == 36 == record["train"] + record["validation"]
    assert record["validation"] > 0
    assert record["skipped"].pop("no label") == 3
    assert sum(record["skipped"].values()) == 4
    assert record["skipped"]["already broken"] == 1
    assert record["skipped"]["there is no file …"] == 1


def test_the_fingerprint_is_of_posts_and_labels_not_of_their_order(tiny, small_posts):
    def fingerprint(posts):
        return tiny({"epochs": 1}).fit(posts).record["data"]["fingerprint"]

    relabelled = [replace(small_posts[0], label="Work"), *small_posts[1:]]
    assert fingerprint(small_posts) == fingerprint(small_posts[::-1])
    assert (
        len({fingerprint(small_posts), fingerprint(relabelled), fingerprint(small_posts[1:])}) == 3
    )


@pytest.fixture
def confused(small_posts):
    """Posts of which every fourth has a wrong label: learning them by heart does not pay."""
    wrong = dict(zip(LABELS, [*LABELS[1:], LABELS[0]], strict=True))
    return [
        replace(post, label=wrong[post.label]) if i % 4 == 1 else post
        for i, post in enumerate(small_posts)
    ]


HASTY = {"epochs": 40, "learning_rate": 2e-2, "patience": 4}


def test_metrics_are_those_of_the_best_epoch(tiny, confused):
    record = tiny(HASTY, val_size=0.3).fit(confused).record
    best = min(record["history"], key=lambda epoch: epoch["val_loss"])
    assert best["epoch"] == len(record["history"]) - 4 < 36
    assert record["metrics"] == {
        "validation accuracy": best["val_accuracy"],
        "validation loss": best["val_loss"],
    }
    assert tiny(val_size=0.0).fit(confused).record["metrics"] == {}


@pytest.mark.parametrize("refit", [False, True])
def test_held_out_posts_choose_and_may_then_be_learned_from(tiny, confused, monkeypatch, refit):
    import sgmft.training.fit as module

    runs = []

    def watched(network, data, validation, config, **options):
        history = train(network, data, validation, config, **options)
        runs.append((len(data.labels), validation is not None, config.patience, len(history)))
        return history

    train = module.train
    monkeypatch.setattr(module, "train", watched)
    locator = tiny(HASTY, val_size=0.25)
    locator.preset = replace(locator.preset, refit=refit)
    record = locator.fit(confused).record
    assert (record["data"]["train"], record["data"]["validation"]) == (27, 9)
    assert runs[0] == (27, True, 4, len(record["history"]))
    if refit:
        assert runs[1:] == [(36, False, 0, len(record["history"]) - 4)]
    else:
        assert len(runs) == 1


@pytest.mark.parametrize(
    ("posts", "message"),
    [
        ([], "0 usable posts have 0."),
        ([Post("sofa", label="Home")] * 2, "2 usable posts have 1."),
        (
            [Post("a", label="Home"), Post("b"), Post(images="x.jpg", label="Work"), Post("c")],
            "1 usable posts have 1, and were left out: 1 x there is no file …; 2 x no label.",
        ),
    ],
)
def test_fewer_than_two_labels_tells_why(tiny, posts, message):
    with pytest.raises(SgmftError) as caught:
        tiny().fit(posts)
    assert str(caught.value) == f"Training needs posts of at least two labels; {message}"


def test_split_by_user_puts_no_user_on_both_sides(tiny, small_posts, monkeypatch):
    import sgmft.locator.locator as module

    seen = {}

    def watched(data, held_out, *rest, **options):
        seen["held"] = set(held_out)
        return fit(data, held_out, *rest, **options)

    fit = module.fit_network
    monkeypatch.setattr(module, "fit_network", watched)
    tiny(val_size=0.3).fit(small_posts, split_by="user")
    held = {small_posts[i].user for i in seen["held"]}
    kept = {post.user for i, post in enumerate(small_posts) if i not in seen["held"]}
    assert held and kept and not held & kept


@pytest.mark.parametrize("size", [1.0, -0.1, math.nan])
def test_a_held_out_share_that_does_not_fit(tiny, small_posts, size):
    with pytest.raises(SgmftError, match="does not fit 36 posts"):
        tiny(val_size=size).fit(small_posts)


def test_interrupted_training_continues_to_the_same_model(tiny, small_posts, tmp_path):
    class StopHereError(Exception):
        pass

    def stop(epoch):
        left.pop()
        if not left:
            raise StopHereError

    settings = {"epochs": 4, "patience": 2, "dropout": 0.3}
    expected = tiny(settings).fit(small_posts)
    for at in (1, 3, 6):  # in the choice of the epoch, and in what follows it
        left = [None] * at
        try:
            tiny(settings).fit(small_posts, checkpoint=tmp_path, on_epoch=stop)
        except StopHereError:
            continue
        assert at == 6
    resumed = tiny(settings).fit(small_posts, checkpoint=tmp_path)
    assert repr(resumed.record) == repr(expected.record)
    state = expected.network.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in resumed.network.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "late-average"}, {"preset": "elements", "settings": {"epochs": 2}}],
    ids=str,
)
def test_fit_finds_a_temperature_that_only_scales(fitted, small_posts, options):
    locator = fitted(**options)
    temperature = locator.temperature
    assert temperature != 1 and 0.05 <= temperature <= 20
    assert locator.record["calibration"] == {"temperature": temperature}
    scaled, labels = locator.predict_proba(small_posts), locator.predict(small_posts)
    locator.training.temperature = 1.0
    raw = locator.predict_proba(small_posts).astype(float)
    np.testing.assert_allclose(rescale_probabilities(raw, temperature), scaled, atol=1e-5)
    assert locator.predict(small_posts) == labels


def test_without_held_out_posts_probabilities_are_the_networks(fitted, small_posts):
    locator = fitted(preset="paper", settings={"epochs": 1})
    assert locator.temperature == 1
    assert fitted(method="text-only", settings={}).temperature != 1  # held out in turn
    with pytest.raises(SgmftError, match="--val-size"):
        locator.predict(small_posts, Abstention(coverage=0.8))
    assert None in locator.predict(small_posts, Abstention(min_probability=0.999))
