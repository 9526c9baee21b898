"""Models on disk: what is saved, what loading gives back, and what it refuses."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard

from sgmft import Abstention, SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.locator.loading import check_model, load_predictor
from sgmft.utils.runtime import versions
from small_posts import LABELS, saved_config
from tiny_clip import save_tiny_clip

RULES = Abstention(coverage=0.8, reject=0.2)


@pytest.fixture
def saved(small_model, tmp_path):
    small_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_locator_learns_anew_as_the_saved_one_did(small_model, small_posts, saved):
    again = SemanticLocator.from_pretrained(saved)
    assert again.preset == small_model.preset
    found = again.fit(small_posts).predict_proba(small_posts)
    assert np.array_equal(found, small_model.predict_proba(small_posts))


def test_config_says_what_it_is_of(small_model, saved):
    config, info = saved_config(saved), small_model.encoder.info
    assert config["format"] == 1 and config["labels"] == LABELS
    encoder = {"name": "tiny", "cleaning": "light", "fingerprint": info.fingerprint, "weights": ""}
    assert config["encoder"] == encoder
    assert config["method"] == "sgmft" and config["preset"] == "elements"
    assert config["train"]["epochs"] == 12 and config["train"]["seed"] == 0
    assert config["model"]["width"] == 16 and config["model"]["classes"] == 3
    assert config["model"]["fusion"] == "sfm" and "sfm" not in config["model"]
    assert config["data"]["fingerprint"] == small_model.training.to_config()["data"]["fingerprint"]
    assert config["metrics"] == {} and len(config["history"]) == 12
    assert config["versions"] == versions() and {"sgmft", "torch"} <= set(versions())
    # NaN, as the history has it without held-out posts, is no JSON.
    assert math.isnan(small_model.training.to_config()["history"][0]["val_loss"])
    assert config["history"][0]["val_loss"] is None
    names = sorted(x.name for x in saved.iterdir())
    assert names == ["README.md", "config.json", "held_out.safetensors", "model.safetensors"]


def test_a_grid_of_regions_is_the_encoders_and_is_saved(tiny, small_posts, tmp_path):
    found = []
    for grid, regions in ((None, 4), (4, 16)):
        folder = tmp_path / str(grid)
        locator = tiny(preset="tokens", features=tmp_path / "features", patch_grid=grid)
        locator.fit(small_posts).save_pretrained(folder)
        assert saved_config(folder)["encoder"].get("patch_grid") == grid
        loaded = SemanticLocator.from_pretrained(folder)
        for one in (locator, loaded):
            assert one.encode(small_posts).features.regions_per_image == regions
        assert loaded.encoder.info == locator.encoder.info
        found += [x.predict_proba(small_posts) for x in (locator, loaded)]
        found.append(loaded.encoder.info.fingerprint)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[3], found[4])
    assert not np.array_equal(found[0], found[3]) and found[2] != found[5]


def test_labels_of_any_language_survive(tiny, small_posts, tmp_path):
    names = {"Home": "家", "School": 'a "school"', "Work": "工 作"}
    posts = [replace(post, label=names[post.label]) for post in small_posts]
    tiny().fit(posts).save_pretrained(tmp_path)
    assert "家" in (tmp_path / "config.json").read_text("utf-8")
    assert SemanticLocator.from_pretrained(tmp_path).labels == sorted(names.values())


def test_the_model_card_is_renewed_but_a_written_one_stays(tiny, small_posts, tmp_path):
    locator, card = tiny().fit(small_posts), tmp_path / "README.md"
    locator.save_pretrained(tmp_path)
    first = card.read_text("utf-8")
    assert "Labels: Home, School, Work" in first and "library_name: sgmft" in first
    assert locator.training.to_config()["data"]["fingerprint"] in first
    assert "validation accuracy" in first and "from_pretrained" in first
    told = ModelCard(first).data
    assert told.pipeline_tag == "text-classification" and told.widget[0]["text"]
    assert told.eval_results[0].metric_type == "accuracy"
    accuracy = locator.training.metrics["validation accuracy"]
    assert told.eval_results[0].metric_value == pytest.approx(accuracy, abs=1e-4)
    renamed = [replace(post, label=f"{post.label}!") for post in small_posts]
    tiny().fit(renamed).save_pretrained(tmp_path)
    assert "Labels: Home!, School!, Work!" in card.read_text("utf-8")
    card.write_text("# By hand\n", "utf-8")
    locator.save_pretrained(tmp_path)
    assert card.read_text("utf-8") == "# By hand\n"
    assert saved_config(tmp_path)["labels"] == LABELS


def test_a_saved_model_keeps_its_promises(fitted, small_posts, tmp_path):
    locator = fitted()
    assert len(locator.held_out) == sum(bool(post.text) for post in small_posts)
    locator.save_pretrained(tmp_path)
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.temperatures.tolist() == locator.temperatures.tolist() != [1] * 4
    pairs = zip(*(x.predictions(small_posts, RULES) for x in (locator, loaded)), strict=True)
    assert all(one[1:2] + one[4:] == other[1:2] + other[4:] for one, other in pairs)
    # A model saved before there were held-out posts and temperatures.
    (tmp_path / "held_out.safetensors").unlink()
    edit(tmp_path, lambda config: config.pop("calibration"))
    old = SemanticLocator.from_pretrained(tmp_path)
    assert old.temperatures.tolist() == [1] * 4 and old.predict(small_posts) == locator.predict(
        small_posts
    )
    with pytest.raises(SgmftError, match=r"For a coverage of 0\.8 a model must have been tested"):
        old.predict(small_posts, RULES)


FRESH = """
import sys, numpy
from sgmft import SemanticLocator, read_posts
locator = SemanticLocator.from_pretrained(sys.argv[1])
numpy.save(sys.argv[3], locator.predict_proba(read_posts(sys.argv[2])))
"""


def test_a_moved_model_gives_the_same_probabilities_in_another_process(trained, sample, tmp_path):
    table = sample.with_name("seven.jsonl")
    table.write_text("\n".join(sample.read_text("utf-8").splitlines()[:7]), "utf-8")
    before = SemanticLocator.from_pretrained(trained).predict_proba(read_posts(table))
    moved = shutil.copytree(trained, tmp_path / "else where" / "模型")
    command = [sys.executable, "-c", FRESH, moved, table, tmp_path / "found.npy"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), before)
    assert np.isfinite(before).all()


def edit(folder, change):
    """Change a config by hand, and delete its digest as its message says."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    del config["sgmft"]["digest"]
    change(config["sgmft"])
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def refusal(model, runtime=None):
    """The message with which a model is refused, before it is loaded and by loading it."""
    with pytest.raises(SgmftError) as wanted:
        load_predictor(str(model), runtime)
    with pytest.raises(SgmftError) as found:
        check_model(str(model), runtime)
    assert str(found.value) == str(wanted.value)
    return str(found.value)


OTHER = r"not a model saved by sgmft: its config\.json is of another kind"
UNREADABLE = r"not a model saved by sgmft: its config\.json is not readable"
DAMAGED = r"model\.safetensors is damaged or belongs to another"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda _: None, r"not a model saved by sgmft: it has no config\.json"),
        ("model.safetensors", lambda _: None, r"by sgmft: it has no model\.safetensors"),
        ("config.json", lambda _: b'{"model_type": "bert"}', OTHER),
        ("config.json", lambda _: b"[]", OTHER),
        ("config.json", lambda _: b"{}", OTHER),
        ("config.json", lambda _: b'{"sgmft": {}}', OTHER),
        ("config.json", lambda _: b'{"sgmft": 3}', OTHER),
        ("config.json", lambda whole: whole[:100], UNREADABLE),
        ("config.json", lambda _: b"", UNREADABLE),
        ("config.json", lambda _: b"\xff", UNREADABLE),
        ("config.json", lambda whole: whole.replace(b'"epochs": 12', b'"epochs": 13'), "digest"),
        (
            "config.json",
            lambda whole: whole.replace(b'"format": 1', b'"format": 99'),
            r"in a newer format than sgmft .* reads: pip install",
        ),
        ("model.safetensors", lambda whole: whole[: len(whole) // 2], DAMAGED),
        ("model.safetensors", lambda _: b"", DAMAGED),
        ("model.safetensors", lambda _: b"<html>404</html>", DAMAGED),
        ("onnx.json", lambda _: b'{"sgmft": {"format": 1}}', r"onnx\.json is damaged"),
    ],
)
def test_a_damaged_model_is_refused(saved, name, change, message):
    check_model(str(saved))
    path = saved / name
    data = change(path.read_bytes() if path.exists() else b"")
    path.unlink(missing_ok=True)
    if data is not None:
        path.write_bytes(data)
    assert re.search(message, refusal(saved))


@pytest.mark.parametrize("name", ["gone", "a/b/c", ""])
def test_a_folder_that_is_not_there(tmp_path, name):
    message = r"(?s)no model .*: no such folder|has no config"
    assert re.search(message, refusal(tmp_path / name))
    with pytest.raises(SgmftError, match=message):
        SemanticLocator.from_pretrained(name)


def test_what_is_none_is_refused(tmp_path):
    assert "no onnx.json" in refusal(tmp_path, "onnx")
    assert "torch, onnx" in refusal(tmp_path, "tensorflow")
    assert re.search(r"x cannot be read|There is no model", refusal("x" * 300, "torch"))


def test_a_repository_that_cannot_be_reached(monkeypatch):
    with pytest.raises(SgmftError, match="no such folder, and no repository"):
        SemanticLocator.from_pretrained("nobody/nothing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    check_model("someone/model")  # is not looked for


def test_serving_refuses_a_damaged_model_without_what_it_takes_to_serve_one(saved):
    (saved / "model.safetensors").write_bytes(b"")
    program = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "uvicorn", "fastapi")))
from sgmft.errors import SgmftError
from sgmft.cli.serve import serve_command
try:
    serve_command(sys.argv[1])
except SgmftError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, saved], capture_output=True, text=True, check=True
    )
    assert "model.safetensors is damaged" in done.stdout


def rename_fusion(config):
    del config["model"]["fusion"]
    config["model"]["sfm"] = True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x["model"].update(warp=9), "settings warp are not known"),
        (rename_fusion, "settings sfm are not known here"),
        (lambda x: x.pop("method"), r"its config\.json is of another kind"),
    ],
    ids=["newer setting", "before fusion modules had names", "before methods had"],
)
def test_models_of_other_versions(saved, change, message):
    edit(saved, change)
    with pytest.raises(SgmftError, match=message):
        SemanticLocator.from_pretrained(saved)


def test_weights_of_another_model(saved, tiny, small_posts, tmp_path):
    tiny({"width": 32, "epochs": 1}).fit(small_posts).save_pretrained(tmp_path / "wide")
    shutil.copy(tmp_path / "wide" / "model.safetensors", saved)
    edit(saved, lambda config: config.pop("files"))  # which would show it before
    with pytest.raises(SgmftError, match=DAMAGED):
        SemanticLocator.from_pretrained(saved)


def test_an_encoder_that_moved(saved, small_posts, small_model):
    edit(saved, lambda config: config["encoder"].update(name="/gone/encoder"))
    with pytest.raises(SgmftError, match="/gone/encoder"):
        SemanticLocator.from_pretrained(saved).predict(small_posts)
    loaded = SemanticLocator.from_pretrained(saved, encoder="tiny")
    assert loaded.predict(small_posts) == small_model.predict(small_posts)


def test_another_encoder_of_the_same_widths_is_refused(tmp_path, clip_posts):
    """Its features are others, and labels from them would mean nothing."""
    first, other = (save_tiny_clip(tmp_path / f"clip{i}", seed=i) for i in range(2))
    SemanticLocator(str(first)).fit(clip_posts).save_pretrained(tmp_path / "model")
    for dtype in ("float32", "bfloat16"):  # weights are the same in every precision
        loaded = SemanticLocator.from_pretrained(tmp_path / "model")
        loaded.encoder_settings["dtype"] = dtype
        assert all(loaded.predict(clip_posts))
    with pytest.raises(SgmftError, match="other weights or settings than"):
        SemanticLocator.from_pretrained(tmp_path / "model", encoder=str(other)).predict(clip_posts)
    shutil.rmtree(first)
    other.rename(first)
    with pytest.raises(SgmftError, match="other weights"):
        SemanticLocator.from_pretrained(tmp_path / "model").predict(clip_posts)


def test_a_device_that_is_not_there(saved):
    assert SemanticLocator.from_pretrained(saved, device="cpu").device == "cpu"
    with pytest.raises(SgmftError, match="no device 'quantum' here"):
        SemanticLocator.from_pretrained(saved, device="quantum")
