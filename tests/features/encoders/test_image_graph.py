"""On a CPU with ONNX Runtime pictures go through a graph: the same features, made once, kept."""

import numpy as np
import pytest

from sgmft.features.encoders.registry import load_encoder
from sgmft.utils.files import cache_folder


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 260, 260, 3), dtype=np.uint8)


def test_the_features_are_torchs_to_rounding(pictures):
    graph, torchs = load_encoder(device="cpu"), load_encoder(device="cpu", dtype="float32")
    found, wanted = (encoder.encode_images(pictures, True) for encoder in (graph, torchs))
    np.testing.assert_allclose(found.pooled, wanted.pooled, atol=5e-5)
    np.testing.assert_allclose(np.stack(found.tokens), np.stack(wanted.tokens), atol=5e-5)
    assert (found.pooled != wanted.pooled).any(), "the graph was not used"
    assert graph.info.fingerprint != torchs.info.fingerprint
    again = load_encoder(device="cpu").encode_images(pictures, True)
    np.testing.assert_array_equal(found.pooled, again.pooled)


@pytest.mark.slow
def test_a_graph_is_kept_and_a_damaged_one_made_anew(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path))
    first = load_encoder(device="cpu", patch_grid=1).encode_images(pictures[:2], False)
    (kept,) = (cache_folder() / "graphs").glob("*.onnx")
    whole = kept.read_bytes()
    middle = len(whole) // 2  # among the weights: ONNX Runtime sees nothing of it
    for damaged in (whole[:1000], whole[:middle] + bytes(64) + whole[middle + 64 :]):
        kept.write_bytes(damaged)
        again = load_encoder(device="cpu", patch_grid=1).encode_images(pictures[:2], False)
        np.testing.assert_array_equal(first.pooled, again.pooled)
        assert kept.stat().st_size == len(whole)
    assert {path.name for path in kept.parent.iterdir()} == {kept.name, f"{kept.stem}.sha256"}


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(pictures, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path / "file"))
    found = load_encoder(device="cpu", patch_grid=1).encode_images(pictures[:2], False)
    assert found.pooled.shape == (2, 2560)


def test_without_the_runtime_torch_computes(pictures, monkeypatch):
    monkeypatch.setattr("sgmft.features.encoders.image_encoder.can_run", lambda: False)
    plain = load_encoder(device="cpu")
    assert "onnxruntime" not in plain.info.image_key
    assert plain.encode_images(pictures[:1], False).pooled.shape == (1, 2560)
