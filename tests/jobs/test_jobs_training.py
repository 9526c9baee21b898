"""Tables in, models and features out: nothing half done, nothing done twice."""

import signal
import time
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from sgmft.data.source import Source
from sgmft.data.tables import read_posts
from sgmft.errors import SgmftError
from sgmft.jobs.encode import encode_table
from sgmft.jobs.evaluate import evaluate_table
from sgmft.jobs.train import train_table
from sgmft.locator.locator import SemanticLocator
from small_tables import file_names
from small_tables import rows as rows
from small_tables import table as table

WITH_HELD_OUT = ["README.md", "config.json", "held_out.safetensors", "model.safetensors"]

# --- train


def test_training_writes_a_model_and_says_what_it_left_out(table, tiny, tmp_path):
    steps, epochs, folder = [], [], tmp_path / "runs" / "m"
    train = partial(train_table, Source(str(table)), folder)
    summary = train(
        tiny(val_size=0.0), on_encoded=lambda *step: steps.append(step), on_epoch=epochs.append
    )
    assert summary.posts == 12
    assert summary.errors == {"there is no file …": 1, "no label": 1}
    assert steps[-1][1] == 12 and len(epochs) == 3
    assert file_names(folder) == ["README.md", "config.json", "model.safetensors"]
    assert SemanticLocator.from_pretrained(folder).predict(read_posts(table))[3] is None
    assert train(tiny(val_size=0.0)) == summary  # over an earlier model


def test_a_killed_training_of_the_default_is_begun_again(table, tiny, tmp_path):
    """It has no epochs to continue from; what is left behind is no obstacle."""

    class StopHereError(Exception):
        pass

    def stop(epoch):
        raise StopHereError

    train = partial(train_table, Source(str(table)), tmp_path / "m")
    with pytest.raises(StopHereError):
        train(tiny(preset="default"), on_epoch=stop)
    assert not (tmp_path / "m" / "config.json").exists()
    assert train(tiny(preset="default")).posts == 12
    assert file_names(tmp_path / "m") == WITH_HELD_OUT


def test_strict_training_and_evaluation_stop_at_a_bad_row(table, tiny, small_model, tmp_path):
    for job, locator, where in (
        (train_table, tiny(), {}),
        (evaluate_table, small_model, {"likes": "30"}),
    ):
        source = Source(str(table), where=where, strict=True)
        with pytest.raises(SgmftError, match=r"posts\.jsonl, row 4: there is no file gone\.jpg"):
            job(source, tmp_path / "x", locator)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("files", [["thesis.docx"], ["config.json", "model.safetensors"]])
def test_a_folder_of_other_files_is_left_alone(table, tiny, tmp_path, files):
    content = '{"model_type": "chinese_clip"}'
    for name in files:
        (tmp_path / name).write_text(content)
    with pytest.raises(SgmftError, match="holds other files: choose a new folder"):
        train_table(Source(str(table)), tmp_path, tiny())
    assert file_names(tmp_path) == sorted(files)
    assert {(tmp_path / name).read_text() for name in files} == {content}
    with pytest.raises(SgmftError, match="is a file: choose a folder"):
        train_table(Source(str(table)), tmp_path / files[0], tiny())


@pytest.mark.parametrize("broken", ["weights", "settings"])
def test_training_is_not_lost_when_the_model_cannot_be_written(
    table, tiny, tmp_path, monkeypatch, broken
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def steps(locator):
        trained = []
        train_table(Source(str(table)), tmp_path / "m", locator, on_epoch=trained.append)
        return len(trained)

    with monkeypatch.context() as patch:
        target = "save_weights" if broken == "weights" else "nan_to_none"
        patch.setattr(f"sgmft.locator.locator.{target}", full)
        with pytest.raises(SgmftError, match=r"The model in .* cannot be written: No space"):
            steps(tiny())
    assert not (tmp_path / "m" / "config.json").exists()
    calls = []
    monkeypatch.setattr("sgmft.training.trainer._train_epoch", lambda *_: calls.append(1))
    assert steps(tiny()) > 0 and not calls  # every epoch came out of the checkpoint
    assert file_names(tmp_path / "m") == WITH_HELD_OUT


@pytest.mark.slow
@pytest.mark.usefixtures("trained")  # whose features are in the store
def test_killed_in_training_and_started_again(start, sample, store, tmp_path):
    """The command as a user gives it, killed with -9, then given again."""
    settings = {"epochs": 15, "patience": 0, "width": 32, "dropout": 0.3}
    flags = [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
    flags += ["--preset", "elements"]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = ["train", sample, "-o", killed, "--features", store, *flags]
    process = start(*command)
    while process.poll() is None and not any(killed.rglob("checkpoint.safetensors")):
        time.sleep(0.005)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert not (killed / "config.json").exists()
    (killed / "checkpoint" / ".checkpoint.safetensors.1.tmp").write_bytes(b"half")
    process = start(*command)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    locator = SemanticLocator(preset="elements", settings=settings, features=store)
    train_table(Source(str(sample)), whole, locator)
    assert file_names(killed) == file_names(whole) == WITH_HELD_OUT
    one, other = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert (killed / "config.json").read_text() == (whole / "config.json").read_text()


# --- encode


def test_encoding_a_table_fills_the_store(table, tiny, tmp_path):
    locator, seen = tiny(features=tmp_path), []
    summary, folder = encode_table(Source(str(table)), locator, on_encoded=seen.append)
    assert summary.posts == 12 == seen[-1] and summary.errors == {"there is no file …": 1}
    assert folder.parent == tmp_path
    keys = pq.read_table(folder, columns=["key"])["key"].to_pylist()
    assert len(set(keys)) == len(keys) == 11
    with pytest.raises(SgmftError, match="row 4: there is no file"):
        encode_table(replace(Source(str(table)), strict=True), locator)
    with pytest.raises(SgmftError, match="needs a folder"):
        encode_table(Source(str(table)), tiny())


def test_what_was_encoded_is_not_encoded_again(table, tiny, tmp_path, monkeypatch):
    encode_table(Source(str(table)), tiny(features=tmp_path), tokens=False)
    locator = tiny(features=tmp_path, val_size=0.0)
    asked = []

    def encode(texts, tokens):
        asked.extend(texts)

    monkeypatch.setattr(locator.encoder, "encode_texts", encode)
    train_table(Source(str(table)), tmp_path / "m", locator)
    assert asked == []
