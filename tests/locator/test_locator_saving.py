"""Models on disk: what is saved, what loading gives back, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from clip_posts import clip_posts as clip_posts
from sgmft import SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.utils.runtime import versions
from small_posts import LABELS, saved_config
from tiny_clip import save_tiny_clip


@pytest.fixture
def saved(small_model, tmp_path):
    small_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_locator_learns_anew_as_the_saved_one_did(small_model, small_posts, saved):
    again = SemanticLocator.from_pretrained(saved)
    assert again.preset == small_model.preset
    assert np.array_equal(
        again.fit(small_posts).predict_proba(small_posts), small_model.predict_proba(small_posts)
    )


def test_config_says_what_it_is_of(small_model, saved):
    config = saved_config(saved)
    assert config["format"] == 1
    assert config["labels"] == LABELS
    info = small_model.encoder.info
    assert config["encoder"] == {"name": "tiny", "cleaning": "light"} | {
        "fingerprint": info.fingerprint,
        "weights": "",
    }
    assert config["method"] == "sgmft" and config["preset"] == "elements"
    assert config["train"]["epochs"] == 12 and config["train"]["seed"] == 0
    assert config["model"]["width"] == 16 and config["model"]["classes"] == 3
    assert config["model"]["fusion"] == "sfm" and "sfm" not in config["model"]
    assert config["data"]["fingerprint"] == small_model.record["data"]["fingerprint"]
    assert config["metrics"] == {} and len(config["history"]) == 12
    assert config["versions"] == versions() and {"sgmft", "torch"} <= set(versions())
    assert sorted(x.name for x in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_config_is_json_that_any_reader_takes(small_model, saved):
    # NaN, as the history has it without held-out posts, is no JSON.
    assert math.isnan(small_model.record["history"][0]["val_loss"])
    assert saved_config(saved)["history"][0]["val_loss"] is None


def test_a_grid_of_regions_is_the_encoders_and_is_saved(tiny, small_posts, tmp_path):
    def make(**options):
        return tiny(preset="tokens", features=tmp_path / "features", **options)

    coarse, fine = make(), make(patch_grid=4)
    assert coarse.encode(small_posts).features.regions_per_image == 4  # the encoder's default
    assert fine.encode(small_posts).features.regions_per_image == 16
    assert coarse.encoder.info.fingerprint != fine.encoder.info.fingerprint
    fine.fit(small_posts).save_pretrained(tmp_path / "fine")
    coarse.fit(small_posts).save_pretrained(tmp_path / "coarse")
    assert saved_config(tmp_path / "fine")["encoder"]["patch_grid"] == 4
    assert "patch_grid" not in saved_config(tmp_path / "coarse")["encoder"]
    for name, locator, regions in (("fine", fine, 16), ("coarse", coarse, 4)):
        loaded = SemanticLocator.from_pretrained(tmp_path / name)
        assert loaded.encoder.info == locator.encoder.info
        assert loaded.encode(small_posts).features.regions_per_image == regions
        found = loaded.predict_proba(small_posts)
        assert np.array_equal(found, locator.predict_proba(small_posts))
    coarse, fine = (
        SemanticLocator.from_pretrained(tmp_path / name).predict_proba(small_posts)
        for name in ("coarse", "fine")
    )
    assert not np.array_equal(coarse, fine)


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
    assert locator.record["data"]["fingerprint"] in first
    assert "validation accuracy" in first and "from_pretrained" in first
    renamed = [replace(post, label=f"{post.label}!") for post in small_posts]
    tiny().fit(renamed).save_pretrained(tmp_path)
    assert "Labels: Home!, School!, Work!" in card.read_text("utf-8")
    card.write_text("# By hand\n", "utf-8")
    locator.save_pretrained(tmp_path)
    assert card.read_text("utf-8") == "# By hand\n"
    assert saved_config(tmp_path)["labels"] == LABELS


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


def edited(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["sgmft"].pop("digest")  # as its message says
    change(config)
    path.write_text(json.dumps(config), "utf-8")


def test_a_folder_that_is_not_there(tmp_path):
    for name in (tmp_path / "gone", "gone", "a/b/c", ""):
        with pytest.raises(SgmftError, match=r"(?s)no model .*: no such folder|has no config"):
            SemanticLocator.from_pretrained(name)


def test_a_repository_that_cannot_be_reached():
    with pytest.raises(SgmftError, match="no such folder, and no repository"):
        SemanticLocator.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_missing(saved, name):
    (saved / name).unlink()
    with pytest.raises(SgmftError, match=f"not a model saved by sgmft: it has no {name}"):
        SemanticLocator.from_pretrained(saved)


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_a_config_of_something_else(saved, text, message):
    (saved / "config.json").write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(SgmftError, match=f"not a model saved by sgmft: .*{message}"):
        SemanticLocator.from_pretrained(saved)


def rename_fusion(model):
    del model["fusion"]
    model["sfm"] = True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.update(format=999), r"in a newer format than sgmft .* reads: pip install"),
        (lambda x: x["model"].update(warp=9), "settings warp are not known"),
        (lambda x: rename_fusion(x["model"]), "settings sfm are not known here"),
        (lambda x: x.pop("method"), r"its config\.json is of another kind"),
    ],
    ids=["newer format", "newer setting", "before fusion modules had names", "before methods had"],
)
def test_models_of_other_versions(saved, change, message):
    edited(saved, lambda config: change(config["sgmft"]))
    with pytest.raises(SgmftError, match=message):
        SemanticLocator.from_pretrained(saved)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "other"])
def test_damaged_weights(saved, tiny, small_posts, tmp_path, how):
    path = saved / "model.safetensors"
    if how == "other":
        tiny({"width": 32, "epochs": 1}).fit(small_posts).save_pretrained(tmp_path / "wide")
        shutil.copy(tmp_path / "wide" / "model.safetensors", path)
    else:
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.write_bytes({"cut": half, "empty": b"", "text": b"<html>404</html>"}[how])
    with pytest.raises(SgmftError, match=r"model\.safetensors is damaged or belongs to another"):
        SemanticLocator.from_pretrained(saved)


def test_an_encoder_that_moved(saved, small_posts, small_model):
    edited(saved, lambda config: config["sgmft"]["encoder"].update(name="/gone/encoder"))
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
    with pytest.raises(SgmftError, match="other weights than the one that the model was trained"):
        SemanticLocator.from_pretrained(tmp_path / "model", encoder=str(other)).predict(clip_posts)
    shutil.rmtree(first)
    other.rename(first)
    with pytest.raises(SgmftError, match="other weights"):
        SemanticLocator.from_pretrained(tmp_path / "model").predict(clip_posts)


def test_a_device_that_is_not_there(saved):
    assert SemanticLocator.from_pretrained(saved, device="cpu").device == "cpu"
    with pytest.raises(SgmftError, match="no device 'quantum' here"):
        SemanticLocator.from_pretrained(saved, device="quantum")
