"""An exported model predicts as the model does, and a damaged one is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sgmft import Abstention, Post, SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.locator.onnx.export import export_model
from sgmft.locator.onnx.locator import OnnxLocator


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export_model(SemanticLocator.from_pretrained(trained), folder)
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture(scope="module")
def posts(sample: Path) -> list[Post]:
    return [
        *read_posts(sample),
        Post("", id="nothing"),
        Post("在家", id="words only"),
        Post(images="nowhere.jpg", id="no file"),
    ]


@pytest.fixture(scope="module")
def plain(trained: Path) -> SemanticLocator:
    """The model with its encoder in the precision that is exported."""
    locator = SemanticLocator.from_pretrained(trained)
    locator.encoder_settings["dtype"] = "float32"
    return locator


def test_the_same_predictions(exported, plain, posts):
    locator = OnnxLocator.load(exported)
    rules = Abstention(coverage=0.8, min_probability=0.3)
    wanted = list(plain.predictions(posts, rules))
    found = list(locator.predictions(posts, rules))
    assert locator.labels == plain.labels
    assert [p.label for p in found] == [p.label for p in wanted]
    assert [p.label_set for p in found] == [p.label_set for p in wanted]
    assert [p.abstained for p in found] == [p.abstained for p in wanted]
    assert [p.error for p in found] == [p.error for p in wanted]
    assert sum(p.error is not None for p in found) == 2
    for one, other in zip(found, wanted, strict=True):
        if one.probabilities is not None:
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
            np.testing.assert_allclose(one.guidance, other.guidance, atol=1e-5)
    probs = locator.predict_proba(posts)
    assert np.isnan(probs[-1]).all() and np.isnan(probs[-3]).all()
    np.testing.assert_allclose(np.nansum(probs, 1), [1] * 28 + [0, 1, 0], atol=1e-5)
    assert locator.predict(posts[:3]) == plain.predict(posts[:3])


@pytest.mark.slow
def test_a_model_on_tokens(tmp_path, sample, store):
    locator = SemanticLocator(
        preset="tokens", settings={"width": 16, "heads": 2, "epochs": 1}, features=store
    )
    posts = read_posts(sample)
    locator.encoder_settings["dtype"] = "float32"
    locator.fit(posts)
    del locator.encoder_settings["dtype"]
    export_model(locator, tmp_path / "onnx")
    found = OnnxLocator.load(tmp_path / "onnx").predict_proba(posts)
    np.testing.assert_allclose(found, locator.predict_proba(posts), atol=1e-4)


def test_the_command_line_runs_it_without_torch(exported, plain, sample, tmp_path):
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sklearn', 'scipy', 'pyarrow', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "from sgmft.cli.main import main\n"
        "sys.argv = ['sgmft', 'predict', *sys.argv[1:]]\n"
        "main()\n"
    )
    out = tmp_path / "out.jsonl"
    words = [exported, sample, "-o", out, "--runtime", "onnx", "--min-probability", "0.3"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    wanted = plain.predict_proba(read_posts(sample))
    found = [[row[f"p_{label}"] for label in plain.labels] for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_export_and_predict_as_a_user_types_them(run, trained, sample, tmp_path):
    folder, out = tmp_path / "onnx", tmp_path / "out.csv"
    done = run("export", trained, "-o", folder)
    assert done.returncode == 0 and "head.onnx" in done.stderr
    assert "torchvision" not in done.stderr
    done = run("predict", folder, sample, "-o", out)
    assert done.returncode == 0 and "Wrote 28 rows" in done.stderr
    for words, message in (
        (["predict", folder, sample, "--runtime", "tflite"], "torch or onnx"),
        (["predict", folder, sample, "--runtime", "torch"], "not a model saved by sgmft"),
        (["predict", folder, sample, "--device", "cuda"], "leave out --device"),
        (["predict", folder, sample, "--features", tmp_path], "leave out --features"),
        (["predict", trained, sample, "--runtime", "onnx"], "not a model exported by sgmft"),
        (["export", trained, "-o", trained], "another folder"),
    ):
        refused = run(*words)
        assert refused.returncode == 2 and message in refused.stderr


@pytest.mark.parametrize("name", ["head.onnx", "pictures.onnx", "held_out.safetensors"])
def test_a_damaged_file_is_named(name, copy):
    (copy / name).write_bytes((copy / name).read_bytes()[:100])
    with pytest.raises(SgmftError, match=name):
        OnnxLocator.load(copy)


@pytest.mark.parametrize("name", ["head.onnx", "pictures.onnx", "onnx.json"])
def test_a_missing_file_is_named(name, copy):
    (copy / name).unlink()
    with pytest.raises(SgmftError, match=name):
        OnnxLocator.load(copy)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"sgmft": {"format": 1}}', '{"sgmft": 3}'])
def test_a_damaged_manifest_is_named(text, copy):
    (copy / "onnx.json").write_text(text)
    with pytest.raises(SgmftError, match=r"onnx\.json is damaged"):
        OnnxLocator.load(copy)


def test_a_newer_format_says_so(copy):
    manifest = json.loads((copy / "onnx.json").read_text("utf-8"))
    manifest["sgmft"]["format"] = 99
    (copy / "onnx.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(SgmftError, match="newer format"):
        OnnxLocator.load(copy)


@pytest.mark.slow
def test_an_export_replaces_an_earlier_one_and_nothing_else(trained, exported, copy, tmp_path):
    locator = SemanticLocator.from_pretrained(trained)
    (copy / "mine.txt").write_text("kept")
    (copy / "texts.onnx").write_text("of an earlier model with another encoder")
    files = export_model(locator, copy)
    assert (copy / "mine.txt").read_text() == "kept"
    assert not (copy / "texts.onnx").exists()
    assert {path.name for path in files} == {path.name for path in exported.iterdir()}
    OnnxLocator.load(copy)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(SgmftError, match="other files"):
        export_model(locator, other)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_an_export_that_fails_leaves_the_earlier_one(trained, copy, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setattr("sgmft.locator.onnx.export.write_head", full)
    with pytest.raises(SgmftError, match="No space left"):
        export_model(SemanticLocator.from_pretrained(trained), copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_what_cannot_be_exported_says_so(tiny, tmp_path):
    with pytest.raises(SgmftError, match="not trained"):
        export_model(tiny(), tmp_path / "onnx")
