"""Fine-tuning: towers in training against the frozen encoder, and fine-tuned locators."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from clip_posts import write_table
from image_files import scene
from sgmft import SemanticLocator
from sgmft.cli.options import make_tuning
from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts, encode_all
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.features import Batch, LabelledPosts
from sgmft.models.base import NetworkConfig, Output
from sgmft.models.network import Network
from sgmft.models.presets import TrainConfig
from sgmft.training import fit
from sgmft.training.finetune import network
from sgmft.training.finetune.network import RawPosts, Tuned, augmentation, open_towers
from sgmft.training.finetune.settings import Tuning
from sgmft.training.trainer import train
from small_networks import StopHereError, stop_after

OTHERS = ["clip", "siglip", "naflex", "altclip", "chinese-clip"]  # by the library's own names


def slow(values: list[Any]) -> list[Any]:
    """Parameters that `make test-all` runs."""
    rows = (x if isinstance(x, tuple) else (x,) for x in values)
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]


PLAIN = Tuning(augment=False, rank=2, encoder_learning_rate=1e-2)
FULL = replace(PLAIN, kind="full")


class Linear(Network):
    """Reads everything an encoder gives."""

    def __init__(self, width: int) -> None:
        super().__init__(NetworkConfig(3, width, width, True))
        torch.manual_seed(5)
        self.maps = torch.nn.ModuleList(torch.nn.Linear(width, 3) for _ in range(4))

    def forward(self, batch: Batch) -> Output:
        words = (batch.text_tokens * batch.text_mask[..., None]).sum(1)
        regions = (batch.image_tokens * batch.image_mask[..., None]).sum(1)
        sides = (batch.text, batch.image, words / 9, regions / 16)
        logits = sum(layer(x) for layer, x in zip(self.maps, sides, strict=True))
        return Output(logits, batch.text)


Known = tuple[Any, EncodedPosts]  # an encoder as it is, and posts that it has encoded


@pytest.fixture(scope="module")
def encoded(clip, clip_posts) -> Known:
    encoder = load_encoder(clip, dtype="float32")
    return encoder, encode_all(clip_posts, encoder, tokens=True)


@pytest.fixture(scope="module", params=["own", "clip", *slow(OTHERS[1:])])
def dual(request, families, clip_posts, encoded) -> Known:
    """`encoded`, and the same by each family of transformers."""
    if request.param == "own":
        return encoded
    encoder = load_encoder(f"hf:{families[request.param]}", dtype="float32")
    return encoder, encode_all(clip_posts, encoder, tokens=True)


def made(encoded: Known, tuning: Tuning) -> tuple[Tuned, RawPosts]:
    torch.manual_seed(0)
    encoder, known = encoded
    towers = open_towers({"name": encoder.info.name}, tuning, "cpu")
    model = Tuned(Linear(encoder.info.text_width), towers, True, encoder.info.fingerprint)
    raw = RawPosts(known.posts, known.keys, known.features, towers.encoder)
    return model, raw


@pytest.mark.parametrize("tuning", [PLAIN, FULL])
def test_before_the_first_step_features_are_the_frozen_encoders(dual, tuning):
    model, raw = made(dual, tuning)
    rows = np.array([3, 0, 9, 17, 26, 2, 35])  # without text, with two pictures, with none
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            found = model.encode(raw.batch(rows, ngrams=True))
        expected = dual[1].features.batch(rows, ngrams=True).to("cpu")
        for name in ("text", "image"):
            has = getattr(expected, f"has_{name}")
            torch.testing.assert_close(getattr(found, name)[has], getattr(expected, name)[has])
        for name in ("text_tokens", "image_tokens"):  # kept as float16
            one, other = getattr(found, name), getattr(expected, name)
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
        for name in ("has_text", "has_image", "text_mask", "image_mask", "image_index", "ngrams"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_a_text_without_tokens_is_its_separator(encoded):
    model, raw = made(encoded, PLAIN)
    batch = raw.batch(np.array([2, 5]))
    batch = batch._replace(texts=model.towers.encoder.batch_texts(["", ""]))
    found = model.eval().encode(batch)
    assert found.text_mask.tolist() == [[True], [True]]
    _, whole = model.towers.encode_texts(batch.texts, True)
    torch.testing.assert_close(found.text_tokens[:, 0], whole[:, 1])


def test_a_post_does_not_depend_on_the_posts_beside_it(encoded):
    model, raw = made(encoded, PLAIN)
    model.eval()
    with torch.no_grad():
        together = model(raw.batch(np.arange(16))).logits
        alone = [model(raw.batch(np.array([i]))).logits for i in range(16)]
    torch.testing.assert_close(together, torch.cat(alone))


def moved(encoded: Known, tuning: Tuning) -> tuple[Tuned, set[str]]:
    """A model after a few steps, and the weights of its towers that are others than before."""
    model, raw = made(encoded, tuning)
    before = {name: x.detach().clone() for name, x in model.towers.named_parameters()}
    labels = np.arange(len(raw)) % 3
    config = TrainConfig(epochs=2, batch_size=12, learning_rate=1e-2)
    history = train(model, LabelledPosts(raw, labels), None, config, device="cpu")
    assert history[1].loss < history[0].loss
    after = dict(model.towers.named_parameters())
    return model, {name for name, x in before.items() if not torch.equal(x, after[name])}


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        ({}, ("attention.self", "attention.output", "self_attn")),
        ({"maps": "all", "last": 1}, ("layer.1.", "layers.1.")),
    ],
)
def test_lora_moves_its_matrices_alone(dual, change, inside):
    model, names = moved(dual, replace(PLAIN, **change))
    assert names and all("lora_" in name for name in names)
    assert all(any(part in name for part in inside) for name in names)
    sides = {side for side in ("text_model", "vision_model") for n in names if side in n}
    assert len(sides) == 2
    kept = {n for n in model.state_dict() if not n.startswith("head.")}
    assert all("lora_" in name for name in kept), "a checkpoint holds what moves"
    assert len(kept) == (24 if change else 32), "two for each map"


def test_full_moves_everything_that_is_used(dual):
    model, names = moved(dual, FULL)
    still = {name for name, _ in model.towers.named_parameters()} - names
    unused = (
        "logit_scale",
        "logit_bias",
        "position_embeddings",
        "token_type_embeddings",
        "k_proj.bias",
    )
    assert [n for n in still if not any(u in n for u in (*unused, "key.bias"))] == []


def test_the_last_layers_and_what_is_behind_them_move(dual):
    _, names = moved(dual, replace(FULL, last=1))
    before = ("embeddings", "layer.0.", "layers.0.", "pre_layrnorm")
    assert not [n for n in names if any(x in n for x in before)]
    last = {n for n in names if "layer.1." in n or "layers.1." in n}
    assert all(any(side in n for n in last) for side in ("text_model", "vision_model"))
    assert names - last, "norms, heads and projections"


def gradients(encoded: Known, tuning: Tuning) -> dict[str, torch.Tensor]:
    model, raw = made(encoded, tuning)
    model.train()
    logits = model(raw.batch(np.arange(12))).logits
    torch.nn.functional.cross_entropy(logits, torch.arange(12) % 3).backward()
    return {n: x.grad for n, x in model.named_parameters() if x.grad is not None}


@pytest.mark.parametrize("change", [{"micro_batch": 5}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("tuning", [PLAIN, FULL])
def test_a_step_in_parts_has_the_gradient_of_the_whole(dual, tuning, change):
    expected = gradients(dual, tuning)
    found = gradients(dual, replace(tuning, **change))
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-3, atol=1e-5, msg=name)


def test_bfloat16_is_close(dual):
    plain, raw = made(dual, PLAIN)
    low, _ = made(dual, replace(PLAIN, precision="bfloat16"))
    with torch.no_grad():
        one, other = (m.eval().encode(raw.batch(None)) for m in (plain, low))
    for name in ("text", "image"):
        x, y = getattr(one, name), getattr(other, name)
        assert y.dtype == torch.float32
        has = x.abs().sum(1) > 0
        assert torch.cosine_similarity(x[has], y[has]).min() > 0.995
    assert {x.dtype for x in low.towers.parameters() if x.requires_grad} == {torch.float32}


def test_augmented_pictures_become_different_ones_and_the_seed_decides_which():
    pictures = torch.from_numpy(np.stack([np.asarray(scene((84, 84)))] * 6))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augmentation()(pictures))
    found, again, other = drawn
    assert torch.equal(found, again) and not torch.equal(found, other)
    assert found.shape == pictures.shape and found.dtype == torch.uint8
    assert len({x.numpy().tobytes() for x in found}) == len(found), "each in its own way"
    assert 2 < (found.float() - pictures.float()).abs().mean() < 100
    assert len(augmentation()(pictures[:0])) == 0


# --- locators

QUICK = Tuning(
    epochs=2, rank=2, batch_size=12, encoder_learning_rate=3e-3, val_size=0.2, micro_batch=8
)
TOKENS = {"epochs": 2, "width": 16, "heads": 2, "classifier_widths": (12,)}
MATRICES = "encoder/adapter_model.safetensors"


def locator(clip: str, preset: str = "default", tune: Any = QUICK, **more: Any) -> SemanticLocator:
    settings = TOKENS if preset == "tokens" else {}
    return SemanticLocator(clip, preset=preset, settings=settings, tune=tune, **more)


@pytest.fixture(scope="module")
def posts(clip_posts) -> list[Post]:
    """Eight of each label."""
    return clip_posts[:24]


@pytest.fixture(scope="module")
def fitted(clip, posts) -> SemanticLocator:
    return locator(clip).fit(posts)


@pytest.fixture(scope="module")
def tuned(fitted, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "model"
    fitted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tuned_clip(families, posts, tmp_path_factory) -> Path:
    """The same of a CLIP of transformers."""
    folder = tmp_path_factory.mktemp("tuned") / "model"
    locator(f"hf:{families['clip']}").fit(posts).save_pretrained(folder)
    return folder


def test_a_teacher_teaches_the_head_and_then_both(clip, posts, monkeypatch):
    def watch(module: Any, name: str) -> list[Any]:
        """The posts that a function is called with."""
        real, seen = getattr(module, name), list[Any]()

        def watched(first: Any, posts: Any, *more: Any, **options: Any) -> Any:
            seen.append(posts)
            return real(first, posts, *more, **options)

        monkeypatch.setattr(module, name, watched)
        return seen

    heard, learned = watch(fit, "taught"), watch(network, "train")
    settings = TOKENS | {"teacher": "linear-probe"}
    SemanticLocator(clip, preset="tokens", settings=settings, tune=QUICK).fit(posts)
    assert len(heard) == 2 and np.array_equal(heard[0].labels, heard[1].labels)
    (both,) = learned
    assert len(both.labels) == len(heard[0].labels) and both.soft.max() < 1
    assert np.array_equal(both.soft.argmax(1), both.labels)


def check_saved_and_loaded(
    ours: SemanticLocator, base: str, kind: str, posts: list[Post], folder: Path
) -> None:
    told = ours.training.to_config()
    assert told["tuning"]["kind"] == kind
    assert told["data"]["validation"] == len(ours.held_out) > 0  # which calibrate
    plain = load_encoder(base)
    assert ours.encoder.info.fingerprint != plain.info.fingerprint
    assert type(ours.encoder) is type(plain)
    ours.save_pretrained(folder / "m")
    assert f"`{base}, fine-tuned`" in (folder / "m" / "README.md").read_text("utf-8")
    loaded = SemanticLocator.from_pretrained(folder / "m")
    assert loaded.encoder.info.fingerprint == ours.encoder.info.fingerprint
    assert loaded.encoder_name == f"{base}, fine-tuned"
    expected = np.asarray(ours.predict_proba(posts))
    np.testing.assert_array_equal(loaded.predict_proba(posts), expected)
    loaded.save_pretrained(folder / "again")  # from one folder into another
    shutil.rmtree(folder / "m")
    again = SemanticLocator.from_pretrained(folder / "again")
    np.testing.assert_array_equal(again.predict_proba(posts), expected)
    pickled = pickle.loads(pickle.dumps(again))  # has the encoder's folder in it
    np.testing.assert_array_equal(pickled.predict_proba(posts), expected)


def test_a_tuned_locator_is_saved_and_loaded(clip, fitted, posts, tmp_path):
    check_saved_and_loaded(fitted, clip, "lora", posts, tmp_path)


@pytest.mark.parametrize(
    ("family", "preset", "kind"),
    [
        ("own", "tokens", "full"),
        *slow([("own", "default", "full"), ("own", "tokens", "lora")]),
        *slow([("siglip", "tokens", "lora"), ("altclip", "default", "full")]),
        *slow([("naflex", "tokens", "full"), ("chinese-clip", "default", "full")]),
    ],
)
def test_one_of_another_kind_is_saved_and_loaded(
    clip, families, posts, tmp_path, family, preset, kind
):
    base = clip if family == "own" else f"hf:{families[family]}"
    tuning = replace(QUICK, kind=kind, augment=family != "naflex")
    ours = locator(base, preset, tuning).fit(posts)
    check_saved_and_loaded(ours, base, kind, posts, tmp_path)


def test_without_held_out_posts_there_is_no_fine_tuning(clip):
    with pytest.raises(SgmftError, match="judged by held-out posts: leave val_size 0 out"):
        SemanticLocator(clip, tune="lora", val_size=0)


def test_where_no_epoch_is_better_all_stays_as_it_was(clip, posts, tmp_path):
    frozen = locator(clip, "tokens", "head", val_size=0.2).fit(posts)
    ruinous = replace(QUICK, encoder_learning_rate=30.0, head_learning_rate=10.0)
    ours = locator(clip, "tokens", ruinous, val_size=0.2).fit(posts)
    assert ours.training.to_config()["tuning"]["better"] is False
    assert not any(line["val_loss"] < 1 for line in ours.training.to_config()["history"][-2:]), (
        "NaN, perhaps"
    )
    assert ours.training.to_config()["metrics"] == frozen.training.to_config()["metrics"]
    np.testing.assert_allclose(ours.predict_proba(posts), frozen.predict_proba(posts), atol=1e-5)


@pytest.mark.parametrize("family", ["own", *slow(["clip"])])
def test_merged_is_the_same_as_unmerged(clip, families, posts, tuned, tuned_clip, tmp_path, family):
    base, unmerged = (clip, tuned) if family == "own" else (f"hf:{families['clip']}", tuned_clip)
    merged = locator(base, tune=replace(QUICK, merge=True)).fit(posts)
    merged.save_pretrained(tmp_path / "merged")
    assert (tmp_path / "merged" / "encoder" / "config.json").is_file()
    expected = SemanticLocator.from_pretrained(unmerged).predict_proba(posts)
    loaded = SemanticLocator.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(loaded.predict_proba(posts), expected, atol=1e-6)


@pytest.mark.parametrize("family", ["own", pytest.param("altclip", marks=pytest.mark.slow)])
def test_stopped_and_continued_is_the_same(clip, families, posts, tmp_path, family):
    base = clip if family == "own" else f"hf:{families[family]}"

    def fit(name: str, **more: Any) -> SemanticLocator:
        ours = locator(base, "tokens", replace(QUICK, epochs=3, patience=3))
        return ours.fit(posts, checkpoint=tmp_path / name, **more)

    whole, stop = fit("whole"), stop_after(1, 5)  # of the head the first, of both the second
    for _ in range(2):
        with pytest.raises(StopHereError):
            fit("some", on_epoch=stop)
    some = fit("some")
    assert repr(some.training.to_config()["history"]) == repr(whole.training.to_config()["history"])
    one, other = (load_file(tmp_path / x / MATRICES) for x in ("whole", "some"))
    assert all(np.array_equal(x, other[name]) for name, x in one.items())


@pytest.mark.parametrize("model", ["tuned", *slow(["tuned_clip"])])
def test_what_is_tuned_is_tuned_further(posts, request, tmp_path, model):
    ours = locator(str(request.getfixturevalue(model) / "encoder")).fit(posts)
    ours.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    expected = ours.predict_proba(posts)
    np.testing.assert_array_equal(loaded.predict_proba(posts), expected)
    low = load_encoder(str(tmp_path / "m" / "encoder"), dtype="bfloat16")
    assert low.info.fingerprint != loaded.encoder.info.fingerprint
    assert low.info.weights == loaded.encoder.info.weights
    assert low.info.shared_space


def test_from_the_hub_with_all_its_files(posts, tuned, monkeypatch):
    asked = []

    def fetch(repository: str, name: str, **_: Any) -> str:
        asked.append(name)
        return str(tuned / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    found = SemanticLocator.from_pretrained("someone/model")
    expected = SemanticLocator.from_pretrained(tuned).predict_proba(posts)
    np.testing.assert_array_equal(found.predict_proba(posts), expected)
    assert {f"encoder/{x.name}" for x in (tuned / "encoder").iterdir()} <= set(asked)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tiny", "cannot be fine-tuned: use --tune head"),
        ("st:st-clip", "cannot be fine-tuned: use --tune head"),
        ("hf:xlmr+hf:dinov2", "cannot be fine-tuned: use --tune head"),
        ("hf:naflex", "own proportions.*: add --set tune.augment=false"),
    ],
)
def test_other_encoders_are_refused_before_any_work(families, tiny, posts, monkeypatch, name, why):
    monkeypatch.setattr("sgmft.training.fit.training_set", None)
    if ":" in name:
        name = "+".join(f"{x[:3]}{families[x[3:]]}" for x in name.split("+"))
    with pytest.raises(SgmftError, match=why):
        SemanticLocator(name, tune="lora").fit(posts)


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "encoder.json", "adapter_config.json"]
)
def test_damage_is_named(tuned, tmp_path, name):
    folder = shutil.copytree(tuned, tmp_path / "m")
    path = folder / "encoder" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SgmftError, match=rf"{name}.* is damaged"):
        SemanticLocator.from_pretrained(folder)
    path.unlink()
    with pytest.raises(SgmftError, match=name):
        SemanticLocator.from_pretrained(folder)


@pytest.mark.parametrize("model", ["tuned", "tuned_clip"])
def test_the_base_may_move_but_not_change(families, posts, request, tmp_path, model):
    folder = request.getfixturevalue(model)
    described = json.loads((folder / "encoder" / "encoder.json").read_text())
    base = described["base"]["name"].removeprefix("hf:")
    moved = shutil.copytree(base, tmp_path / "moved")
    expected = SemanticLocator.from_pretrained(folder).predict_proba(posts)
    there = SemanticLocator.from_pretrained(folder, encoder=str(moved))
    np.testing.assert_array_equal(there.predict_proba(posts), expected)
    other = shutil.copytree(base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights |= {name: -x for name, x in weights.items() if "projection" in name}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    wrong = SemanticLocator.from_pretrained(folder, encoder=str(other))
    with pytest.raises(SgmftError, match="was made from other weights"):
        wrong.predict(posts)


@pytest.mark.slow
def test_on_the_command_line(run, clip, posts, tmp_path):
    quick = ("--set", "tune.epochs=1", "--tune-last", 1, "--allow-outside", "--features", "none")
    table, model = write_table(tmp_path / "posts.jsonl", posts), tmp_path / "m"
    ended = run("train", table, "-o", model, "--encoder", clip, "--tune", "lora", *quick)
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    assert not (model / "checkpoint").exists()
    assert "fine-tuned" in (model / "README.md").read_text("utf-8")
    ended = run("predict", model, table, "-o", tmp_path / "out.jsonl", *quick[-3:])
    assert ended.returncode == 0, ended.stderr
    rows = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert {row["label"] for row in rows} <= {"Home", "School", "Work"}


# --- settings


def test_texts_become_values_and_nothing_is_tuned_by_default():
    assert make_tuning("head", None, False, {"epochs": "3"}) is None
    settings = {"tune.rank": "4", "tune.augment": "false", "tune.micro_batch": "2", "epochs": "9"}
    expected = Tuning("lora", rank=4, augment=False, micro_batch=2, last=3, merge=True)
    assert make_tuning("lora", 3, True, settings) == expected


def test_rates_by_kind_and_the_heads_other_settings_stay():
    assert (Tuning("lora").encoder_rate, Tuning("full").encoder_rate) == (1e-4, 1e-5)
    config = Tuning(epochs=2).config(TrainConfig(class_weights=True, seed=7, epochs=30))
    assert (config.epochs, config.class_weights, config.seed) == (2, True, 7)
    assert (config.schedule, config.warmup) == ("cosine", 0.1)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        ("half", {}, "use head, lora, full"),
        ("head", {"tune.rank": "2"}, "tune.rank is for --tune lora or --tune full"),
        ("lora", {"tune.ranks": "2"}, "no setting 'ranks': use rank"),
        ("lora", {"tune.rank": "two"}, "a whole number"),
        ("lora", {"tune.rank": "0"}, "tune.rank must be at least 1"),
        ("lora", {"tune.maps": "some"}, "attention or all"),
        ("lora", {"tune.alpha": "nan"}, "tune.alpha must be positive"),
        ("full", {"tune.epochs": "0"}, "epochs must be at least 1"),
        ("full", {"tune.warmup": "1"}, "warmup must be in 0..1"),
        ("full", {"tune.val_size": "0"}, "tune.val_size must be in 0..1"),
        ("full", {"tune.precision": "int8"}, "auto or bfloat16 or float32"),
    ],
)
def test_what_makes_no_sense_is_told(kind, settings, told):
    with pytest.raises(SgmftError, match=told):
        make_tuning(kind, None, False, settings)
