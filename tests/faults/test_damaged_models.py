"""A damaged file of a saved model, or of an exported one, is named before it is used."""

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from sgmft import SemanticLocator
from sgmft.data.source import Source
from sgmft.errors import SgmftError
from sgmft.features.encoders.base import EncoderInfo
from sgmft.locator.abstention import HeldOutProbabilities
from sgmft.locator.onnx.locator import FORMAT, MANIFEST, Manifest
from sgmft.utils.checksums import checksum_matches, file_digests, with_checksum
from small_tables import file_names, train_table

FILES = ("config.json", "model.safetensors", "held_out.safetensors")


@pytest.fixture(scope="module")
def saved(tiny, small_posts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "model"
    tiny(preset="default").fit(small_posts).save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_or_a_cut_is_named(model, name):
    path = model / name
    whole = path.read_bytes()
    rng = random.Random(name)
    for position in rng.sample(range(len(whole)), 25):
        data = bytearray(whole)
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        if name == "config.json" and is_same_json(data, whole):
            continue  # one kind of white space for another
        with pytest.raises(SgmftError, match=rf"{name}.*save or copy the model again"):
            SemanticLocator.from_pretrained(model)
    for data in (b"", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(SgmftError, match=name):
            SemanticLocator.from_pretrained(model)
    path.write_bytes(whole)
    SemanticLocator.from_pretrained(model)


def is_same_json(one, other):
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_a_change_by_hand_is_refused_until_its_line_is_deleted(model):
    path = model / "config.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"Home"', '"Heim"'), "utf-8")
    with pytest.raises(SgmftError, match=r'changed by hand: .*delete its line "digest"'):
        SemanticLocator.from_pretrained(model)
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if '"digest"' not in line), "utf-8")
    assert "Heim" in SemanticLocator.from_pretrained(model).labels


def test_a_model_from_before_there_were_digests(model, small_posts):
    said = SemanticLocator.from_pretrained(model).predict(small_posts)
    path = model / "config.json"
    config = json.loads(path.read_text("utf-8"))
    del config["sgmft"]["digest"], config["sgmft"]["files"]
    path.write_text(json.dumps(config), "utf-8")
    assert SemanticLocator.from_pretrained(model).predict(small_posts) == said


def test_killed_between_the_files_of_a_model_and_run_again(table, tiny, tmp_path, monkeypatch):
    """What is there by then is no model, and is no obstacle."""

    class KilledError(BaseException):
        pass

    def stop(*_, **__):
        raise KilledError

    for name in ("file_digests", "make_whole", "write_json"):
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(f"sgmft.locator.locator.{name}", stop)
            train_table(Source(str(table)), tmp_path / "m", tiny(preset="default"))
        assert not (tmp_path / "m" / "config.json").exists()
    (tmp_path / "m" / ".model.safetensors.0123.tmp").write_bytes(b"half")
    train_table(Source(str(table)), tmp_path / "m", tiny(preset="default"))
    assert file_names(tmp_path / "m") == ["README.md", *FILES[:1], *FILES[:0:-1]]
    SemanticLocator.from_pretrained(tmp_path / "m")


@pytest.fixture
def exported(tmp_path):
    """The files of an exported model as far as the manifest looks at them."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "head.onnx").write_bytes(b"not a graph, but nobody runs it here")
    rows = np.full((3, 2), 0.5, np.float32), np.zeros(3, np.int64), np.ones(3, np.int8)
    HeldOutProbabilities(*rows).save(folder)
    info = asdict(EncoderInfo("x", "f" * 16, 8, 6, False, None, 32, "light"))
    values = {"format": FORMAT, "labels": ["a", "b"], "tokens": False, "method": "sgmft"}
    values |= {"calibration": {"temperature": 1.0}}
    values |= {"encoder": {"info": info, "texts": "compact", "max_words": 9}}
    values["files"] = file_digests(folder.iterdir())
    (folder / MANIFEST).write_text(json.dumps({"sgmft": with_checksum(values)}), "utf-8")
    return folder


@pytest.mark.parametrize("name", ["head.onnx", "held_out.safetensors", MANIFEST])
def test_a_damaged_file_of_an_export_is_named(exported, name):
    Manifest.read(exported)
    path = exported / name
    data = bytearray(path.read_bytes())
    if name == MANIFEST:
        data = data.replace(b'["a", "b"]', b'["b", "a"]')
    else:
        data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(SgmftError, match=f"{name} is damaged.*export the model again"):
        Manifest.read(exported)
    path.unlink()
    with pytest.raises(SgmftError, match=name):
        Manifest.read(exported)


def test_a_checksum_is_of_what_json_reads_back():
    values = {"b": (1, 2.5), "a": {2: "x", 10: None}, "ü": "\ud800"}
    read = json.loads(json.dumps(with_checksum(values)))
    assert checksum_matches(read) and next(iter(read)) == "digest"
    assert with_checksum(read) == read
    assert not checksum_matches({**read, "b": [1, 2.25]}) and checksum_matches({"b": 1})
