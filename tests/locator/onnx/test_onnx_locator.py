"""An exported model predicts as the model does, and a damaged one is refused."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from sgmft import Abstention, Post, SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.locator.onnx.export import export_model
from sgmft.locator.onnx.locator import OnnxLocator

ROOT = Path(__file__).parents[3]


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


def check_probabilities(output: Path, locator: SemanticLocator, table: Path) -> None:
    """Check that a table of predictions is the locator's."""
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    found = [[row[f"p_{label}"] for label in locator.labels] for row in rows]
    np.testing.assert_allclose(found, locator.predict_proba(read_posts(table)), atol=1e-5)


def test_the_same_predictions(exported, plain, posts):
    locator = OnnxLocator.load(exported)
    rules = Abstention(coverage=0.8, min_probability=0.3)
    wanted = list(plain.predictions(posts, rules))
    found = list(locator.predictions(posts, rules))
    assert locator.labels == plain.labels
    for name in ("label", "label_set", "abstained", "error"):
        assert [getattr(p, name) for p in found] == [getattr(p, name) for p in wanted]
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
    check_probabilities(out, plain, sample)


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


def cut(data: bytes) -> bytes:
    return data[:100]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *((name, cut, name) for name in ("head.onnx", "pictures.onnx", "held_out.safetensors")),
        *((name, None, name) for name in ("head.onnx", "pictures.onnx", "onnx.json")),
        *(
            ("onnx.json", lambda _, text=text: text, r"onnx\.json is damaged")
            for text in (b"", b"{}", b"[]", b'{"sgmft": {"format": 1}}', b'{"sgmft": 3}')
        ),
        ("onnx.json", lambda x: x.replace(b'"format": 1', b'"format": 99'), "newer format"),
    ],
)
def test_a_damaged_or_missing_file_is_named(name, change, message, copy):
    data = (copy / name).read_bytes()
    (copy / name).unlink()
    if change is not None:
        (copy / name).write_bytes(change(data))
    with pytest.raises(SgmftError, match=message):
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


@pytest.mark.slow
def test_compact_in_8_bits_by_the_command(trained, exported, sample, tmp_path, run):
    whole, small = exported, tmp_path / "small"
    done = run("export", trained, "-o", small, "--int8", sample)
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


@pytest.mark.slow
def test_a_fresh_environment_without_torch_predicts_the_same(exported, plain, sample, tmp_path):
    slim = tmp_path / "slim"
    venv.create(slim, with_pip=True)
    python = slim / "bin" / "python"

    def pip(*words: object) -> subprocess.CompletedProcess[str]:
        constraints = ["--constraint", ROOT / "constraints.txt"]
        command = [python, "-m", "pip", "install", "--quiet", "--no-compile", *constraints, *words]
        return subprocess.run([str(x) for x in command], capture_output=True, text=True)

    done = pip("setuptools", "wheel", "hatchling", "editables")
    if done.returncode:
        pytest.skip(f"packages cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    done = pip("--no-build-isolation", "-r", ROOT / "requirements-onnx.txt")
    assert done.returncode == 0, done.stderr
    done = pip("--no-build-isolation", "--no-deps", ROOT)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    out = tmp_path / "out.jsonl"
    command = [slim / "bin" / "sgmft", "predict", exported, sample, "-o", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_probabilities(out, plain, sample)
