"""Chinese-CLIP features against the library's own forward pass, on a tiny checkpoint."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, ChineseCLIPImageProcessor, ChineseCLIPModel

from picture_files import encoded, quarters, scene
from sgmft.encoders import ENCODERS, Encoder, load_encoder
from sgmft.encoders.chinese_clip import MODELS
from sgmft.errors import SgmftError
from sgmft.images import decode_picture
from tiny_clip import add_tokenizer_files, save_tiny_clip

TEXTS = [
    "今天在家看书",
    "Working 在学校",
    "好",
    "我们去电影院看电影，人真多！",
    "home",
    "魑魅魍魉",
    "北京 2020 旅游 #美食#",
]
SIZE, PATCHES, WIDTH = 84, 6, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(str(folder), dtype="float32", batch_size=3)


@pytest.fixture(scope="module")
def model(folder: Path) -> ChineseCLIPModel:
    return ChineseCLIPModel.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    drawn = [np.asarray(picture((SIZE, SIZE))) for picture in (scene, quarters)]
    return np.stack([*drawn, noise, np.full_like(noise, 90), noise[::-1], drawn[0][:, ::-1]])


@torch.inference_mode()
def direct_text(model: ChineseCLIPModel, ids: list[int]) -> np.ndarray:
    """Every position of one text, unpadded, in the shared space."""
    hidden = model.text_model(torch.tensor([ids])).last_hidden_state
    return model.text_projection(hidden)[0].numpy()


@torch.inference_mode()
def direct_image(model: ChineseCLIPModel, pixels: torch.Tensor) -> np.ndarray:
    """Class token and patches of one picture (3, S, S), in the shared space."""
    vision = model.vision_model
    hidden = vision.encoder(vision.pre_layrnorm(vision.embeddings(pixels[None]))).last_hidden_state
    return model.visual_projection(vision.post_layernorm(hidden))[0].numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_info_describes_the_checkpoint(encoder: Encoder, folder: Path) -> None:
    info = encoder.info
    assert (info.text_width, info.image_width, info.image_size) == (WIDTH, WIDTH, SIZE)
    assert info.shared_space and info.name == str(folder) and info.cleaning == "light"
    assert info.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-4)
    assert len(info.fingerprint) == 16


def test_pooled_texts_are_the_librarys(encoder, model, tokenizer) -> None:
    found = encoder.encode_texts(TEXTS, tokens=False)
    assert found.tokens is None and found.pooled.shape == (len(TEXTS), WIDTH)
    for text, row in zip(TEXTS, found.pooled, strict=True):
        with torch.inference_mode():
            features = model.get_text_features(**tokenizer(text, return_tensors="pt"))
        close(row, features.pooler_output[0].numpy())


def test_text_tokens_are_the_projected_words_without_marks(encoder, model, tokenizer) -> None:
    found = encoder.encode_texts(TEXTS, tokens=True)
    for text, pooled, words in zip(TEXTS, found.pooled, found.tokens, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert len(words) == len(ids) - 2, "no [CLS], [SEP] or padding"
        expected = direct_text(model, ids)
        close(words, expected[1:-1])
        close(pooled, expected[0])


def test_pooled_is_the_same_with_and_without_tokens(encoder, pictures) -> None:
    close(encoder.encode_texts(TEXTS, True).pooled, encoder.encode_texts(TEXTS, False).pooled)
    close(
        encoder.encode_images(pictures, True).pooled, encoder.encode_images(pictures, False).pooled
    )


def test_pooled_pictures_are_the_librarys(encoder, model, folder, pictures) -> None:
    processor = ChineseCLIPImageProcessor.from_pretrained(folder)
    found = encoder.encode_images(pictures, tokens=False)
    assert found.tokens is None
    for picture, row in zip(pictures, found.pooled, strict=True):
        inputs = processor(Image.fromarray(picture), return_tensors="pt")
        assert inputs["pixel_values"].shape == (1, 3, SIZE, SIZE)
        with torch.inference_mode():
            close(row, model.get_image_features(**inputs).pooler_output[0].numpy())


def pixel_values(picture: np.ndarray) -> torch.Tensor:
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return torch.tensor((picture / 255 - mean) / std, dtype=torch.float32).permute(2, 0, 1)


@pytest.mark.parametrize("grid", [6, 4, 3, 1])
def test_picture_tokens_are_the_projected_patches_averaged(
    folder, model, pictures, grid: int
) -> None:
    found = load_encoder(str(folder), dtype="float32", patch_grid=grid).encode_images(
        pictures, True
    )
    for picture, regions in zip(pictures, found.tokens, strict=True):
        square = direct_image(model, pixel_values(picture))[1:].reshape(PATCHES, PATCHES, WIDTH)
        expected = []
        for i in range(grid):  # row by row; edges of a region are rounded outwards
            for j in range(grid):
                rows = slice(i * PATCHES // grid, -(-(i + 1) * PATCHES // grid))
                columns = slice(j * PATCHES // grid, -(-(j + 1) * PATCHES // grid))
                expected.append(square[rows, columns].mean((0, 1)))
        assert regions.shape == (grid * grid, WIDTH)
        close(regions, np.array(expected))


def test_batches_order_and_neighbours_do_not_matter(encoder, folder, pictures) -> None:
    alone = load_encoder(str(folder), dtype="float32", batch_size=1)
    together = load_encoder(str(folder), dtype="float32", batch_size=100)
    backwards = encoder.encode_texts(TEXTS[::-1], True)
    for other in (alone.encode_texts(TEXTS, True), together.encode_texts(TEXTS, True)):
        close(other.pooled, backwards.pooled[::-1])
        for a, b in zip(other.tokens, backwards.tokens[::-1], strict=True):
            close(a, b)
    backwards = encoder.encode_images(pictures[::-1].copy(), True)
    for other in (alone.encode_images(pictures, True), together.encode_images(pictures, True)):
        close(other.pooled, backwards.pooled[::-1])
        for a, b in zip(other.tokens, backwards.tokens[::-1], strict=True):
            close(a, b)


@pytest.mark.parametrize("length", [49, 50, 51, 52, 200])
def test_long_texts_are_cut_as_the_tokenizer_cuts(encoder, model, tokenizer, length: int) -> None:
    text = ("今天在家看书学校电影院" * 20)[:length]
    ids = tokenizer(text, truncation=True, max_length=52)["input_ids"]
    found = encoder.encode_texts([text, "好"], True)
    assert len(found.tokens[0]) == min(length, 50)
    close(found.tokens[0], direct_text(model, ids)[1:-1])
    close(found.pooled[0], direct_text(model, ids)[0])


def test_pictures_are_squashed_not_cropped(encoder, model, folder) -> None:
    wide = Image.new("RGB", (300, 100), "gray")
    wide.paste("red", (0, 0, 60, 100))  # a crop to the middle square would lose both
    wide.paste("blue", (240, 0, 300, 100))
    ours = decode_picture(encoded(wide), "wide.png", encoder.info.image_size)
    assert ours[40, 2].tolist() == [255, 0, 0] and ours[40, -3].tolist() == [0, 0, 255]
    processor = ChineseCLIPImageProcessor.from_pretrained(folder)
    assert not processor.do_center_crop
    with torch.inference_mode():
        theirs = model.get_image_features(**processor(wide, return_tensors="pt")).pooler_output
    found = encoder.encode_images(ours[None], False).pooled[0]
    assert cosine(found, theirs[0].numpy()) > 0.999  # but for the resampling filter


def test_nothing_in_nothing_out(encoder) -> None:
    for tokens in (True, False):
        texts = encoder.encode_texts([], tokens)
        pictures = encoder.encode_images(np.zeros((0, SIZE, SIZE, 3), np.uint8), tokens)
        for found in (texts, pictures):
            assert found.pooled.shape == (0, WIDTH) and found.pooled.dtype == np.float32
            assert found.tokens == ([] if tokens else None)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_bfloat16_is_close(encoder, folder, pictures) -> None:
    half = load_encoder(str(folder), dtype="bfloat16")
    for a, b in (
        (half.encode_texts(TEXTS, True), encoder.encode_texts(TEXTS, True)),
        (half.encode_images(pictures, True), encoder.encode_images(pictures, True)),
    ):
        assert cosine(a.pooled, b.pooled).min() > 0.99
        assert cosine(np.concatenate(a.tokens), np.concatenate(b.tokens)).min() > 0.99
        assert a.pooled.dtype == a.tokens[0].dtype == np.float32


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
    (copy / "config.json").write_text('{"model_type": "clip"}', "utf-8")
    message = refusal(copy)
    assert "clip model" in message and "chinese_clip" in message and str(copy) in message


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill_cache(hub: Path, name: str) -> Path:
    """Folder of a public model in the cache."""
    root = hub / f"models--{MODELS[name].replace('/', '--')}"
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
    monkeypatch.setattr("sgmft.encoders.chinese_clip.HUB_SECONDS", 0.5)
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
