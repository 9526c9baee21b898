"""On a CPU with ONNX Runtime pictures go through a graph: the same features, made once, kept."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch_efficientnet

from sgmft.features.encoders.base import IMAGE_OUTPUTS
from sgmft.features.encoders.image_encoder import open_image_graph
from sgmft.features.encoders.registry import load_encoder
from sgmft.utils.files import cache_folder


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 260, 260, 3), dtype=np.uint8)


@pytest.mark.parametrize("grid", [1, 4])
def test_the_features_are_torchs_to_rounding(pictures, grid):
    encoder = load_encoder(device="cpu", patch_grid=grid)
    for count in (1, 3):
        found = encoder.encode_images(pictures[:count], True)
        pooled, regions = torch_efficientnet.encode(pictures[:count], grid)
        np.testing.assert_allclose(found.pooled, pooled, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.tokens, regions, rtol=1e-5, atol=1e-5)
    again = load_encoder(device="cpu", patch_grid=grid).encode_images(pictures[:3], True)
    np.testing.assert_array_equal(found.pooled, again.pooled)


def test_the_exporter_and_what_it_imports_are_not_needed(tmp_path):
    code = f"""
import sys
from pathlib import Path
from sgmft.features.encoders.image_encoder import write_image_graph
write_image_graph(4, Path({str(tmp_path / "graph.onnx")!r}))
print(*{{"onnxscript", "sympy", "torch.onnx", "torch._dynamo"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    onnx.checker.check_model(tmp_path / "graph.onnx", full_check=True)


def test_graphs_are_written_at_once_and_one_is_kept(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path))
    with ThreadPoolExecutor(3) as pool:
        sessions = list(pool.map(lambda _: open_image_graph(2, 1), range(3)))
    first, *others = (x.run(IMAGE_OUTPUTS, {"pictures": pictures[:1]}) for x in sessions)
    for other in others:
        np.testing.assert_array_equal(first[1], other[1])
    kept = {path: path.stat().st_mtime_ns for path in (cache_folder() / "graphs").iterdir()}
    assert {path.suffix for path in kept} == {".onnx", ".sha256"} and len(kept) == 2
    open_image_graph(2, 1)
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


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


def test_a_cache_that_cannot_be_written_is_done_without(pictures, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path / "file"))
    found = load_encoder(device="cpu", patch_grid=1).encode_images(pictures[:2], False)
    assert found.pooled.shape == (2, 2560)
