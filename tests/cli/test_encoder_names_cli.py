"""Encoders of other libraries from `sgmft train` to `sgmft serve`."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from clip_posts import write_table
from sgmft.data.posts import Post


def encoder_options(families: Any, name: str) -> list[str]:
    """`--encoder hf:FOLDER` of "hf:clip", and for two names an option each."""
    towers = [f"{tower[:3]}{families[tower[3:]]}" for tower in name.split("+")]
    if len(towers) == 1:
        return ["--encoder", towers[0]]
    return ["--text-encoder", towers[0], "--image-encoder", towers[1]]


FIVE = ["hf:clip", "hf:naflex", "hf:altclip", "st:st-clip", "st:st-xlmr+hf:dinov2"]
SQUARES = ("hf:clip", "hf:altclip")
LABELS = {"Home", "School", "Work"}


@pytest.fixture
def command(run) -> Any:
    """Runs a command that has to succeed, and returns what it printed."""

    def command(*words: Any) -> str:
        done = run(*words, "--allow-outside")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return command


def predicted(command: Any, model: Path, table: Path, *options: Any) -> list[dict[str, Any]]:
    """Rows of the table that `sgmft predict` writes."""
    path = model.with_suffix(".jsonl")
    command("predict", model, table, "-o", path, *options)
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    assert len(rows) == 36 and {row["label"] for row in rows} <= LABELS
    return rows


def served(start: Any, model: Path, text: str) -> str:
    """The label of a text by `sgmft serve`."""
    with start("serve", model, "--port", 0, "--no-page") as server:
        try:
            address = next(line for line in server.stderr if " at http://" in line).split()[-1]
            given = {"posts": [{"text": text}]}
            found = httpx.post(f"{address}/v1/predict", json=given, timeout=120).json()
        finally:
            server.kill()
    return str(found["predictions"][0]["label"])


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
def test_commands_work_as_with_every_encoder(
    families, clip_posts, run, command, start, name, tmp_path
) -> None:
    table, model = write_table(tmp_path / "posts.jsonl", clip_posts), tmp_path / "model"
    options, store = encoder_options(families, name), tmp_path / "store"
    assert "Features of 36 posts" in command("encode", table, "-o", store, *options)
    command("train", table, "-o", model, *options, "--features", store)
    assert "accuracy" in command("evaluate", model, table, "-o", tmp_path / "eval")
    rows = predicted(command, model, table)
    command("explain", model, table, "--posts", 2, "-o", tmp_path / "page.html")
    new = [Post(f"{post.text}你", post.images) for post in clip_posts[:9]]
    others = write_table(tmp_path / "new.jsonl", new)
    command("suggest", others, "-o", tmp_path / "chosen.csv", "-n", 3, "--model", model)
    assert served(start, model, "在家里看书") in LABELS
    exported = tmp_path / "onnx"
    if name in SQUARES:
        command("export", model, "-o", exported)
        for one, other in zip(rows, predicted(command, exported, table), strict=True):
            assert one["label"] == other["label"]
            assert one["p_Home"] == pytest.approx(other["p_Home"], abs=1e-4)
        assert served(start, exported, "在家里看书") in LABELS
    else:
        done = run("export", model, "-o", exported)
        assert done.returncode == 2 and "cannot be exported: use the model as it" in done.stderr


def test_commands_work_on_features_without_pictures(
    families, clip_posts, run, command, tmp_path
) -> None:
    table, store = write_table(tmp_path / "posts.jsonl", clip_posts), tmp_path / "store"
    command("encode", table, "-o", store, *encoder_options(families, "hf:clip"))
    nowhere = [Post(id=p.id, label=p.label, images="nowhere.png") for p in clip_posts]
    bare, model = write_table(tmp_path / "bare.jsonl", nowhere), tmp_path / "model"
    vectors = "--features-table", store
    command("train", bare, "-o", model, *vectors)
    assert "accuracy" in command("evaluate", model, bare, "-o", tmp_path / "eval", *vectors)
    predicted(command, model, bare, *vectors)
    for words in (("explain", bare, "-o", tmp_path / "x.html"), ("serve",), ("export", "-o", "x")):
        done = run(words[0], model, *words[1:])
        assert done.returncode == 2 and "vectors of texts (12) and pictures (12)" in done.stderr


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
