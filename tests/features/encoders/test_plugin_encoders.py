"""A model remembers the plugin of its encoder, which works wherever the model does."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from plugins import COUNTS
from sgmft import Post, SemanticLocator
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features.encode import encode_all
from sgmft.features.encoders.base import Encoded
from sgmft.features.encoders.registry import ENCODERS, PLUGINS
from sgmft.features.store import FeatureStore
from sgmft.jobs.predict import ModelFolder
from sgmft.locator.onnx.export import export_model
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import Limits
from small_posts import saved_config

POSTS = [
    Post(f"{text} {i}", label=label)
    for i in range(6)
    for label, text in (("A", "sofa"), ("B", "desk"))
]


@pytest.fixture
def table(tmp_path):
    lines = [f"{post.text},{post.label}\n" for post in POSTS]
    (tmp_path / "posts.csv").write_text("text,label\n" + "".join(lines))
    return tmp_path / "posts.csv"


def test_a_model_asks_for_the_plugin_of_its_encoder(run, table, tmp_path):
    (tmp_path / "counts.py").write_text(COUNTS)
    plugin = "--plugin", tmp_path / "counts.py"
    out = "-o", tmp_path / "out.csv", "--features", "none"
    model = tmp_path / "model"
    done = run(*plugin, "train", table, "-o", model, "--encoder", "counts", "--features", "none")
    assert done.returncode == 0, done.stderr
    recorded = saved_config(model)["encoder"]["plugin"]
    assert (recorded["file"], recorded["encoder"]) == ("counts.py", "counts")
    done = run("predict", model, table, *out)
    assert done.returncode == 2
    told = "The encoder counts comes from the plugin counts.py: give --plugin counts.py."
    assert told in done.stderr
    done = run(*plugin, "predict", model, table, *out)
    assert done.returncode == 0 and "has changed" not in done.stderr, done.stderr
    (tmp_path / "counts.py").write_text(COUNTS + "# only a comment\n")
    done = run(*plugin, "predict", model, table, *out)
    assert done.returncode == 0
    assert "The plugin counts.py has changed since the model was trained" in done.stderr


def test_encoders_of_programs_and_of_the_package_have_no_plugin(counts, tmp_path, monkeypatch):
    assert set(PLUGINS) == {"counts"} and PLUGINS["counts"]["file"] == "counts.py"
    monkeypatch.setitem(ENCODERS, "mine", ENCODERS["counts"])
    SemanticLocator("mine").fit(POSTS).save_pretrained(tmp_path)
    assert "plugin" not in saved_config(tmp_path)["encoder"]


def test_what_cannot_be_done_with_it_is_told(counts, tmp_path, monkeypatch):
    locator = SemanticLocator("counts").fit(POSTS)
    with pytest.raises(SgmftError, match="The encoder counts cannot be exported"):
        export_model(locator, tmp_path / "onnx")
    locator.save_pretrained(tmp_path / "model")
    loaded = SemanticLocator.from_pretrained(tmp_path / "model")
    assert loaded.predict(POSTS) == locator.predict(POSTS)
    monkeypatch.setitem(PLUGINS, "counts", {"file": "counts.py", "digest": "another"})
    with pytest.warns(SgmftWarning, match="has changed"):
        SemanticLocator.from_pretrained(tmp_path / "model").predict(POSTS)
    monkeypatch.delitem(ENCODERS, "counts")
    with pytest.raises(SgmftError, match=r"give --plugin counts\.py"):
        SemanticLocator.from_pretrained(tmp_path / "model").predict(POSTS)


def test_a_post_that_the_encoder_fails_on_is_refused_and_those_beside_it_are_not(counts, tmp_path):
    SemanticLocator("counts").fit(POSTS).save_pretrained(tmp_path / "model")
    made = "        pooled = np.array(rows, np.float32).reshape(-1, 64)\n"
    failing = "        pooled[['unlucky' in text for text in texts]] = np.nan\n"
    counts.write_text(COUNTS.replace(made, made + failing))

    async def answers():
        engine = InferenceEngine(ModelFolder(str(tmp_path / "model")), Limits(seconds=60))
        engine.start()
        engine.run()
        texts = "sofa 1", "unlucky", "desk 1"
        try:  # all wait, and are given to the worker at once
            asked = [engine.predict([Post(text)]) for text in texts]
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await engine.close()

    (first,), problem, (last,) = asyncio.run(answers())
    assert (first.label, last.label) == ("A", "B")
    assert problem.kind == "unusable-post" and "not all finite" in problem.detail


@pytest.mark.parametrize("change", [(8, np.nan), (64, np.nan), (64, np.inf)])
def test_features_that_cannot_be_are_kept_nowhere(counts, tmp_path, change):
    encoder = ENCODERS["counts"]()
    encoder.encode_texts = lambda texts, tokens: Encoded(
        np.full((len(texts), change[0]), change[1]), None
    )
    store = FeatureStore(tmp_path, encoder.info, tokens=False)
    with pytest.raises(SgmftError, match=r"counts gave .* `sgmft encoders check counts`"):
        encode_all(POSTS, encoder, store=store)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_server_s_worker_loads_the_plugin(counts, tmp_path):
    locator = SemanticLocator("counts").fit(POSTS)
    locator.save_pretrained(tmp_path / "model")

    async def answer():
        engine = InferenceEngine(ModelFolder(str(tmp_path / "model")), Limits())
        engine.start()
        engine.run()
        try:
            return await engine.predict(POSTS)
        finally:
            await engine.close()

    assert [x.label for x in asyncio.run(answer())] == locator.predict(POSTS)
