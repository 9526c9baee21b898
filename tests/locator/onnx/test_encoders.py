"""Exported encoders give the features of those that were exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_clip
from sgmft.errors import SgmftError
from sgmft.features.encoders.efficientnet import IMAGE_SIZE, NETWORKS
from sgmft.features.encoders.image_graph import pooling, scaling
from sgmft.features.encoders.registry import load_encoder
from sgmft.locator.onnx.export import _write_encoder
from sgmft.locator.onnx.locator import Manifest, OnnxEncoder

TEXTS = ["周末在家看书", "a", "movie night with friends " * 30, "☺", "在"]


def exported(encoder, folder: Path) -> OnnxEncoder:
    settings = _write_encoder(encoder, folder)
    return OnnxEncoder(folder, Manifest([], True, encoder.info, **settings))


def check(encoder, graph: OnnxEncoder) -> None:
    size = encoder.info.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (11, size, size, 3), dtype=np.uint8)
    for ours, theirs in (
        (graph.encode_images(pictures, True), encoder.encode_images(pictures, True)),
        (graph.encode_texts(TEXTS, True), encoder.encode_texts(TEXTS, True)),
    ):
        np.testing.assert_allclose(ours.pooled, theirs.pooled, atol=5e-5)
        assert len(ours.tokens) == len(theirs.tokens)
        for one, other in zip(ours.tokens, theirs.tokens, strict=True):
            np.testing.assert_allclose(one, other, atol=5e-5)
    assert graph.encode_images(pictures[:2], False).tokens is None
    assert graph.encode_texts(TEXTS[:1], False).tokens is None
    for empty in (graph.encode_texts([], True), graph.encode_images(pictures[:0], True)):
        assert len(empty.pooled) == 0 and empty.tokens == []


@pytest.mark.parametrize("grid", [1, 3])
def test_chinese_clip(grid, tmp_path):
    checkpoint = tmp_path / "clip"
    tiny_clip.save_tiny_clip(checkpoint)
    encoder = load_encoder(str(checkpoint), patch_grid=grid, device="cpu", dtype="float32")
    check(encoder, exported(encoder, tmp_path))


@pytest.mark.slow
def test_compact(tmp_path):
    encoder = load_encoder("compact", patch_grid=5, device="cpu", dtype="float32")
    check(encoder, exported(encoder, tmp_path))


@pytest.mark.parametrize("size", NETWORKS.values())
def test_pictures_are_scaled_as_torch_scales_them(size):
    picture = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE) * 255
    wanted = torch.nn.functional.interpolate(picture, (size, size), mode="bicubic", antialias=True)
    matrix = scaling(size)
    torch.testing.assert_close(matrix @ picture @ matrix.T, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("side", "grid"), [(7, 4), (9, 4), (7, 1), (9, 16), (2, 3)])
def test_regions_are_pooled_as_torch_pools_them(side, grid):
    maps = torch.rand(3, 5, side, side)
    wanted = torch.nn.functional.adaptive_avg_pool2d(maps, grid).flatten(2)
    torch.testing.assert_close(maps.flatten(2) @ pooling(side, grid).T, wanted)


def test_an_encoder_of_another_kind_is_refused(tiny, tmp_path):
    with pytest.raises(SgmftError, match="tiny cannot be exported"):
        _write_encoder(tiny().encoder, tmp_path)
