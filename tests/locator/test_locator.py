"""`SemanticLocator`: what it learns and predicts, with methods of the user's own too."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from sgmft import Abstention, Post, SemanticLocator
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.evaluation.calibration import rescale_probabilities
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.fusions import FUSIONS
from sgmft.models.method import Method
from sgmft.models.network import BimodalNetwork
from sgmft.models.presets import Preset, TrainConfig
from sgmft.models.registry import METHODS, get_method
from sgmft.utils.checksums import with_checksum
from small_networks import equal_weights
from small_posts import LABELS, UNUSABLE, saved_config


def test_posts_made_by_hand(small_model, small_posts):
    picture = small_posts[0].images[0]
    text = Post(text="exam desk teacher")
    assert small_model.predict([text]) == ["School"]
    as_text, as_path = Post(images=str(picture)), Post(images=picture)
    assert as_text == as_path == Post(images=[picture])
    assert small_model.predict([as_text]) == [small_posts[0].label]
    both = Post(text="sofa bed", images=[picture, str(picture)])
    assert small_model.predict_proba([both]).shape == (1, 3)


def test_it_learns_and_its_probabilities_are_rows_in_the_order_of_labels(small_model, small_posts):
    assert small_model.labels == LABELS
    found, predicted = small_model.predict_proba(small_posts), small_model.predict(small_posts)
    assert np.mean([a == post.label for a, post in zip(predicted, small_posts, strict=True)]) > 0.9
    assert found.shape == (36, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert (found >= 0).all() and [LABELS[k] for k in found.argmax(1)] == predicted


def test_bad_posts_have_a_reason_and_no_label_and_change_no_other(small_model, small_posts):
    good = small_posts[:4]
    mixed = [UNUSABLE[0], good[0], good[1], UNUSABLE[1], UNUSABLE[2], good[2], UNUSABLE[3], good[3]]
    predictions = list(small_model.predictions(mixed))
    assert [a.post.text for a in predictions] == [post.text for post in mixed]
    assert [a.error is None for a in predictions] == [post in good for post in mixed]
    errors = [a.error for a in predictions if a.error is not None]
    assert errors[0] == "already broken" and "nowhere.jpg" in errors[1]
    assert all("nothing to go on" in error for error in errors[2:])
    for _, label, probs, guidance, *_ in (a for a in predictions if a.error is not None):
        assert label is probs is guidance is None
    assert all(a.probability == a.probabilities.max() for a in predictions if a.error is None)
    assert small_model.predict(mixed) == [a.label for a in predictions]
    found = small_model.predict_proba(mixed)
    bad = np.array([prediction.error is not None for prediction in predictions])
    assert np.isnan(found[bad]).all() and bad.sum() == 4
    np.testing.assert_allclose(found[~bad], small_model.predict_proba(good), atol=1e-6)


def test_no_posts(small_model):
    assert small_model.predict([]) == []
    assert small_model.predict_proba([]).shape == (0, 3)
    assert small_model.predict([UNUSABLE[0]]) == [None]


def test_a_training_that_breaks_off_leaves_the_model_as_it_was(tiny, small_posts):
    def stop(_):
        raise KeyboardInterrupt

    renamed = [replace(post, label=f"new {post.label}") for post in small_posts]
    locator = tiny().fit(small_posts)
    before, labels = locator.predict_proba(small_posts), locator.labels
    with pytest.raises(KeyboardInterrupt):
        locator.fit(renamed, on_epoch=stop)
    assert locator.labels == labels
    np.testing.assert_array_equal(locator.predict_proba(small_posts), before)
    untrained = tiny()
    with pytest.raises(KeyboardInterrupt):
        untrained.fit(renamed, on_epoch=stop)
    assert not untrained.labels and not untrained.__sklearn_is_fitted__()


def test_posts_are_taken_one_chunk_ahead(small_model):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Post("sofa bed")

    predictions = small_model.predictions(endless())
    assert next(predictions).label == "Home" and taken <= 512
    for _ in range(300):
        next(predictions)
    assert taken <= 768


def test_untrained(tiny, tmp_path):
    for use in (
        lambda: tiny().predict([Post("a")]),
        lambda: tiny().predict_proba([]),
        lambda: tiny().save_pretrained(tmp_path / "m"),
    ):
        with pytest.raises(SgmftError, match=r"not trained: call fit\(posts\).*from_pretrained"):
            use()
    assert not (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize(
    ("preset", "seed"),
    [
        ("elements", 0),
        ("default", 5),
        pytest.param("elements", 5, marks=pytest.mark.slow),
        pytest.param("default", 0, marks=pytest.mark.slow),
    ],
)
def test_the_seed_decides_everything(tiny, small_posts, seed, preset):
    def learned(seed, settings=None):
        locator = tiny(settings, preset=preset, seed=seed)
        return locator.fit(small_posts).predict_proba(small_posts)

    one, different = learned(seed), learned(seed + 1)
    assert np.array_equal(one, learned(seed)) and not np.array_equal(one, different)
    assert np.array_equal(different, learned(seed, {"seed": seed + 1}))


@pytest.mark.parametrize("preset", ["default", *get_method("sgmft").presets])
def test_every_preset_from_posts_to_a_loaded_model(tiny, small_posts, tmp_path, preset):
    plain = tiny(preset=preset).fit(small_posts)
    found = plain.predict_proba(small_posts)
    assert np.isfinite(found).all()
    for _ in ("empty", "full"):  # a feature store changes no figure
        kept = tiny(preset=preset, features=tmp_path / "f").fit(small_posts)
        assert np.array_equal(kept.predict_proba(small_posts), found)
        assert repr(kept.training.to_config()) == repr(plain.training.to_config())
    assert list(tmp_path.rglob("part-*.parquet"))
    kept.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    assert loaded.preset.name == preset and loaded.labels == LABELS
    assert loaded.uses_tokens == (preset in ("tokens", "distilled"))
    assert np.array_equal(loaded.predict_proba(small_posts), found)


def test_wrong_names_are_told_at_once(tiny):
    for options, message in (
        ({"method": "clip"}, "no method 'clip': use gated-experts, sgmft"),
        ({"preset": "best"}, "no preset 'best': use tokens, elements"),
        ({"encoder": "cnn"}, "The encoder 'cnn' gives words as numbers of a vocabulary"),
        ({"settings": {"sfm": False}}, "no setting 'sfm'"),
        ({"settings": {"epoch": 1}}, "no setting 'epoch'"),
    ):
        with pytest.raises(SgmftError, match=message):
            SemanticLocator(**options)
    with pytest.raises(SgmftError, match="no encoder 'nonsense': use compact"):
        SemanticLocator("nonsense").encode([])
    with pytest.raises(SgmftError, match="use paper, light, none"):
        SemanticLocator("compact", cleaning="hard").encode([])
    with pytest.raises(SgmftError, match="no device 'quantum' here"):
        SemanticLocator("compact", device="quantum").encode([])


@pytest.fixture(scope="module")
def default(tiny, small_posts):
    return tiny(preset="default").fit(small_posts)


def test_the_default_learns_from_all_posts_and_measures_each_in_its_turn(default, small_posts):
    found = default.predict(small_posts)
    assert np.mean([a == post.label for a, post in zip(found, small_posts, strict=True)]) > 0.9
    data, metrics = default.training.to_config()["data"], default.training.to_config()["metrics"]
    assert (data["posts"], data["train"], data["validation"]) == (36, 36, 0)
    (line,) = default.training.to_config()["history"]
    assert metrics == {
        "validation accuracy": line["val_accuracy"],
        "validation loss": line["val_loss"],
    }
    assert line["loss"] < metrics["validation loss"] < math.log(3)


def test_the_default_reports_how_far_the_gate_is_open(default, small_posts):
    """In a post without one of its modalities there is nothing to weigh."""
    for post, prediction in zip(small_posts, default.predictions(small_posts), strict=True):
        gate, elements = prediction.guidance
        assert (0 < gate <= 1) if post.text and post.images else gate == 0
        assert math.isnan(elements)


def test_posts_with_one_modality_or_unknown_words(default):
    """Words that no training post has, and the posts beside it, change nothing."""
    posts = [Post("sofa bed"), Post("zebra"), Post("sofa bed zebra"), Post("exam desk")]
    together = default.predict_proba(posts)
    alone = np.concatenate([default.predict_proba([post]) for post in posts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.isfinite(together).all()
    assert [default.labels[k] for k in together[[0, 3]].argmax(1)] == ["Home", "School"]


def test_texts_that_have_nothing_in_common_are_learned_from_too(tiny):
    posts = [Post("sofa", label="Home"), Post("exam", label="School")]
    with pytest.warns(SgmftWarning, match="Home, School"):
        locator = tiny(preset="default").fit(posts)
    np.testing.assert_allclose(locator.predict_proba(posts).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["gated-experts", "sgmft"])  # as sgmft 0.1 called it
def test_a_saved_default_predicts_the_same_and_learns_anew(default, small_posts, tmp_path, method):
    default.save_pretrained(tmp_path)
    config = saved_config(tmp_path)
    assert (config["method"], config["preset"]) == ("gated-experts", "default")
    assert config["model"]["vocabulary_size"] == len(default.network.lexical.vocabulary) > 10
    config = with_checksum(config | {"method": method})
    (tmp_path / "config.json").write_text(json.dumps({"sgmft": config}), "utf-8")
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.method is default.method and loaded.preset == default.preset
    assert type(loaded.network) is type(default.network)
    expected = default.predict_proba(small_posts)
    assert np.array_equal(loaded.predict_proba(small_posts), expected)
    assert np.array_equal(loaded.fit(small_posts).predict_proba(small_posts), expected)


def test_posts_held_out_from_the_default_are_learned_from_in_the_end(tiny, small_posts, default):
    locator = tiny(preset="default", val_size=0.25).fit(small_posts)
    data, metrics = locator.training.to_config()["data"], locator.training.to_config()["metrics"]
    assert (data["train"], data["validation"]) == (27, 9)
    assert metrics["validation accuracy"] * 9 == pytest.approx(
        round(metrics["validation accuracy"] * 9)
    )
    parts = default.encode(small_posts).features.parts
    logits = np.log(default.predict_proba(small_posts)) * default.temperatures[parts, None]
    expected = softmax(logits / locator.temperatures[parts, None], axis=1)
    np.testing.assert_allclose(locator.predict_proba(small_posts), expected, atol=1e-5)


# --- training


def test_posts_left_out_are_counted(tiny, small_posts):
    unlabelled = [replace(post, label=None) for post in small_posts[:3]]
    broken = [replace(post, label="Home") for post in UNUSABLE]
    record = tiny().fit([*small_posts, *unlabelled, *broken]).training.to_config()["data"]
    assert record["posts"] == 36 == record["train"] + record["validation"]
    assert record["validation"] > 0
    assert record["skipped"].pop("no label") == 3
    assert sum(record["skipped"].values()) == 4
    assert record["skipped"]["already broken"] == 1
    assert record["skipped"]["there is no file …"] == 1


def test_the_fingerprint_is_of_posts_and_labels_not_of_their_order(tiny, small_posts):
    def fingerprint(posts):
        return tiny({"epochs": 1}).fit(posts).training.to_config()["data"]["fingerprint"]

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
    record = tiny(HASTY, val_size=0.3).fit(confused).training.to_config()
    best = min(record["history"], key=lambda epoch: epoch["val_loss"])
    assert best["epoch"] == len(record["history"]) - 4 < 36
    assert record["metrics"] == {
        "validation accuracy": best["val_accuracy"],
        "validation loss": best["val_loss"],
    }
    assert tiny(val_size=0.0).fit(confused).training.to_config()["metrics"] == {}


@pytest.mark.parametrize("refit", [False, True])
def test_held_out_posts_choose_and_may_then_be_learned_from(tiny, confused, monkeypatch, refit):
    import sgmft.training.trainer as module

    runs = []

    def watched(network, data, validation, config, **options):
        history = train(network, data, validation, config, **options)
        runs.append((len(data.labels), validation is not None, config.patience, len(history)))
        return history

    train = module.train
    monkeypatch.setattr(module, "train", watched)
    locator = tiny(HASTY, val_size=0.25)
    locator.preset = replace(locator.preset, refit=refit)
    record = locator.fit(confused).training.to_config()
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
    import sgmft.training.fit as module

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
    assert repr(resumed.training.to_config()) == repr(expected.training.to_config())
    assert equal_weights(resumed.network.state_dict(), expected.network.state_dict())


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "late-average"}, {"preset": "elements", "settings": {"epochs": 2}}],
    ids=str,
)
def test_fit_finds_a_temperature_that_only_scales(fitted, small_posts, options):
    locator = fitted(**options)
    temperatures = locator.temperatures
    assert all(x != 1 and 0.05 <= x <= 20 for x in temperatures)
    first, *others = temperatures.tolist()
    assert locator.training.to_config()["calibration"] == {"temperature": first, "by_parts": others}
    scaled, labels = locator.predict_proba(small_posts), locator.predict(small_posts)
    locator.training.temperatures = (1.0,) * 4
    raw = locator.predict_proba(small_posts).astype(float)
    own = temperatures[locator.encode(small_posts).features.parts, None]
    np.testing.assert_allclose(rescale_probabilities(raw, own), scaled, atol=1e-5)
    assert locator.predict(small_posts) == labels


def test_without_held_out_posts_probabilities_are_the_networks(fitted, small_posts):
    locator = fitted(preset="paper", settings={"epochs": 1})
    assert locator.temperatures.tolist() == [1] * 4
    assert fitted(method="text-only", settings={}).temperatures[0] != 1  # held out in turn
    with pytest.raises(SgmftError, match="--val-size"):
        locator.predict(small_posts, Abstention(coverage=0.8))
    assert None in locator.predict(small_posts, Abstention(min_probability=0.999))


# --- methods and fusion modules of the user's own


@dataclass(frozen=True)
class LinearConfig(NetworkConfig):
    width: int = 4
    shape: tuple[int, ...] = (1,)

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))


class Linear(BimodalNetwork):
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
    tiny, linear, small_posts, tmp_path, preset, monkeypatch
):
    locator = SemanticLocator("tiny", method="linear", preset=preset).fit(small_posts)
    found = locator.predict_proba(small_posts)
    assert [LABELS[k] for k in found.argmax(1)] == [post.label for post in small_posts]
    assert all(math.isnan(x) for x in next(locator.predictions(small_posts)).guidance)
    locator.save_pretrained(tmp_path)
    config = saved_config(tmp_path)
    assert (config["method"], config["preset"]) == ("linear", preset or "narrow")
    assert "Method: A line (by hand)" in (tmp_path / "README.md").read_text("utf-8")
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.method is linear and type(loaded.network) is Linear
    assert loaded.preset == locator.preset and loaded.network.config == locator.network.config
    assert np.array_equal(loaded.predict_proba(small_posts), found)
    assert np.array_equal(loaded.fit(small_posts).predict_proba(small_posts), found)
    monkeypatch.delitem(METHODS, "linear")
    with pytest.raises(SgmftError, match="no method 'linear': use gated-experts"):
        SemanticLocator.from_pretrained(tmp_path)


class Largest(nn.Module):
    """A user's fusion module: the largest value of each number over all words and regions."""

    def __init__(self, width, heads, layers):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(layers, width))

    def forward(self, text, image, text_mask, image_mask):
        tokens, mask = torch.cat([text, image], 1), torch.cat([text_mask, image_mask], 1)
        return tokens.masked_fill(~mask[..., None], -torch.inf).amax(1) * self.gain.sum(0)


def test_a_fusion_module_of_the_users_own(tiny, small_posts, tmp_path, monkeypatch):
    monkeypatch.setitem(FUSIONS, "mine", Largest)
    settings = {"fusion": "mine", "fusion_layers": 3, "epochs": 15, "dropout": 0.0}
    locator = tiny(settings, preset="tokens", val_size=0.0).fit(small_posts)
    fusion = locator.network.fusion
    assert isinstance(fusion, Largest) and fusion.gain.shape == (3, 16)
    assert not torch.equal(fusion.gain, torch.ones(3, 16))  # it has learned
    found = locator.predict_proba(small_posts)
    right = [LABELS[k] == post.label for k, post in zip(found.argmax(1), small_posts, strict=True)]
    assert np.mean(right) > 0.9
    locator.save_pretrained(tmp_path)
    assert saved_config(tmp_path)["model"]["fusion"] == "mine"
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert isinstance(loaded.network.fusion, Largest)
    assert np.array_equal(loaded.predict_proba(small_posts), found)
    monkeypatch.delitem(FUSIONS, "mine")
    with pytest.raises(SgmftError, match=r"no fusion module 'mine': use sfm, .* register your own"):
        SemanticLocator.from_pretrained(tmp_path)
    with pytest.raises(SgmftError, match="no fusion module 'mine'"):
        tiny(settings, preset="tokens").fit(small_posts)
