"""Exports in 8 bits: nearly the same features, their own fingerprint, and clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import tiny_clip
from sgmft import Post, SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.features.encoders.registry import load_encoder
from sgmft.locator.onnx.export import (
    SEEN,
    _halves,
    agreement,
    export_model,
    quantize_graph,
    quantize_image_network,
    readable_images,
)
from sgmft.locator.onnx.locator import OnnxLocator
from sgmft.utils.onnx_session import Session
from sgmft.utils.onnx_writer import write_graph


class Small(nn.Module):
    """Pixels through a convolution, a residual block and a mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.third = nn.Conv2d(16, 16, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        seen = self.first(pictures).clamp(0, 6)
        return (seen + self.third(self.second(seen).clamp(0, 6))).mean((2, 3))


def batches(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"pictures": rng.normal(size=(5, 3, 12, 12)).astype(np.float32)} for _ in range(count)]


def weights(path: Path) -> dict[str, onnx.TensorProto]:
    return {weight.name: weight for weight in onnx.load(path).graph.initializer}


def test_convolutions_are_integers_and_the_result_nearly_the_same(tmp_path):
    whole, small, again = (tmp_path / name for name in ("whole.onnx", "small.onnx", "again.onnx"))
    example = torch.zeros(3, 3, 12, 12)
    write_graph(Small().eval(), {"pictures": (example, 1)}, ["pooled"], whole)
    quantize_graph(whole, batches(), small)
    given = batches(8)[-1]
    (wanted,), (found,) = (Session(path).run(["pooled"], given) for path in (whole, small))
    assert 0 < np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    four_axes = [x for x in weights(small).values() if len(x.dims) == 4]
    kinds = {tuple(x.dims): x.data_type for x in four_axes}
    assert kinds[16, 3, 3, 3] == onnx.TensorProto.FLOAT, "what reads pixels stays as it is"
    assert kinds[16, 1, 3, 3] == kinds[16, 16, 1, 1] == onnx.TensorProto.INT8
    whole_numbers = [onnx.numpy_helper.to_array(x) for x in four_axes if x.data_type != 1]
    assert max(np.abs(x).max() for x in whole_numbers) <= 64, "two products must fit 16 bits"
    quantize_graph(whole, batches(), again)
    assert again.read_bytes() == small.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.onnx",
        "small.onnx",
        "whole.onnx",
    ]


def test_one_picture_of_each_of_enough_posts(small_posts, tiny):
    info = tiny().encoder.info
    bad = [Post("words"), Post(images="nowhere.jpg")]
    shown = [post for post in small_posts if post.images]
    assert len(list(readable_images([*bad, *shown], info))) == len(shown)
    assert len(list(readable_images(shown * 40, info))) == SEEN


def test_ranges_are_taken_from_one_half_and_labels_compared_on_the_other(small_posts):
    one, other = _halves(small_posts)
    assert sorted(post.id for post in [*one, *other]) == sorted(post.id for post in small_posts)
    assert (one, other) == _halves(small_posts) and len(one) == len(other)


def test_agreement_counts_what_both_can_label(small_posts):
    class Fixed:
        def __init__(self, *labels):
            self.labels = labels

        def predict(self, posts):
            assert all(post.images for post in posts) and len(posts) <= SEEN
            return [self.labels[i % len(self.labels)] for i in range(len(posts))]

    posts = [Post(images="x.jpg") for _ in range(12)]  # six are compared
    assert agreement(Fixed("a"), Fixed("a", "b"), posts) == (3, 6)
    assert agreement(Fixed("a", None), Fixed("a", None), posts) == (3, 3)
    assert agreement(Fixed("a"), Fixed("a"), [Post("words")]) == (0, 0)


def test_posts_without_pictures_are_refused(tmp_path):
    encoder = load_encoder("compact", device="cpu", dtype="float32")
    with pytest.raises(SgmftError, match="none of the posts that --int8"):
        quantize_image_network(encoder, tmp_path, [Post("words"), Post(images="nowhere.jpg")])


def test_other_encoders_are_refused(tmp_path):
    checkpoint = tmp_path / "clip"
    tiny_clip.save_tiny_clip(checkpoint)
    encoder = load_encoder(str(checkpoint), device="cpu", dtype="float32")
    with pytest.raises(SgmftError, match="leave --int8 out"):
        quantize_image_network(encoder, tmp_path, [])


@pytest.mark.slow
def test_compact_by_the_command(trained, sample, tmp_path, run):
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    whole, small = tmp_path / "whole", tmp_path / "small"
    locator = SemanticLocator.from_pretrained(model)
    export_model(locator, whole)
    done = run("export", model, "-o", small, "--int8", sample)
    assert done.returncode == 0, done.stderr
    compared = int(done.stderr.split(" other posts keep their label")[0].split()[-1])
    assert 0 < compared <= 14
    assert (small / "pictures.onnx").stat().st_size < (whole / "pictures.onnx").stat().st_size / 3
    one, other = (
        json.loads((folder / "onnx.json").read_text("utf-8"))["sgmft"]["encoder"]["info"]
        for folder in (whole, small)
    )
    assert one["fingerprint"] != other["fingerprint"] and "int8" in other["image_key"]
    posts = read_posts(sample)
    wanted, found = (OnnxLocator.load(folder).predict_proba(posts) for folder in (whole, small))
    apart = np.abs(found - wanted).max(1)
    silent = np.array([not post.images for post in posts])
    assert apart[silent].max() < 1e-5, "texts are as they were"
    assert apart.max() > 0 and np.median(apart[~silent]) < 0.1
