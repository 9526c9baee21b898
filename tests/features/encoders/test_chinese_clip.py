"""Chinese-CLIP features against the library's own forward pass, on a tiny checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import (
    PATCHES,
    SIZE,
    TEXTS,
    WIDTH,
    close,
    encoder as encoder,
    folder as folder,
    pictures as pictures,
)
from PIL import Image
from transformers import BertTokenizer, ChineseCLIPImageProcessor, ChineseCLIPModel

from image_files import encoded
from sgmft.data.preprocessing.images import decode_image
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder


@pytest.fixture(scope="module")
def model(folder: Path) -> ChineseCLIPModel:
    return ChineseCLIPModel.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(folder)


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


def test_quick_gelu_is_folded_away(folder: Path, model: ChineseCLIPModel) -> None:
    """So that the library's features, below, are found by another way."""

    def kinds(of: ChineseCLIPModel) -> set[str]:
        mlps = [m for m in of.vision_model.modules() if hasattr(m, "activation_fn")]
        return {type(mlp.activation_fn).__name__ for mlp in mlps}

    assert kinds(model) == {"QuickGELUActivation"}
    assert kinds(load_encoder(str(folder), dtype="float32").model) == {"SiLU"}


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
    ours = decode_image(encoded(wide), "wide.png", encoder.info.image_size)
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
