"""An exported model predicts as the model does: whole, each network of it, and in 8 bits."""

import json
import shutil
import subprocess
import sys
import venv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import tiny_clip
from models.baselines.test_every_method import (
    SMALL,
    SOLVED,
    SYSTEMS,
    TRAINED,
    features,
    fresh,
    task,
)
from sgmft import Abstention, Post, SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.features.encoders.image_encoder import IMAGE_SIZE, NETWORKS, pooling, scaling
from sgmft.features.encoders.registry import load_encoder
from sgmft.locator.onnx.export import (
    SEEN,
    _halves,
    _write_encoder,
    agreement,
    export_model,
    quantize_graph,
    quantize_image_network,
    readable_images,
)
from sgmft.locator.onnx.locator import (
    HEAD_OUTPUTS,
    WEIGHTS,
    Manifest,
    OnnxEncoder,
    OnnxLocator,
)
from sgmft.locator.onnx.writer import write_graph, write_head
from sgmft.models.arrays import softmax
from sgmft.models.base import predict_logits
from sgmft.models.network import _bisect, lookup
from sgmft.training.fit import fit_network
from sgmft.utils.onnx_session import Session
from small_tables import file_names

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export_model(SemanticLocator.from_pretrained(trained), folder)
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture(scope="module")
def posts(sample):
    return [
        *read_posts(sample),
        Post("", id="nothing"),
        Post("在家", id="words only"),
        Post(images="nowhere.jpg", id="no file"),
    ]


@pytest.fixture(scope="module")
def plain(trained, store):
    return SemanticLocator.from_pretrained(trained, features=store)


def check_probabilities(output, locator, table):
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
    probs = locator.predict_proba([*posts[:4], *posts[-3:]])
    assert np.isnan(probs[-1]).all() and np.isnan(probs[-3]).all()
    np.testing.assert_allclose(np.nansum(probs, 1), [1] * 4 + [0, 1, 0], atol=1e-5)
    assert locator.predict(posts[:3]) == plain.predict(posts[:3])


@pytest.mark.slow
def test_a_model_on_tokens(tmp_path, sample, store):
    locator = SemanticLocator(
        preset="tokens", settings={"width": 16, "heads": 2, "epochs": 1}, features=store
    )
    posts = read_posts(sample)
    locator.fit(posts)
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
    assert done.returncode == 0 and WEIGHTS in done.stderr
    assert "torchvision" not in done.stderr
    done = run("predict", folder, sample, "-o", out)
    assert done.returncode == 0 and "Wrote 28 rows" in done.stderr
    for words, message in (
        (["predict", folder, sample, "--runtime", "tflite"], "torch, onnx"),
        (["predict", folder, sample, "--runtime", "torch"], "not a model saved by sgmft"),
        (["predict", folder, sample, "--device", "cuda"], "leave out --device"),
        (["predict", folder, sample, "--features", tmp_path], "leave out --features"),
        (["predict", trained, sample, "--runtime", "onnx"], "not a model exported by sgmft"),
        (["export", trained, "-o", trained], "another folder"),
    ):
        refused = run(*words)
        assert refused.returncode == 2 and message in refused.stderr


def cut(data):
    return data[:100]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *((name, cut, name) for name in (WEIGHTS, "pictures.onnx", "held_out.safetensors")),
        *((name, None, name) for name in (WEIGHTS, "pictures.onnx", "onnx.json")),
        *(
            ("onnx.json", lambda _, text=text: text, r"onnx\.json is damaged")
            for text in (b"", b"{}", b"[]", b'{"sgmft": {"format": 2}}', b'{"sgmft": 3}')
        ),
        ("onnx.json", lambda x: x.replace(b'"format": 2', b'"format": 99'), "newer format"),
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
    monkeypatch.setattr("sgmft.models.base.ClosedFormModel.save", full)
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


# --- networks

TEMPERATURES = (1.7, 1.3, 0.8, 2.1)  # of posts of whatever, of text, of pictures, of both
LAYERS = {"mplug": 3, "bridgetower": 1}  # instead of 6 and 3, which take long to write
TEXTS = ["周末在家看书", "a", "movie night with friends " * 30, "☺", "在"]
QUICK = ("sgmft elements",)  # the others are written in `make test-all`
EXACT = {"device": "cpu", "dtype": "float32"}

# --- heads


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED],
)
def test_a_graph_answers_as_its_network(name, tmp_path, monkeypatch):
    if name in LAYERS:
        monkeypatch.setitem(SMALL, "layers", LAYERS[name])
    network, info = fresh(name), task(name).info
    method, preset = SYSTEMS[name]
    tokens = method.uses_tokens(method.preset(preset))
    write_head(network, TEMPERATURES, info, tokens, tmp_path / "head.onnx")
    graph = Session(tmp_path / "head.onnx")
    for posts in (1, 9):
        found = features(name, posts, seed=posts)
        output = network.predict(found.batch())
        probs, guidance = graph.run(HEAD_OUTPUTS, found.batch()._asdict())
        wanted = softmax(output.logits / np.array(TEMPERATURES)[found.parts, None])
        np.testing.assert_allclose(probs, wanted, atol=2e-6)
        if output.guidance is None:
            assert np.isnan(guidance).all()
        else:
            np.testing.assert_allclose(guidance, np.stack(output.guidance, 1), atol=1e-5)


@pytest.mark.parametrize("name", SOLVED)
def test_a_closed_form_model_is_run_by_the_same_code(name, tmp_path):
    model = fit_network(task(name), []).model
    model.save(tmp_path / WEIGHTS)
    method = SYSTEMS[name][0]
    found = method.network(method.load_config(asdict(model.config)))
    found.load(tmp_path / WEIGHTS)
    for one, other in zip(
        *(predict_logits(x, features(name, 9, seed=9)) for x in (model, found)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 100])
def test_the_search_that_can_be_exported_finds_the_same(size):
    rng = torch.Generator().manual_seed(size)
    vocabulary = torch.randperm(3 * size, generator=rng)[:size].sort().values
    asked = torch.arange(-2, 3 * size + 2).reshape(1, -1)
    place, known = lookup(vocabulary, asked)
    other = _bisect(vocabulary, asked)
    assert torch.equal(known, torch.isin(asked, vocabulary))
    assert torch.equal(vocabulary[other] == asked, known)
    assert torch.equal(other[known], place[known])


def test_what_onnx_cannot_do_is_said_in_a_sentence(tmp_path):
    class Undecided(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(SgmftError, match=r"cannot be written as ONNX: ."):
        write_graph(Undecided(), {"x": (torch.rand(5, 2), 1)}, ["y"], tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


# --- encoders


@pytest.fixture
def clip(tmp_path):
    tiny_clip.save_tiny_clip(tmp_path / "clip")
    return str(tmp_path / "clip")


def check(encoder, folder, pictures=None):
    written = _write_encoder(encoder, folder)
    manifest = Manifest([], True, encoder.info, written["texts"], written["max_words"], "", {}, ())
    graph = OnnxEncoder(folder, manifest._replace(steps=written.get("steps")))
    if size := encoder.info.image_size:
        shape = (11, size, size, 3)
        squares = pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    else:
        squares = [graph.prepare_image(x) for x in pictures]
    for ours, theirs in (
        (graph.encode_images(squares, True), encoder.encode_images(pictures, True)),
        (graph.encode_texts(TEXTS, True), encoder.encode_texts(TEXTS, True)),
    ):
        np.testing.assert_allclose(ours.pooled, theirs.pooled, atol=5e-5)
        for one, other in zip(ours.tokens, theirs.tokens, strict=True):
            np.testing.assert_allclose(one, other, atol=5e-5)
    assert graph.encode_images(squares[:2], False).tokens is None
    assert graph.encode_texts(TEXTS[:1], False).tokens is None
    for empty in (graph.encode_texts([], True), graph.encode_images(squares[:0], True)):
        assert len(empty.pooled) == 0 and empty.tokens == []


@pytest.mark.slow
@pytest.mark.parametrize("grid", [1, 3])
def test_chinese_clip(grid, clip, tmp_path):
    check(load_encoder(clip, patch_grid=grid, **EXACT), tmp_path)


def test_compact(tmp_path):
    check(load_encoder("compact", patch_grid=5, device="cpu"), tmp_path)


@pytest.mark.parametrize(
    "family", [pytest.param(x, marks=pytest.mark.slow) for x in ("clip", "siglip", "altclip")]
)
def test_a_dual_encoder_of_transformers(families, family, tmp_path):
    from library_checkpoints import pictures

    check(load_encoder(f"hf:{families[family]}", **EXACT), tmp_path, pictures())


@pytest.mark.parametrize("size", NETWORKS.values())
def test_pictures_are_scaled_as_torch_scales_them(size):
    picture = torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE) * 255
    wanted = nn.functional.interpolate(picture, (size, size), mode="bicubic", antialias=True)
    matrix = torch.from_numpy(scaling(size))
    torch.testing.assert_close(matrix @ picture @ matrix.T, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("side", "grid"), [(7, 4), (9, 4), (7, 1), (9, 16), (2, 3)])
def test_regions_are_pooled_as_torch_pools_them(side, grid):
    maps = torch.rand(3, 5, side, side)
    wanted = nn.functional.adaptive_avg_pool2d(maps, grid).flatten(2)
    matrix = torch.from_numpy(pooling(side, grid))
    torch.testing.assert_close(maps.flatten(2) @ matrix.T, wanted)


def test_what_cannot_be_exported_is_refused(tiny, clip, families, tmp_path):
    for name in ("hf:naflex", "hf:clip+compact", "st:st-clip"):
        kind, _, rest = name.partition(":")
        family, plus, half = rest.partition("+")
        encoder = load_encoder(f"{kind}:{families[family]}{plus}{half}")
        with pytest.raises(SgmftError, match=r"cannot be exported: use the model as it is.*serve"):
            _write_encoder(encoder, tmp_path)
    with pytest.raises(SgmftError, match="tiny cannot be exported"):
        _write_encoder(tiny().encoder, tmp_path)
    with pytest.raises(SgmftError, match="none of the posts that --int8"):
        posts = [Post("words"), Post(images="nowhere.jpg")]
        quantize_image_network(load_encoder("compact", device="cpu"), tmp_path, posts)
    with pytest.raises(SgmftError, match="leave --int8 out"):
        quantize_image_network(load_encoder(clip, **EXACT), tmp_path, [])


# --- 8 bits


class Small(nn.Module):
    """Pixels through a convolution, a residual block and a mean."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.third = nn.Conv2d(16, 16, 1)

    def forward(self, pictures):
        seen = self.first(pictures).clamp(0, 6)
        return (seen + self.third(self.second(seen).clamp(0, 6))).mean((2, 3))


def test_convolutions_are_integers_and_the_result_nearly_the_same(tmp_path):
    whole, small, again = (tmp_path / name for name in ("whole.onnx", "small.onnx", "again.onnx"))
    rng = np.random.default_rng(1)
    *batches, given = ({"pictures": x} for x in rng.normal(size=(5, 5, 3, 12, 12)).astype("f"))
    example = torch.zeros(3, 3, 12, 12)
    write_graph(Small().eval(), {"pictures": (example, 1)}, ["pooled"], whole)
    quantize_graph(whole, batches, small)
    (wanted,), (found,) = (Session(path).run(["pooled"], given) for path in (whole, small))
    assert 0 < np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    weights = [x for x in onnx.load(small).graph.initializer if len(x.dims) == 4]
    kinds = {tuple(x.dims): x.data_type for x in weights}
    assert kinds[16, 3, 3, 3] == onnx.TensorProto.FLOAT, "what reads pixels stays as it is"
    assert kinds[16, 1, 3, 3] == kinds[16, 16, 1, 1] == onnx.TensorProto.INT8
    whole_numbers = [onnx.numpy_helper.to_array(x) for x in weights if x.data_type != 1]
    assert max(np.abs(x).max() for x in whole_numbers) <= 64, "two products must fit 16 bits"
    quantize_graph(whole, batches, again)
    assert again.read_bytes() == small.read_bytes()
    assert file_names(tmp_path) == ["again.onnx", "small.onnx", "whole.onnx"]


def test_ranges_are_taken_from_pictures_of_one_half(small_posts, tiny):
    info = tiny().encoder.info
    bad = [Post("words"), Post(images="nowhere.jpg")]
    shown = [post for post in small_posts if post.images]
    assert len(list(readable_images([*bad, *shown], info))) == len(shown)
    assert len(list(readable_images(shown * 40, info))) == SEEN
    one, other = _halves(small_posts)
    assert sorted(post.id for post in [*one, *other]) == sorted(post.id for post in small_posts)
    assert (one, other) == _halves(small_posts) and len(one) == len(other)


def test_agreement_counts_what_both_can_label():
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
