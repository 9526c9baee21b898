"""Tables in, models and tables out: nothing lost, nothing out of order, nothing half done."""

from __future__ import annotations

import csv
import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import confusion_matrix, f1_score, log_loss

import sgmft.jobs
from sgmft.assessment import evaluate_table
from sgmft.errors import SgmftError
from sgmft.jobs import Source, encode_table, predict_table, train_table
from sgmft.locator import SemanticLocator
from sgmft.sample import write_sample
from sgmft.tables import open_writer, read_posts

PLACES = ["Home", "School", "Work"]
ADDED = ["label", "probability", "p_Home", "p_School", "p_Work", "error"]
SUFFIXES = ["csv", "jsonl", "parquet"]


def read(path):
    """Rows as lists of name and value; an empty CSV cell is None, as null is."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def rows(toy_posts):
    """Twelve toy posts as rows of a table; the fourth is broken and the last has no label."""
    folder = toy_posts[0].images[0].parent
    rows = [
        {
            "id": post.id,
            "text": post.text,
            "image": str(post.images[0].relative_to(folder)) if post.images else "",
            "label": post.label,
            "城市": "北京" if i % 2 else "=1+1",
            "likes": str(i * 10),
        }
        for i, post in enumerate(toy_posts[:12])
    ]
    rows[3] |= {"image": "gone.jpg"}
    rows[11] |= {"label": ""}
    return rows


def table_of(rows, path):
    with open_writer(path, list(rows[0])) as writer:
        writer.write(rows)
    return path


@pytest.fixture
def table(rows, toy_posts):
    return table_of(rows, toy_posts[0].images[0].parent / "posts.jsonl")


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


# --- predict


@pytest.mark.parametrize("end", SUFFIXES)
@pytest.mark.parametrize("start", SUFFIXES)
def test_every_row_and_column_comes_back_in_order(rows, toy_posts, toy_model, tmp_path, start, end):
    table = table_of(rows, toy_posts[0].images[0].parent / f"posts.{start}")
    output = tmp_path / "new" / f"out.{end}"
    seen = []
    told = predict_table(Source(str(table)), output, toy_model, on_predicted=seen.append)
    found = read(output)
    kept = ["id", "text", "image", "input_label", "城市", "likes"]
    assert list(found[0]) == [*kept, *ADDED]
    assert len(found) == told.posts == seen[-1] == 12
    for row, before in zip(found, rows, strict=True):
        old = [before["label" if name == "input_label" else name] for name in kept]
        assert [row[name] or "" for name in kept] == old
    assert found[3]["error"] == "there is no file gone.jpg" and found[3]["label"] is None
    assert found[3]["p_Home"] is None
    assert told.errors == {"there is no file …": 1}
    good = [row for row in found if row["error"] is None]
    assert len(good) == 11
    posts = [post for i, post in enumerate(toy_posts[:12]) if i != 3]
    chances = [[float(row[f"p_{place}"]) for place in PLACES] for row in good]
    np.testing.assert_allclose(chances, toy_model.predict_proba(posts), rtol=1e-6)
    assert [row["label"] for row in good] == toy_model.predict(posts)
    assert [float(row["probability"]) for row in good] == [max(chance) for chance in chances]


def test_damaged_rows_come_back_with_a_reason(toy_model, tmp_path):
    table = write_sample(tmp_path / "posts", posts=7, damaged=16)
    told = predict_table(Source(str(table)), tmp_path / "out.jsonl", toy_model)
    found = read(tmp_path / "out.jsonl")
    assert len(found) == told.posts == 23
    lines = table.read_text("utf-8").splitlines()
    assert [row["id"] or row["line"] for row in found] == [
        json.loads(line)["id"] if line.endswith("}") else line for line in lines
    ]
    reasons = {row["damage"]: row["error"] for row in found[7:] if row["damage"]}
    good = {"unknown-label", "nul-in-text", "cmyk-jpeg", "16-bit-png", "animated-gif"} | {
        "exif-rotated",
        "emoji-only",  # light cleaning keeps emoji
    }
    assert {kind for kind, reason in reasons.items() if reason is None} == good
    (broken,) = (row for row in found if row["line"] is not None)
    assert "not JSON" in broken["error"]
    for kind, word in {
        "truncated-jpeg": "cut off",
        "zero-byte-file": "is empty",
        "text-named-jpg": "is not a picture",
        "missing-file": "there is no file",
        "outside-folder": "outside",
        "huge-png": "pixels",
        "duplicate-id": "already that of row 1",
        "nothing": "nothing to go on",
    }.items():
        assert word in reasons[kind]
    for row in found:
        assert (row["label"] is None) == (row["error"] is not None) == (row["p_Work"] is None)
    assert sum(told.errors.values()) == sum(row["error"] is not None for row in found) == 9
    with pytest.raises(SgmftError, match=r"posts\.jsonl, row \d+: .+"):
        predict_table(Source(str(table), strict=True), tmp_path / "strict.csv", toy_model)
    assert not (tmp_path / "strict.csv").exists()


def test_a_table_of_bad_rows_only(toy_model, tmp_path):
    table = table_of([{"text": "", "image": f"{i}.jpg"} for i in range(300)], tmp_path / "t.csv")
    told = predict_table(Source(str(table)), tmp_path / "o.csv", toy_model)
    assert (told.posts, told.errors) == (300, {"there is no file …": 300})
    assert {row["label"] for row in read(tmp_path / "o.csv")} == {None}


def test_an_output_can_be_predicted_again(table, toy_model, tmp_path):
    first, second = table.with_name("first.csv"), table.with_name("second.csv")
    predict_table(Source(str(table)), first, toy_model)
    predict_table(Source(str(first)), second, toy_model)
    found = read(second)
    assert len(set(found[0])) == len(found[0])
    once, original = read(first), read(table)
    for row, one, zero in zip(found, once, original, strict=True):
        assert row["input_input_label"] == one["label"] == row["label"]
        assert row["input_label"] == one["input_label"] == (zero["label"] or None)
        assert row["input_probability"] == one["probability"]


def test_only_the_rows_asked_for(table, toy_model, tmp_path):
    source = Source(str(table), where={"城市": "北京"})
    assert predict_table(source, tmp_path / "out.jsonl", toy_model).posts == 6
    assert [row["likes"] for row in read(tmp_path / "out.jsonl")] == [
        str(likes) for likes in range(10, 120, 20)
    ]


@pytest.mark.parametrize("end", SUFFIXES)
def test_an_output_is_whole_or_not_there(table, toy_model, tmp_path, end):
    def stop(done):
        raise KeyboardInterrupt

    path = tmp_path / f"out.{end}"
    with pytest.raises(KeyboardInterrupt):
        predict_table(Source(str(table)), path, toy_model, on_predicted=stop)
    assert names(tmp_path) == []
    path.write_text("an earlier one")
    with pytest.raises(KeyboardInterrupt):
        predict_table(Source(str(table)), path, toy_model, on_predicted=stop)
    assert names(tmp_path) == [path.name] and path.read_text() == "an earlier one"
    predict_table(Source(str(table)), path, toy_model)
    assert names(tmp_path) == [path.name] and len(read(path)) == 12


def test_a_table_can_be_replaced_by_its_own_output(rows, toy_posts, toy_model):
    table = table_of(rows, toy_posts[0].images[0].parent / "own.csv")
    predict_table(Source(str(table)), table, toy_model)
    assert [row["id"] for row in read(table)] == [row["id"] for row in rows]


def test_memory_holds_a_chunk_whatever_the_table(toy_model, tmp_path, monkeypatch):
    """Rows are written while others are not yet read: at most two chunks lie between."""
    count = 1500
    table = table_of([{"text": f"sofa bed {i}"} for i in range(count)], tmp_path / "big.jsonl")
    taken, written, lags = 0, 0, []

    class Watched(Source):
        def posts(self):
            nonlocal taken
            for post in super().posts():
                taken += 1
                yield post

    def watched(path, columns):
        writer = open_writer(path, columns)
        write = writer.write

        def counted(rows):
            nonlocal written
            lags.append(taken - written)
            written += len(rows)
            write(rows)

        writer.write = counted
        return writer

    monkeypatch.setattr(sgmft.jobs, "open_writer", watched)
    predict_table(Watched(str(table)), tmp_path / "out.csv", toy_model)
    assert taken == written == count
    assert len(lags) >= 5 and max(lags) <= 512
    assert [row["text"] for row in read(tmp_path / "out.csv")] == [
        f"sofa bed {i}" for i in range(count)
    ]


def test_outputs_that_cannot_be(table, toy_model, tmp_path):
    for path, told in ((tmp_path / "out.xlsx", "end its name in"), (tmp_path, "end its name in")):
        with pytest.raises(SgmftError, match=told):
            predict_table(Source(str(table)), path, toy_model)
    with pytest.raises(SgmftError, match=r"has no column 'txt'.* id, text, image, label"):
        source = Source(str(table), columns=sgmft.jobs.Columns(text="txt"))
        predict_table(source, tmp_path / "out.csv", toy_model)
    assert names(tmp_path) == []


# --- evaluate


@pytest.fixture
def judged(rows, toy_posts, toy_model, tmp_path):
    """An evaluation of the table, with two labels made wrong and one never learned."""
    rows = [dict(row) for row in rows]
    rows[0]["label"], rows[1]["label"], rows[2]["label"] = "Work", "Home", "Moon"
    table = table_of(rows, toy_posts[0].images[0].parent / "truth.csv")
    seen = []
    told, evaluation = evaluate_table(
        Source(str(table)), tmp_path / "e", toy_model, by=["城市"], on_predicted=seen.append
    )
    assert seen[-1] == 12
    return rows, told, evaluation, tmp_path / "e"


def test_evaluation_files_hold_the_right_figures(judged):
    rows, _, evaluation, folder = judged
    assert names(folder) == ["confusion.png", "metrics.json", "predictions.parquet", "report.html"]
    found = read(folder / "predictions.parquet")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["true_label"] or "" for row in found] == [row["label"] for row in rows]
    good = [row for row in found if row["error"] is None]
    truth, guess = ([row[name] for row in good] for name in ("true_label", "label"))
    chances = np.array([[row[f"p_{place}"] for place in PLACES] for row in good])
    chances /= chances.sum(1, keepdims=True)  # they were float32
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    right = np.equal(truth, guess)
    assert 0 < right.mean() < 1  # or the comparisons below say little
    assert metrics["posts"] == len(good) == 9
    assert metrics["accuracy"]["value"] == pytest.approx(right.mean())
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert metrics["log_loss"] == pytest.approx(log_loss(truth, chances, labels=PLACES), rel=1e-5)
    assert metrics["confusion"] == confusion_matrix(truth, guess, labels=PLACES).tolist()
    cities = [rows[i]["城市"] for i, row in enumerate(found) if row["error"] is None]
    for city, group in metrics["groups"]["城市"].items():
        of_city = [r for r, other in zip(right, cities, strict=True) if other == city]
        assert group["posts"] == len(of_city)
        assert group["accuracy"]["value"] == pytest.approx(np.mean(of_city))
    assert evaluation.to_dict() == metrics
    with Image.open(folder / "confusion.png") as picture:
        assert picture.format == "PNG"
    page = (folder / "report.html").read_text("utf-8")
    assert "Evaluation on truth.csv" in page and "data fingerprint" in page


def test_rows_that_cannot_be_judged_are_counted(judged):
    _, told, _, folder = judged
    assert told.posts == 12
    assert told.errors == {
        "the model never learned the label …": 1,
        "there is no file …": 1,
        "has no label to compare with": 1,
    }
    errors = [row["error"] for row in read(folder / "predictions.parquet")]
    assert errors[2] == "the model never learned the label 'Moon'"
    assert "no file" in errors[3] and "no label" in errors[11]


def test_by_a_column_that_is_not_there(table, toy_model, tmp_path):
    with pytest.raises(SgmftError, match=r"no column 'city' for --by; it has id, text, .*城市"):
        evaluate_table(Source(str(table)), tmp_path / "e", toy_model, by=["城市", "city"])
    assert names(tmp_path) == []


def test_nothing_to_judge(rows, toy_posts, toy_model, tmp_path):
    moons = [row | {"label": "Moon"} for row in rows[:2]]
    table = table_of(moons, toy_posts[0].images[0].parent / "moons.csv")
    with pytest.raises(SgmftError, match=r"can be judged: 2 x the model never learned"):
        evaluate_table(Source(str(table)), tmp_path / "e", toy_model)
    with pytest.raises(SgmftError, match="has no rows with id=x"):
        evaluate_table(Source(str(table), where={"id": "x"}), tmp_path / "e", toy_model)
    with pytest.raises(SgmftError, match=r"moons\.csv, row 2: the model never learned"):
        evaluate_table(Source(str(table), strict=True), tmp_path / "e", toy_model)
    assert names(tmp_path) == []


# --- train


def test_training_writes_a_model_and_says_what_it_left_out(table, tiny, tmp_path):
    steps, epochs = [], []
    told = train_table(
        Source(str(table)),
        tmp_path / "runs" / "m",
        tiny(val_size=0.0),
        on_encoded=lambda done, total: steps.append((done, total)),
        on_epoch=epochs.append,
    )
    assert told.posts == 12
    assert told.errors == {"there is no file …": 1, "no label": 1}
    assert steps[-1][1] == 12 and len(epochs) == 3
    folder = tmp_path / "runs" / "m"
    assert names(folder) == ["README.md", "config.json", "model.safetensors"]
    posts = read_posts(table)
    assert SemanticLocator.from_pretrained(folder).predict(posts)[3] is None
    again = train_table(Source(str(table)), folder, tiny(val_size=0.0))  # over an earlier model
    assert again == told


def test_a_killed_training_of_the_default_is_begun_again(table, tiny, tmp_path):
    """It has no epochs to continue from; what is left behind is no obstacle."""

    class StopHereError(Exception):
        pass

    def stop(epoch):
        raise StopHereError

    folder = tmp_path / "m"
    with pytest.raises(StopHereError):
        train_table(Source(str(table)), folder, tiny(preset="default"), on_epoch=stop)
    assert not (folder / "config.json").exists()
    told = train_table(Source(str(table)), folder, tiny(preset="default"))
    assert told.posts == 12
    assert names(folder) == ["README.md", "config.json", "model.safetensors"]


def test_strict_training_and_evaluation_stop_at_a_bad_row(table, tiny, toy_model, tmp_path):
    source = Source(str(table), strict=True, where={"likes": "30"})
    with pytest.raises(SgmftError, match=r"posts\.jsonl, row 4: there is no file gone\.jpg"):
        train_table(replace(source, where={}), tmp_path / "m", tiny())
    with pytest.raises(SgmftError, match=r"posts\.jsonl, row 4: there is no file gone\.jpg"):
        evaluate_table(source, tmp_path / "e", toy_model)
    assert names(tmp_path) == []


@pytest.mark.parametrize("files", [["thesis.docx"], ["config.json", "model.safetensors"]])
def test_a_folder_of_other_files_is_left_alone(table, tiny, tmp_path, files):
    for name in files:
        (tmp_path / name).write_text('{"model_type": "chinese_clip"}')
    with pytest.raises(SgmftError, match="holds other files: choose a new folder"):
        train_table(Source(str(table)), tmp_path, tiny())
    assert names(tmp_path) == sorted(files)
    assert {(tmp_path / name).read_text() for name in files} == {'{"model_type": "chinese_clip"}'}
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
        target = "save_weights" if broken == "weights" else "finite"
        patch.setattr(f"sgmft.saving.{target}", full)
        with pytest.raises(SgmftError, match=r"cannot be written to .*No space left"):
            steps(tiny())
    assert not (tmp_path / "m" / "config.json").exists()
    calls = []
    monkeypatch.setattr("sgmft.training._train_epoch", lambda *_: calls.append(1))
    assert steps(tiny()) > 0 and not calls  # every epoch came out of the checkpoint
    assert names(tmp_path / "m") == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.usefixtures("trained")  # whose features are in the store
def test_killed_in_training_and_started_again(start, sample, store, tmp_path):
    """The command as a user gives it, killed with -9, then given again."""
    settings = {"epochs": 15, "patience": 0, "width": 32, "dropout": 0.3}
    flags = [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
    flags += ["--preset", "elements"]

    def started(folder):
        return start("train", sample, "-o", folder, "--features", store, *flags)

    killed = tmp_path / "killed"
    process = started(killed)
    while process.poll() is None and not any(killed.rglob("checkpoint.safetensors")):
        time.sleep(0.005)
    process.kill()
    _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told
    assert not (killed / "config.json").exists()
    (killed / "checkpoint" / ".checkpoint.safetensors.1.tmp").write_bytes(b"half")
    process = started(killed)
    _, told = process.communicate()
    assert process.returncode == 0, told
    whole = tmp_path / "whole"
    locator = SemanticLocator(preset="elements", settings=settings, features=store)
    train_table(Source(str(sample)), whole, locator)
    assert names(killed) == names(whole) == ["README.md", "config.json", "model.safetensors"]
    one, other = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert (killed / "config.json").read_text() == (whole / "config.json").read_text()


# --- encode


def test_encoding_a_table_fills_the_store(table, tiny, tmp_path):
    locator, seen = tiny(features=tmp_path), []
    told, folder = encode_table(Source(str(table)), locator, on_encoded=seen.append)
    assert told.posts == 12 == seen[-1] and told.errors == {"there is no file …": 1}
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
    encode = locator.encoder.encode_texts
    monkeypatch.setattr(
        locator.encoder,
        "encode_texts",
        lambda texts, tokens: [asked.extend(texts), encode(texts, tokens)][1],
    )
    train_table(Source(str(table)), Path(tmp_path) / "m", locator)
    assert asked == []
