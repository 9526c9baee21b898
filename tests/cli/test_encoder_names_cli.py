"""Encoders of other libraries from `sgmft train` to `sgmft serve`."""

import asyncio
import json
import os
from typing import Any

import pytest

from clip_posts import write_table
from sgmft.data.posts import Post
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import Limits


def encoder_options(families: Any, name: str) -> list[str]:
    """`--encoder hf:FOLDER` of "hf:clip", and for two names an option each."""
    towers = [f"{tower[:3]}{families[tower[3:]]}" for tower in name.split("+")]
    if len(towers) == 1:
        return ["--encoder", towers[0]]
    return ["--text-encoder", towers[0], "--image-encoder", towers[1]]


FIVE = ["hf:naflex", "hf:altclip", "st:st-xlmr+hf:dinov2", "st:st-clip", "hf:chinese-clip"]


@pytest.mark.parametrize(
    "name", ["hf:clip", *(pytest.param(x, marks=pytest.mark.slow) for x in FIVE)]
)
def test_commands_work_as_with_every_encoder(families, clip_posts, run, name, tmp_path) -> None:
    table, model = write_table(tmp_path / "posts.jsonl", clip_posts), tmp_path / "model"
    options = encoder_options(families, name)

    def check(*words: Any) -> str:
        done = run(*words, "--allow-outside")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    store = tmp_path / "store"
    assert "Features of 36 posts" in check("encode", table, "-o", store, *options)
    check("train", table, "-o", model, *options, "--features", store)
    assert "accuracy" in check("evaluate", model, table, "-o", tmp_path / "eval")
    check("predict", model, table, "-o", tmp_path / "labels.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").open(encoding="utf-8")]
    assert len(rows) == 36 and {row["label"] for row in rows} <= {"Home", "School", "Work"}
    check("explain", model, table, "--posts", 2, "-o", tmp_path / "page.html")
    new = [Post(f"{post.text}你", post.images) for post in clip_posts[:9]]
    others = write_table(tmp_path / "new.jsonl", new)
    check("suggest", others, "-o", tmp_path / "chosen.csv", "-n", 3, "--model", model)
    done = run("export", model, "-o", tmp_path / "onnx")
    assert done.returncode == 2 and "cannot be exported" in done.stderr


def test_halves_and_a_whole_cannot_both_be_named(families, run, tmp_path) -> None:
    done = run("train", "a.jsonl", "-o", tmp_path, "--encoder", "cnn", "--text-encoder", "cnn")
    assert done.returncode == 2 and "--text-encoder" in done.stderr


def test_trusting_python_files_reaches_the_encoder(families, run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SGMFT_TRUST_REMOTE_CODE", "")  # and is as before afterwards
    seen: list[bool] = []
    monkeypatch.setattr(
        "sgmft.features.encoders.hub.Checkpoint.digest",
        lambda checkpoint: seen.append(checkpoint.trusted) or "",
    )
    name = encoder_options(families, "hf:clip")
    table = write_table(tmp_path / "posts.jsonl", [Post("ab")])
    for words in ([], ["--trust-remote-code"]):
        run(*words, "encode", table, "-o", tmp_path / "store", *name)
    assert seen == [False, True] and os.environ["SGMFT_TRUST_REMOTE_CODE"]


@pytest.mark.slow
def test_a_server_answers(families, clip_posts, run, tmp_path) -> None:
    table = write_table(tmp_path / "posts.jsonl", clip_posts)
    run(
        "train",
        table,
        "-o",
        tmp_path / "m",
        *encoder_options(families, "hf:naflex"),
        "--allow-outside",
    )

    async def ask() -> Any:
        engine = InferenceEngine(str(tmp_path / "m"), Limits())
        engine.start()
        engine.run()
        try:
            return await engine.predict(clip_posts[:5]), await engine.explain(clip_posts[1])
        finally:
            await engine.close()

    labels, explanation = asyncio.run(ask())
    assert {x.label for x in labels} <= {"Home", "School", "Work"} and explanation is not None
