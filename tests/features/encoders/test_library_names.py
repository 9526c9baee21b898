"""Names of other libraries' encoders: what they mean, what is pinned, run, trusted, and refused."""

import hashlib
import json
import shutil
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest

from library_checkpoints import change_json, save_checkpoint
from sgmft import SemanticLocator
from sgmft.errors import SgmftError
from sgmft.features.encoders.registry import load_encoder
from sgmft.training.finetune.settings import Tuning
from small_posts import saved_config
from tiny_clip import save_tiny_clip

COMMIT = "ab" * 20
CODE = """
from transformers import {kind}Config, {kind}Model

class OwnConfig({kind}Config):
    model_type = "own"

class OwnModel({kind}Model):
    config_class = OwnConfig
"""


@pytest.fixture
def hub(tmp_path: Path, families: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline cache of the hub, with the newest commit of owner/clip; returns its folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return fill_cache(tmp_path / "hub", "owner/clip", families["clip"])


def fill_cache(hub: Path, repository: str, folder: Path) -> Path:
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT, "utf-8")
    return Path(shutil.copytree(folder, root / "snapshots" / COMMIT))


def refusal(name: str, **settings: Any) -> str:
    with pytest.raises(SgmftError) as caught:
        load_encoder(name, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names


def test_a_folder_says_by_itself_what_it_holds(families) -> None:
    bare, named = load_encoder(str(families["clip"])), load_encoder(f"hf:{families['clip']}")
    assert bare.info == named.info
    texts = load_encoder(f"{families['st-xlmr']}+hf:{families['dinov2']}").info
    assert (texts.text_width, texts.image_width, texts.shared_space) == (16, 16, False)


def test_towers_give_each_their_half(families) -> None:
    names = (f"st:{families['st-xlmr']}", f"hf:{families['clip']}")
    both = load_encoder("+".join(names))
    half = load_encoder(names[1])
    picture = np.zeros((20, 30, 3), np.uint8)
    np.testing.assert_array_equal(
        both.encode_images([picture], False).pooled, half.encode_images([picture], False).pooled
    )
    assert both.info.image_key == half.info.image_key
    assert both.info.fingerprint not in (
        half.info.fingerprint,
        load_encoder(f"compact+{names[1]}").info.fingerprint,
    )
    with_compact = load_encoder(f"{names[0]}+compact").info
    assert with_compact.image_size == 260 and with_compact.text_width == 16


def test_one_tower_alone_is_told_what_to_add(families) -> None:
    for family, kind, fix in (("dinov2", "texts", "compact+hf:"), ("xlmr", "pictures", "+compact")):
        message = refusal(f"hf:{families[family]}")
        assert f"takes no {kind}" in message and fix in message
    assert "takes no texts" in refusal(f"hf:{families['dinov2']}+hf:{families['clip']}")


def test_a_folder_with_a_plus_in_its_name_is_one_encoder(families, tmp_path) -> None:
    copy = shutil.copytree(families["clip"], tmp_path / "clip+more")
    assert load_encoder(f"hf:{copy}").info.text_width == 12


# --- identity


def _other_size(folder: Path) -> None:
    change_json(folder / "preprocessor_config.json", size={"shortest_edge": 40})


def _no_lower_case(folder: Path) -> None:
    change_json(folder / "tokenizer.json", normalizer=None)


def _other_activation(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    change_json(folder / "config.json", text_config={**config["text_config"], "hidden_act": "gelu"})


@pytest.mark.parametrize("change", [_other_size, _no_lower_case, _other_activation])
def test_the_fingerprint_follows_the_settings_and_not_the_folder(
    families, tmp_path, change
) -> None:
    copy, known = tmp_path / "copy", load_encoder(f"hf:{families['clip']}").info
    shutil.copytree(families["clip"], copy)
    assert load_encoder(f"hf:{copy}").info.fingerprint == known.fingerprint
    change(copy)
    found = load_encoder(f"hf:{copy}").info
    assert found.fingerprint != known.fingerprint and found.weights != known.weights
    for setting in ({"cleaning": "paper"}, {"patch_grid": 2}, {"dtype": "bfloat16"}):
        found = load_encoder(f"hf:{families['clip']}", **setting).info
        assert found.fingerprint != known.fingerprint and found.weights == known.weights
    assert (
        load_encoder(f"hf:{families['clip']}", cleaning="paper").info.image_key == known.image_key
    )


def test_a_saved_model_asks_for_the_commit_it_was_trained_with(hub, clip_posts, tmp_path) -> None:
    locator = SemanticLocator("hf:owner/clip+compact").fit([x for x in clip_posts if not x.images])
    locator.save_pretrained(tmp_path / "model")
    pinned = f"hf:owner/clip@{COMMIT}+compact"
    assert saved_config(tmp_path / "model")["encoder"]["name"] == pinned
    (hub.parents[1] / "refs" / "main").unlink()  # a newer commit may be there by now
    again = SemanticLocator.from_pretrained(tmp_path / "model")
    posts = [x for x in clip_posts if not x.images][:3]
    np.testing.assert_array_equal(again.predict_proba(posts), locator.predict_proba(posts))


def test_a_fine_tuned_one_asks_for_the_commit_it_was_trained_from(
    hub, clip_posts, tmp_path
) -> None:
    tuning = Tuning(epochs=1, rank=2, batch_size=12, augment=False)
    locator = SemanticLocator("hf:owner/clip", tune=tuning).fit(clip_posts)
    locator.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "encoder" / "encoder.json").read_text("utf-8"))
    assert described["base"]["name"] == f"hf:owner/clip@{COMMIT}"
    assert f"`hf:owner/clip@{COMMIT}, fine-tuned`" in (tmp_path / "README.md").read_text("utf-8")
    again = SemanticLocator.from_pretrained(tmp_path)
    assert again.predict(clip_posts) == locator.predict(clip_posts)


def test_other_weights_of_that_name_are_refused(families, clip_posts, tmp_path) -> None:
    copy = Path(shutil.copytree(families["clip"], tmp_path / "clip"))
    SemanticLocator(f"hf:{copy}").fit(clip_posts).save_pretrained(tmp_path / "model")
    shutil.rmtree(copy)
    other = save_checkpoint("altclip", copy)
    with pytest.raises(SgmftError, match="has other weights or settings than the one"):
        SemanticLocator.from_pretrained(tmp_path / "model").predict(clip_posts[:1])
    assert other == copy


@pytest.fixture(scope="module", params=["head", "lora"])
def fitted(request, families, clip_posts, tmp_path_factory) -> tuple[SemanticLocator, Path]:
    """A locator trained with an encoder whose folder is gone, and its own folder."""
    folder = tmp_path_factory.mktemp("fitted")
    copy = shutil.copytree(families["clip"], folder / "clip")
    lora = Tuning(epochs=1, rank=2, batch_size=12, augment=False)
    tuning = lora if request.param == "lora" else "head"
    locator = SemanticLocator(f"hf:{copy}", tune=tuning).fit(clip_posts)
    locator.save_pretrained(folder / "model")
    shutil.rmtree(copy)
    return locator, folder / "model"


@pytest.mark.parametrize("change", [_other_size, _no_lower_case, _other_activation])
def test_other_settings_of_that_name_are_refused(
    fitted, families, clip_posts, tmp_path, change
) -> None:
    (locator, model), posts = fitted, clip_posts[:3]
    moved = Path(shutil.copytree(families["clip"], tmp_path / "moved"))
    again = SemanticLocator.from_pretrained(model, encoder=f"hf:{moved}")
    np.testing.assert_allclose(again.predict_proba(posts), locator.predict_proba(posts), atol=1e-6)
    change(moved)
    with pytest.raises(SgmftError, match="other weights"):
        SemanticLocator.from_pretrained(model, encoder=f"hf:{moved}").predict(posts)


@pytest.mark.parametrize("family", ["clip", "xlmr", "st-xlmr"])
def test_a_folder_without_a_tokenizer_is_refused(families, tmp_path, family) -> None:
    copy = Path(shutil.copytree(families[family], tmp_path / "copy"))
    for path in (*copy.rglob("tokenizer*"), *copy.rglob("vocab*"), *copy.rglob("special_tokens*")):
        path.unlink()
    kind = family[:3] if family.startswith("st-") else "hf:"
    message = refusal(f"{kind.replace('st-', 'st:')}{copy}{'' if family == 'clip' else '+compact'}")
    assert "tokenizer" in message


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as serves `folder` as the repository owner/new, and tells what was got."""

    folder: Path
    got: list[str]

    def do_HEAD(self) -> None:
        self.respond(False)

    def do_GET(self) -> None:
        self.respond(True)

    def respond(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        names = sorted(x.relative_to(self.folder).as_posix() for x in self.folder.rglob("*.*"))
        data, name = b"", path.rpartition(f"/{COMMIT}/")[2]
        if path.startswith("/api/models/owner/new/revision/"):
            siblings = [{"rfilename": x} for x in names]
            data = json.dumps({"id": "owner/new", "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith("/api/models/owner/new/tree/"):
            sizes = [(x, (self.folder / x).stat().st_size) for x in names]
            files = [{"type": "file", "path": x, "size": y, "oid": x} for x, y in sizes]
            data = json.dumps(files).encode()
        elif "/resolve/" in path:
            data = (self.folder / name).read_bytes()
            self.got += [name] * body
        self.send_response(200 if data or path == "/" else 404)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_a_name_is_fetched_once_without_what_is_not_needed(
    hub, weights: str, monkeypatch, tmp_path
) -> None:
    published = save_tiny_clip(tmp_path / "published", weights=weights)
    expected = sorted(x.name for x in published.iterdir())
    unwanted = {"safetensors": ["pytorch_model.bin"], "bin": []}[weights]
    for name in (*unwanted, "onnx/model.json", "README.md"):
        (published / name).parent.mkdir(exist_ok=True)
        (published / name).write_bytes(b"not for us")
    Hub.folder, Hub.got = published, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    where = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", where)
    found = load_encoder("hf:owner/new").info
    server.shutdown()
    assert sorted(Hub.got) == expected and found.pinned == f"hf:owner/new@{COMMIT}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_encoder(found.pinned).info.fingerprint == found.fingerprint


# --- refused


def test_names_that_are_nowhere(hub) -> None:
    message = refusal("hf:owner/another")
    assert "hf download owner/another" in message and "--encoder clip/" in message
    assert "sentence-transformers/all-nothing" in refusal("st:all-nothing")
    for name in ("./nowhere/", "猫/狗"):
        assert "no such folder" in refusal(f"hf:{name}")
    assert "cannot be fetched" in refusal("hf:a--b/c")


def test_a_hub_that_never_answers_is_given_up_soon(hub, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("sgmft.features.encoders.hub.HUB_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        assert load_encoder("hf:owner/clip").info.name == "hf:owner/clip"  # it is here: not asked
        assert "hf download owner/another" in refusal("hf:owner/another")


def test_weights_that_are_not_there_are_not_made_up(families, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(families["clip"], tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert "no weights for text_projection.weight" in refusal(f"hf:{copy}")


def test_a_pooler_without_weights_is_not_used(tmp_path) -> None:
    import transformers as hf

    folder, layers = tmp_path / "vit", {"num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "image_size": 32, "patch_size": 8}
    hf.ViTForImageClassification(hf.ViTConfig(**layers, **sizes)).save_pretrained(folder)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    one, two = (load_encoder(f"compact+hf:{folder}") for _ in range(2))
    picture = [np.zeros((20, 30, 3), np.uint8)]
    first = one.encode_images(picture, True)
    np.testing.assert_array_equal(first.pooled, two.encode_images(picture, False).pooled)
    assert first.tokens[0].shape == (16, 16)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_damaged_checkpoint(families, tmp_path, file: str) -> None:
    copy = shutil.copytree(families["clip"], tmp_path / "copy")
    (copy / file).write_bytes(b"\xff" * 3000)
    assert f"cannot be read from {copy}" in refusal(f"hf:{copy}")


def test_another_kind_of_network(families, tmp_path) -> None:
    copy = shutil.copytree(families["clip"], tmp_path / "copy")
    change_json(copy / "config.json", model_type="something-new")
    assert "something-new" in refusal(f"hf:{copy}")


def test_python_files_run_only_if_they_are_trusted(families, clip_posts, tmp_path) -> None:
    copy = shutil.copytree(families["clip"], tmp_path / "copy")
    (copy / "modeling_own.py").write_text(CODE.format(kind="CLIP"), "utf-8")
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    change_json(copy / "config.json", model_type="own", auto_map=own)
    message = refusal(f"hf:{copy}")
    assert "--trust-remote-code" in message and "Python files" in message
    locator = SemanticLocator(f"hf:{copy}", trust_remote_code=True).fit(clip_posts)
    locator.save_pretrained(tmp_path / "model")
    assert saved_config(tmp_path / "model")["encoder"]["trust_remote_code"] is True
    assert "--trust-remote-code" in (tmp_path / "model" / "README.md").read_text("utf-8")
    with pytest.raises(SgmftError, match="--trust-remote-code"):
        SemanticLocator.from_pretrained(tmp_path / "model").predict(clip_posts[:1])
    again = SemanticLocator.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert again.predict(clip_posts) == locator.predict(clip_posts)


def test_modules_of_other_packages_run_only_if_they_are_trusted(families, tmp_path) -> None:
    copy = shutil.copytree(families["st-xlmr"], tmp_path / "copy")
    modules = json.loads((copy / "modules.json").read_text("utf-8"))
    modules[2]["type"] = "antigravity.Normalize"
    (copy / "modules.json").write_text(json.dumps(modules), "utf-8")
    assert "--trust-remote-code" in refusal(f"st:{copy}+compact")


def test_an_aligned_pair_of_towers_shares_a_space(families, hub, clip_posts, tmp_path) -> None:
    from sgmft.features.encoder_handle import EncoderHandle
    from sgmft.jobs.align import align_encoder

    towers = f"hf:owner/clip+hf:{families['dinov2']}"
    align_encoder(clip_posts * 2, tmp_path / "aligned", EncoderHandle(towers), width=6)
    described = json.loads((tmp_path / "aligned" / "projected.json").read_text("utf-8"))
    assert described["base"].startswith(f"hf:owner/clip@{COMMIT}+hf:")
    info = load_encoder(str(tmp_path / "aligned")).info
    assert (info.text_width, info.image_width, info.shared_space) == (6, 6, True)
    locator = SemanticLocator(str(tmp_path / "aligned")).fit(clip_posts)
    locator.save_pretrained(tmp_path / "model")
    again = SemanticLocator.from_pretrained(tmp_path / "model")
    assert again.predict(clip_posts) == locator.predict(clip_posts)


def test_a_static_model_needs_no_processor(families, tmp_path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(families["xlmr"] / "tokenizer.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)])
    model.save_pretrained(str(tmp_path), create_model_card=False)
    encoder = load_encoder(f"st:{tmp_path}+compact", device="cpu")
    found = encoder.encode_texts(["ab", "学校"], False).pooled
    np.testing.assert_allclose(found, model.encode(["ab", "学校"]), atol=1e-6)
    assert not encoder.info.has_tokens
