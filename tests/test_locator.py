"""The façade: learn, predict, save, load, and what it says when it cannot."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from sgmft import Post, SemanticLocator, read_posts
from sgmft.baselines.base import Method
from sgmft.errors import SgmftError
from sgmft.methods import METHODS
from sgmft.nn import NetworkConfig, Output
from sgmft.nn.fusions import FUSIONS
from sgmft.nn.network import TwoSided
from sgmft.presets import PRESETS, Preset, TrainConfig
from sgmft.saving import versions

PLACES = ["Home", "School", "Work"]
BAD = [
    Post("kitchen", error="already broken", place="row 2"),
    Post("kitchen", images="nowhere.jpg"),
    Post("@bob http://t.cn/x"),
    Post(),
]


def without_nan(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def config_of(folder):
    return without_nan((folder / "config.json").read_text("utf-8"))["sgmft"]


@pytest.fixture
def saved(toy_model, tmp_path):
    toy_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# --- fit and predict


def test_it_learns(toy_model, toy_posts):
    assert toy_model.labels == PLACES
    predicted = toy_model.predict(toy_posts)
    assert np.mean([a == post.label for a, post in zip(predicted, toy_posts, strict=True)]) > 0.9


def test_posts_made_by_hand(toy_model, toy_posts):
    picture = toy_posts[0].images[0]
    text = Post(text="exam desk teacher")
    assert toy_model.predict([text]) == ["School"]
    as_text, as_path = Post(images=str(picture)), Post(images=picture)
    assert as_text == as_path == Post(images=[picture])
    assert toy_model.predict([as_text]) == [toy_posts[0].label]
    both = Post(text="sofa bed", images=[picture, str(picture)])
    assert toy_model.predict_proba([both]).shape == (1, 3)


def test_probabilities_are_rows_in_the_order_of_labels(toy_model, toy_posts):
    found = toy_model.predict_proba(toy_posts)
    assert found.shape == (36, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert (found >= 0).all()
    assert [PLACES[k] for k in found.argmax(1)] == toy_model.predict(toy_posts)


def test_bad_posts_have_a_reason_and_no_label_and_change_no_other(toy_model, toy_posts):
    good = toy_posts[:4]
    mixed = [BAD[0], good[0], good[1], BAD[1], BAD[2], good[2], BAD[3], good[3]]
    answers = list(toy_model.predictions(mixed))
    assert [a.post.text for a in answers] == [post.text for post in mixed]
    assert [a.error is None for a in answers] == [post in good for post in mixed]
    errors = [a.error for a in answers if a.error is not None]
    assert errors[0] == "already broken" and "nowhere.jpg" in errors[1]
    assert all("nothing to go on" in error for error in errors[2:])
    for answer in answers:
        if answer.error is not None:
            assert (answer.label, answer.probabilities, answer.probability) == (None, None, None)
            assert answer.guidance is None
        else:
            assert answer.probability == answer.probabilities.max()
    assert toy_model.predict(mixed) == [a.label for a in answers]
    found = toy_model.predict_proba(mixed)
    bad = [i for i, answer in enumerate(answers) if answer.error is not None]
    assert np.isnan(found[bad]).all() and len(bad) == 4
    np.testing.assert_allclose(
        found[~np.isnan(found[:, 0])], toy_model.predict_proba(good), atol=1e-6
    )


def test_no_posts(toy_model):
    assert toy_model.predict([]) == []
    assert toy_model.predict_proba([]).shape == (0, 3)
    assert np.isnan(toy_model.predict_proba([BAD[0]])).all()
    assert toy_model.predict([BAD[0]]) == [None]


def test_posts_are_taken_one_chunk_at_a_time(toy_model):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Post("sofa bed")

    predictions = toy_model.predictions(endless())
    assert next(predictions).label == "Home" and taken <= 256
    for _ in range(300):
        next(predictions)
    assert taken <= 512


def test_untrained(tiny, tmp_path):
    for use in (
        lambda: tiny().predict([Post("a")]),
        lambda: tiny().predict_proba([]),
        lambda: tiny().save_pretrained(tmp_path / "m"),
    ):
        with pytest.raises(SgmftError, match=r"not trained: call fit\(posts\).*from_pretrained"):
            use()
    assert not (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize("seed", [0, 5])
def test_the_seed_decides_everything(tiny, toy_posts, seed):
    one, other = (tiny(seed=seed).fit(toy_posts).predict_proba(toy_posts) for _ in "ab")
    assert np.array_equal(one, other)
    different = tiny(seed=seed + 1).fit(toy_posts).predict_proba(toy_posts)
    assert not np.array_equal(one, different)
    through_settings = tiny({"seed": seed + 1}).fit(toy_posts).predict_proba(toy_posts)
    assert np.array_equal(different, through_settings)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_from_posts_to_a_loaded_model(tiny, toy_posts, tmp_path, preset):
    locator = tiny(preset=preset, features=tmp_path / "f")
    locator.fit(toy_posts)
    found = locator.predict_proba(toy_posts)
    assert np.isfinite(found).all()
    locator.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    assert loaded.preset.name == preset and loaded.labels == PLACES
    assert loaded.uses_tokens == (preset == "tokens")
    assert np.array_equal(loaded.predict_proba(toy_posts), found)


@pytest.mark.parametrize("preset", ["tokens", "elements", "default"])
def test_a_feature_store_changes_no_figure(tiny, toy_posts, tmp_path, preset):
    plain = tiny(preset=preset).fit(toy_posts)
    expected = plain.predict_proba(toy_posts)
    for _ in ("empty", "full"):
        kept = tiny(preset=preset, features=tmp_path).fit(toy_posts)
        assert np.array_equal(kept.predict_proba(toy_posts), expected)
        assert kept.record == plain.record or repr(kept.record) == repr(plain.record)
    assert list(tmp_path.rglob("part-*.parquet"))


# --- the default, which is solved at once


@pytest.fixture(scope="module")
def default(tiny, toy_posts):
    return tiny(preset="default").fit(toy_posts)


def test_the_default_learns_from_all_posts_and_tells_how_it_judged_those_left_out(
    default, toy_posts
):
    found = default.predict(toy_posts)
    assert np.mean([a == post.label for a, post in zip(found, toy_posts, strict=True)]) > 0.9
    data, metrics = default.record["data"], default.record["metrics"]
    assert (data["posts"], data["train"], data["validation"]) == (36, 36, 0)
    (line,) = default.record["history"]
    assert metrics == {
        "validation accuracy": line["val_accuracy"],
        "validation loss": line["val_loss"],
    }
    assert line["loss"] < metrics["validation loss"] < math.log(3)


def test_the_default_says_how_far_the_gate_is_open(default, toy_posts):
    """In a post without one of its sides there is nothing to weigh."""
    for post, answer in zip(toy_posts, default.predictions(toy_posts), strict=True):
        gate, elements = answer.guidance
        assert (0 < gate <= 1) if post.text and post.images else gate == 0
        assert math.isnan(elements)


def test_posts_that_lack_a_side_or_say_nothing_known(default):
    """Words that no training post has, and the posts beside it, change nothing."""
    posts = [Post("sofa bed"), Post("zebra"), Post("sofa bed zebra"), Post("exam desk")]
    together = default.predict_proba(posts)
    alone = np.concatenate([default.predict_proba([post]) for post in posts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.isfinite(together).all()
    assert [default.labels[k] for k in together[[0, 3]].argmax(1)] == ["Home", "School"]


def test_texts_that_have_nothing_in_common_are_learned_from_too(tiny):
    posts = [Post("sofa", label="Home"), Post("exam", label="School")]
    found = tiny(preset="default").fit(posts).predict_proba(posts)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_a_saved_default_says_the_same_and_learns_anew(default, toy_posts, tmp_path):
    default.save_pretrained(tmp_path)
    config = config_of(tmp_path)
    assert (config["method"], config["preset"]) == ("sgmft", "default")
    assert config["model"]["vocabulary_size"] == len(default.network.lexical.vocabulary) > 10
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert type(loaded.network) is type(default.network) and loaded.preset == default.preset
    expected = default.predict_proba(toy_posts)
    assert np.array_equal(loaded.predict_proba(toy_posts), expected)
    assert np.array_equal(loaded.fit(toy_posts).predict_proba(toy_posts), expected)


def test_the_defaults_seed_decides_its_folds(tiny, toy_posts, default):
    one, other = (tiny(preset="default", seed=seed).fit(toy_posts) for seed in (0, 1))
    expected = default.predict_proba(toy_posts)
    assert np.array_equal(one.predict_proba(toy_posts), expected)
    assert not np.array_equal(other.predict_proba(toy_posts), expected)


def test_posts_held_out_from_the_default_are_learned_from_in_the_end(tiny, toy_posts, default):
    locator = tiny(preset="default", val_size=0.25).fit(toy_posts)
    data, metrics = locator.record["data"], locator.record["metrics"]
    assert (data["train"], data["validation"]) == (27, 9)
    assert metrics["validation accuracy"] * 9 == pytest.approx(
        round(metrics["validation accuracy"] * 9)
    )
    expected = default.predict_proba(toy_posts)
    assert np.array_equal(locator.predict_proba(toy_posts), expected)


# --- what is known of a training


def test_posts_left_out_are_counted(tiny, toy_posts):
    unlabelled = [replace(post, label=None) for post in toy_posts[:3]]
    broken = [replace(post, label="Home") for post in BAD]
    record = tiny().fit([*toy_posts, *unlabelled, *broken]).record["data"]
    assert record["posts"] == 36 == record["train"] + record["validation"]
    assert record["validation"] > 0
    assert record["skipped"].pop("no label") == 3
    assert sum(record["skipped"].values()) == 4
    assert record["skipped"]["already broken"] == 1
    assert record["skipped"]["there is no file …"] == 1


def test_the_fingerprint_is_of_posts_and_labels_not_of_their_order(tiny, toy_posts):
    def fingerprint(posts):
        return tiny({"epochs": 1}).fit(posts).record["data"]["fingerprint"]

    relabelled = [replace(toy_posts[0], label="Work"), *toy_posts[1:]]
    assert fingerprint(toy_posts) == fingerprint(toy_posts[::-1])
    assert len({fingerprint(toy_posts), fingerprint(relabelled), fingerprint(toy_posts[1:])}) == 3


@pytest.fixture
def confused(toy_posts):
    """Posts of which every fourth has a wrong label: learning them by heart does not pay."""
    wrong = dict(zip(PLACES, [*PLACES[1:], PLACES[0]], strict=True))
    return [
        replace(post, label=wrong[post.label]) if i % 4 == 1 else post
        for i, post in enumerate(toy_posts)
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
    import sgmft.fitting as module

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
    ("posts", "told"),
    [
        ([], "0 usable posts have 0."),
        ([Post("sofa", label="Home")] * 2, "2 usable posts have 1."),
        (
            [Post("a", label="Home"), Post("b"), Post(images="x.jpg", label="Work"), Post("c")],
            "1 usable posts have 1, and were left out: 1 x there is no file …; 2 x no label.",
        ),
    ],
)
def test_fewer_than_two_labels_tells_why(tiny, posts, told):
    with pytest.raises(SgmftError) as caught:
        tiny().fit(posts)
    assert str(caught.value) == f"Training needs posts of at least two labels; {told}"


def test_split_by_user_puts_no_user_on_both_sides(tiny, toy_posts, monkeypatch):
    import sgmft.locator as module

    seen = {}

    def watched(data, held_out, *rest, **options):
        seen["held"] = set(held_out)
        return fit(data, held_out, *rest, **options)

    fit = module.fit_network
    monkeypatch.setattr(module, "fit_network", watched)
    tiny(val_size=0.3).fit(toy_posts, split_by="user")
    held = {toy_posts[i].user for i in seen["held"]}
    kept = {post.user for i, post in enumerate(toy_posts) if i not in seen["held"]}
    assert held and kept and not held & kept
    with pytest.raises(SgmftError, match="two users or more"):
        tiny().fit([replace(post, user=None) for post in toy_posts], split_by="user")
    with pytest.raises(SgmftError, match="'label' or 'user'"):
        tiny().fit(toy_posts, split_by="city")


@pytest.mark.parametrize("size", [1.0, -0.1, math.nan])
def test_a_held_out_share_that_does_not_fit(tiny, toy_posts, size):
    with pytest.raises(SgmftError, match="does not fit 36 posts"):
        tiny(val_size=size).fit(toy_posts)


def test_interrupted_training_continues_to_the_same_model(tiny, toy_posts, tmp_path):
    class StopHereError(Exception):
        pass

    def stopping(at):
        def on_epoch(epoch):
            told.append(epoch.epoch)
            if len(told) == at:
                raise StopHereError

        told = []
        return on_epoch

    settings = {"epochs": 4, "patience": 2, "dropout": 0.3}
    expected = tiny(settings).fit(toy_posts)
    for at in (1, 3, 6):  # in the choice of the epoch, and in what follows it
        try:
            tiny(settings).fit(toy_posts, checkpoint=tmp_path, on_epoch=stopping(at))
        except StopHereError:
            continue
        assert at == 6
    resumed = tiny(settings).fit(toy_posts, checkpoint=tmp_path)
    assert repr(resumed.record) == repr(expected.record)
    state = expected.network.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in resumed.network.state_dict().items())


def test_wrong_names_are_told_at_once(tiny):
    for options, told in (
        ({"method": "clip"}, "no method 'clip': use sgmft"),
        ({"preset": "best"}, "no preset 'best' of sgmft: use default"),
        ({"encoder": "cnn"}, "The encoder 'cnn' gives words as numbers of a vocabulary"),
        ({"settings": {"sfm": False}}, "no setting 'sfm'"),
        ({"settings": {"epoch": 1}}, "no setting 'epoch'"),
    ):
        with pytest.raises(SgmftError, match=told):
            SemanticLocator(**options)
    with pytest.raises(SgmftError, match="no encoder 'nonsense': use compact"):
        SemanticLocator("nonsense").encode([])
    with pytest.raises(SgmftError, match="'paper', 'light', 'none'"):
        SemanticLocator("compact", cleaning="hard").encode([])
    with pytest.raises(SgmftError, match="no device 'quantum' here"):
        SemanticLocator("compact", device="quantum").encode([])


# --- saving


def test_a_loaded_locator_learns_anew_as_the_saved_one_did(toy_model, toy_posts, saved):
    again = SemanticLocator.from_pretrained(saved)
    assert again.preset == toy_model.preset
    assert np.array_equal(
        again.fit(toy_posts).predict_proba(toy_posts), toy_model.predict_proba(toy_posts)
    )


def test_config_says_what_it_is_of(toy_model, saved):
    config = config_of(saved)
    assert config["format"] == 1
    assert config["labels"] == PLACES
    info = toy_model.encoder.info
    assert config["encoder"] == {"name": "tiny", "cleaning": "light"} | {
        "fingerprint": info.fingerprint
    }
    assert config["method"] == "sgmft" and config["preset"] == "elements"
    assert config["train"]["epochs"] == 12 and config["train"]["seed"] == 0
    assert config["model"]["width"] == 16 and config["model"]["classes"] == 3
    assert config["model"]["fusion"] == "sfm" and "sfm" not in config["model"]
    assert config["data"]["fingerprint"] == toy_model.record["data"]["fingerprint"]
    assert config["metrics"] == {} and len(config["history"]) == 12
    assert config["versions"] == versions() and {"sgmft", "torch"} <= set(versions())
    assert sorted(x.name for x in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_config_is_json_that_any_reader_takes(toy_model, saved):
    # NaN, as the history has it without held-out posts, is no JSON.
    assert math.isnan(toy_model.record["history"][0]["val_loss"])
    assert config_of(saved)["history"][0]["val_loss"] is None


@dataclass(frozen=True)
class LinearConfig(NetworkConfig):
    width: int = 4
    shape: tuple[int, ...] = (1,)

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))


class Linear(TwoSided):
    """Pooled features added: a method that a user might bring."""

    def __init__(self, config):
        super().__init__(config, config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, batch):
        fused = torch.stack(self.pooled_inputs(batch)).sum(0)
        return Output(self.head(fused), fused)


@pytest.fixture
def linear(monkeypatch):
    """The method "linear", with two presets and a setting that JSON turns into a list."""
    train = TrainConfig(epochs=30, learning_rate=3e-2)
    presets = {
        "narrow": Preset("narrow", {"width": 4}, train),
        "wide": Preset("wide", {"width": 8, "shape": (2, 3)}, train),
    }
    method = Method(
        "linear", "A line", "by hand", network=Linear, config=LinearConfig, presets=presets
    )
    monkeypatch.setitem(METHODS, "linear", method)
    return method


@pytest.mark.parametrize("preset", [None, "wide"])
def test_another_method_is_learned_saved_and_loaded_as_that(
    tiny, linear, toy_posts, tmp_path, preset
):
    locator = SemanticLocator("tiny", method="linear", preset=preset).fit(toy_posts)
    found = locator.predict_proba(toy_posts)
    assert [PLACES[k] for k in found.argmax(1)] == [post.label for post in toy_posts]
    assert all(math.isnan(x) for x in next(locator.predictions(toy_posts)).guidance)
    locator.save_pretrained(tmp_path)
    config = config_of(tmp_path)
    assert (config["method"], config["preset"]) == ("linear", preset or "narrow")
    assert "with A line (by hand)" in (tmp_path / "README.md").read_text("utf-8")
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.method is linear and type(loaded.network) is Linear
    assert loaded.preset == locator.preset and loaded.network.config == locator.network.config
    assert np.array_equal(loaded.predict_proba(toy_posts), found)
    assert np.array_equal(loaded.fit(toy_posts).predict_proba(toy_posts), found)


def test_a_model_of_a_method_that_is_not_there(linear, tiny, toy_posts, tmp_path, monkeypatch):
    settings = {"epochs": 1}
    locator = SemanticLocator("tiny", method="linear", settings=settings).fit(toy_posts)
    locator.save_pretrained(tmp_path)
    monkeypatch.delitem(METHODS, "linear")
    with pytest.raises(SgmftError, match="no method 'linear': use sgmft"):
        SemanticLocator.from_pretrained(tmp_path)


class Largest(nn.Module):
    """A user's fusion module: the largest value of each number over all words and regions."""

    def __init__(self, width, heads, layers):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(layers, width))

    def forward(self, text, image, text_mask, image_mask):
        tokens, mask = torch.cat([text, image], 1), torch.cat([text_mask, image_mask], 1)
        return tokens.masked_fill(~mask[..., None], -torch.inf).amax(1) * self.gain.sum(0)


def test_a_fusion_module_of_the_users_own(tiny, toy_posts, tmp_path, monkeypatch):
    monkeypatch.setitem(FUSIONS, "mine", Largest)
    settings = {"fusion": "mine", "fusion_layers": 3, "epochs": 15, "dropout": 0.0}
    locator = tiny(settings, preset="tokens", val_size=0.0).fit(toy_posts)
    fusion = locator.network.fusion
    assert isinstance(fusion, Largest) and fusion.gain.shape == (3, 16)
    assert not torch.equal(fusion.gain, torch.ones(3, 16))  # it has learned
    found = locator.predict_proba(toy_posts)
    right = [PLACES[k] == post.label for k, post in zip(found.argmax(1), toy_posts, strict=True)]
    assert np.mean(right) > 0.9
    locator.save_pretrained(tmp_path)
    assert config_of(tmp_path)["model"]["fusion"] == "mine"
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert isinstance(loaded.network.fusion, Largest)
    assert np.array_equal(loaded.predict_proba(toy_posts), found)
    monkeypatch.delitem(FUSIONS, "mine")
    with pytest.raises(SgmftError, match=r"no fusion module 'mine': use sfm, .* register your own"):
        SemanticLocator.from_pretrained(tmp_path)
    with pytest.raises(SgmftError, match="no fusion module 'mine'"):
        tiny(settings, preset="tokens").fit(toy_posts)


def test_a_grid_of_regions_is_the_encoders_and_is_saved(tiny, toy_posts, tmp_path):
    def make(**options):
        return tiny(preset="tokens", features=tmp_path / "features", **options)

    coarse, fine = make(), make(patch_grid=4)
    assert coarse.encode(toy_posts).features.regions_per_picture == 4  # the encoder's default
    assert fine.encode(toy_posts).features.regions_per_picture == 16
    assert coarse.encoder.info.fingerprint != fine.encoder.info.fingerprint
    fine.fit(toy_posts).save_pretrained(tmp_path / "fine")
    coarse.fit(toy_posts).save_pretrained(tmp_path / "coarse")
    assert config_of(tmp_path / "fine")["encoder"]["patch_grid"] == 4
    assert "patch_grid" not in config_of(tmp_path / "coarse")["encoder"]
    for name, locator, regions in (("fine", fine, 16), ("coarse", coarse, 4)):
        loaded = SemanticLocator.from_pretrained(tmp_path / name)
        assert loaded.encoder.info == locator.encoder.info
        assert loaded.encode(toy_posts).features.regions_per_picture == regions
        found = loaded.predict_proba(toy_posts)
        assert np.array_equal(found, locator.predict_proba(toy_posts))
    coarse, fine = (
        SemanticLocator.from_pretrained(tmp_path / name).predict_proba(toy_posts)
        for name in ("coarse", "fine")
    )
    assert not np.array_equal(coarse, fine)


def test_labels_of_any_language_survive(tiny, toy_posts, tmp_path):
    names = {"Home": "家", "School": 'a "school"', "Work": "工 作"}
    posts = [replace(post, label=names[post.label]) for post in toy_posts]
    tiny().fit(posts).save_pretrained(tmp_path)
    assert "家" in (tmp_path / "config.json").read_text("utf-8")
    assert SemanticLocator.from_pretrained(tmp_path).labels == sorted(names.values())


def test_the_model_card_is_renewed_but_a_written_one_stays(tiny, toy_posts, tmp_path):
    locator, card = tiny().fit(toy_posts), tmp_path / "README.md"
    locator.save_pretrained(tmp_path)
    first = card.read_text("utf-8")
    assert "Labels: Home, School, Work" in first and "library_name: sgmft" in first
    assert locator.record["data"]["fingerprint"] in first
    assert "validation accuracy" in first and "from_pretrained" in first
    renamed = [replace(post, label=f"{post.label}!") for post in toy_posts]
    tiny().fit(renamed).save_pretrained(tmp_path)
    assert "Labels: Home!, School!, Work!" in card.read_text("utf-8")
    card.write_text("# By hand\n", "utf-8")
    locator.save_pretrained(tmp_path)
    assert card.read_text("utf-8") == "# By hand\n"
    assert config_of(tmp_path)["labels"] == PLACES


FRESH = """
import sys, numpy
from sgmft import SemanticLocator, read_posts
locator = SemanticLocator.from_pretrained(sys.argv[1])
numpy.save(sys.argv[3], locator.predict_proba(read_posts(sys.argv[2])))
"""


def test_a_moved_model_gives_the_same_probabilities_in_another_process(trained, sample, tmp_path):
    lines = sample.read_text("utf-8").splitlines()[:7]
    table = sample.with_name("seven.jsonl")
    table.write_text("\n".join(lines), "utf-8")
    before = SemanticLocator.from_pretrained(trained).predict_proba(read_posts(table))
    moved = shutil.copytree(trained, tmp_path / "else where" / "模型")
    command = [sys.executable, "-c", FRESH, moved, table, tmp_path / "found.npy"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), before)
    assert np.isfinite(before).all()


# --- loading


def edited(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    change(config)
    path.write_text(json.dumps(config), "utf-8")


def test_a_folder_that_is_not_there(tmp_path):
    for name in (tmp_path / "gone", "gone", "a/b/c", ""):
        with pytest.raises(SgmftError, match=r"(?s)no model .*: no such folder|has no config"):
            SemanticLocator.from_pretrained(name)


def test_a_repository_that_cannot_be_reached():
    with pytest.raises(SgmftError, match="no such folder, and no repository"):
        SemanticLocator.from_pretrained("nobody/nothing")


def test_an_empty_folder(tmp_path):
    with pytest.raises(SgmftError, match=r"not a model saved by sgmft: it has no config\.json"):
        SemanticLocator.from_pretrained(tmp_path)


def test_weights_missing(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(SgmftError, match=r"it has no model\.safetensors"):
        SemanticLocator.from_pretrained(saved)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"model_type": "bert"}', "of another kind"),
        ("[]", "of another kind"),
        ('{"sgmft": {}}', "of another kind"),
        ('{"sgmft": 3}', "of another kind"),
        ('{"sgmft": {"format": ', "not readable"),
        ("", "not readable"),
        ("\udcff", "not readable"),
    ],
)
def test_a_config_of_something_else(saved, text, told):
    (saved / "config.json").write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(SgmftError, match=f"not a model saved by sgmft: .*{told}"):
        SemanticLocator.from_pretrained(saved)


def test_a_newer_format(saved):
    edited(saved, lambda config: config["sgmft"].update(format=999))
    with pytest.raises(SgmftError, match=r"in a newer format than sgmft .* reads: pip install"):
        SemanticLocator.from_pretrained(saved)


def test_a_setting_of_a_newer_model(saved):
    edited(saved, lambda config: config["sgmft"]["model"].update(warp=9))
    with pytest.raises(SgmftError, match="settings warp are not known"):
        SemanticLocator.from_pretrained(saved)


def test_a_model_from_before_fusion_modules_had_names(saved):
    def old(config):
        del config["sgmft"]["model"]["fusion"]
        config["sgmft"]["model"]["sfm"] = True

    edited(saved, old)
    with pytest.raises(SgmftError, match="settings sfm are not known here"):
        SemanticLocator.from_pretrained(saved)


def test_a_model_from_before_methods_had_names(saved):
    edited(saved, lambda config: config["sgmft"].pop("method"))
    with pytest.raises(SgmftError, match=r"its config\.json is of another kind"):
        SemanticLocator.from_pretrained(saved)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "other"])
def test_damaged_weights(saved, tiny, toy_posts, tmp_path, how):
    path = saved / "model.safetensors"
    if how == "other":
        tiny({"width": 32, "epochs": 1}).fit(toy_posts).save_pretrained(tmp_path / "wide")
        shutil.copy(tmp_path / "wide" / "model.safetensors", path)
    else:
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.write_bytes({"cut": half, "empty": b"", "text": b"<html>404</html>"}[how])
    with pytest.raises(SgmftError, match=r"model\.safetensors is damaged or belongs to another"):
        SemanticLocator.from_pretrained(saved)


def test_an_encoder_that_moved(saved, toy_posts, toy_model):
    edited(saved, lambda config: config["sgmft"]["encoder"].update(name="/gone/encoder"))
    with pytest.raises(SgmftError, match="/gone/encoder"):
        SemanticLocator.from_pretrained(saved).predict(toy_posts)
    loaded = SemanticLocator.from_pretrained(saved, encoder="tiny")
    assert loaded.predict(toy_posts) == toy_model.predict(toy_posts)


def test_a_device_that_is_not_there(saved):
    assert SemanticLocator.from_pretrained(saved, device="cpu").device == "cpu"
    with pytest.raises(SgmftError, match="no device 'quantum' here"):
        SemanticLocator.from_pretrained(saved, device="quantum")
