"""Chinese-CLIP checkpoints: what is read, told apart, refused, and looked for on the hub."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from checkpoints import TEXTS, close, encoder as encoder, folder as folder, pictures as pictures

from sgmft.errors import SgmftError
from sgmft.features.encoders.hub import CHINESE_CLIP
from sgmft.features.encoders.registry import ENCODERS, load_encoder
from tiny_clip import add_tokenizer_files, save_tiny_clip


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


# --- read and told apart


def test_both_weight_formats_and_tokenizer_files_agree(encoder, copy: Path, tmp_path) -> None:
    add_tokenizer_files(copy)
    published = save_tiny_clip(tmp_path / "bin", weights="bin")
    assert not (published / "model.safetensors").exists()
    expected = encoder.encode_texts(TEXTS, False).pooled
    for other in (copy, published):
        found = load_encoder(str(other), dtype="float32", batch_size=3).encode_texts(TEXTS, False)
        close(found.pooled, expected)


def test_the_fingerprint_does_not_follow_the_folder(encoder, copy: Path) -> None:
    again = load_encoder(str(copy), dtype="float32", batch_size=7)
    assert again.info.fingerprint == encoder.info.fingerprint
    assert again.info.name != encoder.info.name


def _swap_two_words(folder: Path) -> None:
    path = folder / "vocab.txt"
    words = path.read_text("utf-8").split("\n")
    i, j = words.index("家"), words.index("学")
    words[i], words[j] = words[j], words[i]
    path.write_text("\n".join(words), "utf-8")


def _other_heads(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["text_config"]["num_attention_heads"] = config["vision_config"][
        "num_attention_heads"
    ] = 2
    path.write_text(json.dumps(config), "utf-8")


def _other_mean(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**settings, "image_mean": [0.5, 0.5, 0.5]}), "utf-8")


@pytest.mark.parametrize(
    "change",
    [
        {"cleaning": "paper"},
        {"patch_grid": 3},
        {"dtype": "bfloat16"},
        lambda folder: save_tiny_clip(folder, seed=1) and None,
        _swap_two_words,
        _other_heads,
        _other_mean,
    ],
    ids=["cleaning", "grid", "dtype", "weights", "vocabulary", "heads", "mean"],
)
def test_the_fingerprint_follows_whatever_changes_features(
    encoder, copy: Path, pictures, change: dict[str, str] | Callable[[Path], None]
) -> None:
    settings = {"dtype": "float32"}
    if isinstance(change, dict):
        settings |= change
    else:
        change(copy)
    other = load_encoder(str(copy), **settings)
    assert other.info.fingerprint != encoder.info.fingerprint
    if not isinstance(change, dict):
        a = [*other.encode_texts(TEXTS, False).pooled, *other.encode_images(pictures, False).pooled]
        b = [*encoder.encode_texts(TEXTS, False).pooled]
        b += [*encoder.encode_images(pictures, False).pooled]
        assert np.abs(np.array(a) - np.array(b)).max() > 1e-3


# --- refused


def refusal(name: Path | str) -> str:
    with pytest.raises(SgmftError) as caught:
        load_encoder(str(name))
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    return message


def test_an_unknown_name_is_told_what_there_is() -> None:
    message = refusal("chinese-clip-gigantic")
    assert "'chinese-clip-gigantic'" in message
    assert all(name in message for name in {*ENCODERS} - {"tiny"})  # "tiny" is our own tests'
    assert "vocab.txt" in message


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path)


def test_another_kind_of_model(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "wav2vec2"}', "utf-8")
    assert f"hf:{copy}" in refusal(copy)
    (copy / "config.json").write_text("{}", "utf-8")
    message = refusal(copy)
    assert "model_type chinese_clip" in message and str(copy) in message


def test_no_vocabulary_is_refused_rather_than_read_as_unknown_words(copy: Path) -> None:
    (copy / "vocab.txt").write_text("", "utf-8")
    assert "vocab.txt" in refusal(copy)
    (copy / "vocab.txt").unlink()
    assert "vocab.txt" in refusal(copy)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])


def _garble(path: Path) -> None:
    path.write_bytes(b"\xff" * 3000)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", _cut),
        ("model.safetensors", _garble),
        ("model.safetensors", Path.unlink),
        ("config.json", lambda path: path.write_text('{"model_type": "chi', "utf-8")),
        ("preprocessor_config.json", lambda path: path.write_text("[", "utf-8")),
    ],
    ids=["cut", "garbled", "no weights", "config cut", "settings cut"],
)
def test_a_damaged_checkpoint(copy: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(copy / file)
    assert str(copy) in refusal(copy)


def test_weights_of_another_size(copy: Path, tmp_path: Path) -> None:
    other = save_tiny_clip(tmp_path / "narrow", projection_dim=16)
    shutil.copy(other / "model.safetensors", copy)
    assert str(copy) in refusal(copy)


# --- on the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill_cache(hub: Path, name: str) -> Path:
    """Folder of a public model in the cache."""
    root = hub / f"models--{CHINESE_CLIP[name].replace('/', '--')}"
    commit = "0" * 40
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit, "utf-8")
    (root / "snapshots" / commit).mkdir(parents=True)
    return root / "snapshots" / commit


def check_advice(message: str) -> None:
    assert "OFA-Sys/chinese-clip-vit-huge-patch14" in message
    assert "hf download" in message and "--local-dir clip/" in message
    assert "--encoder clip/" in message and "compact" in message and "no download" in message


def test_offline_says_what_to_fetch_and_what_needs_nothing(hub: Path) -> None:
    start = time.perf_counter()
    check_advice(refusal("chinese-clip-huge"))
    assert time.perf_counter() - start < 10


def test_a_hub_that_never_answers_is_given_up_soon(hub: Path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("sgmft.features.encoders.hub.HUB_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        start = time.perf_counter()
        check_advice(refusal("chinese-clip-huge"))
        assert time.perf_counter() - start < 5


def test_public_names_are_read_from_the_cache(hub: Path, folder: Path, encoder) -> None:
    shutil.copytree(folder, fill_cache(hub, "chinese-clip-base"), dirs_exist_ok=True)
    found = load_encoder("chinese-clip-base", dtype="float32")
    assert found.info.fingerprint == encoder.info.fingerprint


@pytest.mark.parametrize("missing", ["model.safetensors", "vocab.txt"])
def test_a_cache_with_a_part_of_the_files_is_fetched_anew(hub, folder, missing: str) -> None:
    cached = fill_cache(hub, "chinese-clip-huge")
    shutil.copytree(folder, cached, dirs_exist_ok=True)
    (cached / missing).unlink()
    check_advice(refusal("chinese-clip-huge"))
