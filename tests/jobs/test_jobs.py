"""Tables in; predictions, figures, models and features out: nothing lost, nothing half done."""

import json
import re
import signal
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import confusion_matrix, f1_score, log_loss
from synthetic.sample import write_sample

import sgmft.jobs.predict
from sgmft.data.source import Source
from sgmft.data.tables import Columns, open_writer, read_posts
from sgmft.errors import NoUsableRowError, SgmftError, SgmftWarning
from sgmft.features.encoders.registry import ENCODERS
from sgmft.jobs.encode import encode_table
from sgmft.jobs.evaluate import evaluate_table
from sgmft.jobs.predict import predict_table
from sgmft.jobs.train import train_best
from sgmft.locator.locator import SemanticLocator
from small_posts import LABELS
from small_tables import file_names, read_rows, train_table, write_rows
from tiny_encoder import TinyEncoder

ADDED = ["label", "probability", "error", "warning", "p_Home", "p_School", "p_Work"]
SUFFIXES = ["csv", "jsonl", "parquet"]
MODEL = ["README.md", "config.json", "held_out.safetensors", "model.safetensors"]


@pytest.mark.parametrize("end", SUFFIXES)
@pytest.mark.parametrize("start", SUFFIXES)
def test_every_row_and_column_comes_back_in_order(
    rows, small_posts, small_model, tmp_path, start, end
):
    table = write_rows(rows, small_posts[0].images[0].parent / f"posts.{start}")
    output = tmp_path / "new" / f"out.{end}"
    seen = []
    summary = predict_table(Source(str(table)), output, small_model, on_predicted=seen.append)
    found = read_rows(output)
    kept = ["id", "text", "image", "input_label", "城市", "likes"]
    assert list(found[0]) == [*kept, *ADDED]
    assert len(found) == summary.posts == seen[-1] == 12
    for row, before in zip(found, rows, strict=True):
        old = [before["label" if name == "input_label" else name] for name in kept]
        assert [row[name] or "" for name in kept] == old
    assert found[3]["warning"] == "there is no file gone.jpg" and found[3]["label"] is not None
    assert summary.errors == {} and summary.warnings == {"there is no file …": 1}
    place = f"{table.name}, row {4 if start == 'jsonl' else 5 if start == 'csv' else 4}"
    assert summary.examples == {"there is no file …": f"{place}: there is no file gone.jpg"}
    good = [row for row in found if row["error"] is None]
    assert len(good) == 12 and sum(row["warning"] is not None for row in good) == 1
    posts = [
        replace(post, images=()) if i == 3 else post for i, post in enumerate(small_posts[:12])
    ]
    probs = [[float(row[f"p_{place}"]) for place in LABELS] for row in good]
    exact = {"rtol": 0, "atol": 5.1e-5} if end == "csv" else {"rtol": 1e-6}  # it has four digits
    np.testing.assert_allclose(probs, small_model.predict_proba(posts), **exact)
    if end == "csv":
        assert all(re.fullmatch(r"[01]\.\d{4}", row["p_Home"]) for row in good)
    assert [row["label"] for row in good] == small_model.predict(posts)
    assert [float(row["probability"]) for row in good] == [max(chance) for chance in probs]


@pytest.mark.parametrize("folder", ["", ".", "/"])
def test_a_lost_picture_is_named_as_its_row_has_it(small_model, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("text,image\nsofa,photos/lost.jpg\n", "utf-8")
    table = tmp_path / "new.csv" if folder == "/" else Path(folder) / "new.csv"
    (found,) = small_model.predictions(read_posts(table))
    assert [*map(str, found.post.warnings)] == ["there is no file photos/lost.jpg"]


def test_damaged_rows_come_back_with_a_reason(small_model, tmp_path):
    table = write_sample(tmp_path / "posts", posts=7, damaged=16)
    summary = predict_table(Source(str(table)), tmp_path / "out.jsonl", small_model)
    found = read_rows(tmp_path / "out.jsonl")
    assert len(found) == summary.posts == 23
    lines = table.read_text("utf-8").splitlines()
    assert [row["id"] or row["line"] for row in found] == [
        json.loads(line)["id"] if line.endswith("}") else line for line in lines
    ]
    damaged = [row for row in found[7:] if row["damage"]]
    reasons = {row["damage"]: row["error"] or row["warning"] for row in damaged}
    assert [row["damage"] for row in damaged if row["error"]] == ["nothing", "emoji-only"]
    good = {"unknown-label", "nul-in-text", "cmyk-jpeg", "16-bit-png", "animated-gif"}
    good |= {"exif-rotated"}
    assert {kind for kind, reason in reasons.items() if reason is None} == good
    (broken,) = (row for row in found if row["line"] is not None)
    assert "not JSON" in broken["error"]
    for kind, word in {
        "truncated-jpeg": "cut off",
        "zero-byte-file": "is empty",
        "text-named-jpg": "holds HTML",
        "missing-file": "there is no file",
        "outside-folder": "outside",
        "huge-png": "pixels",
        "duplicate-id": "already that of row 1",
        "nothing": "nothing to go on",
    }.items():
        assert word in reasons[kind]
    for row in found:
        assert (row["label"] is None) == (row["error"] is not None) == (row["p_Work"] is None)
    assert sum(summary.errors.values()) == sum(row["error"] is not None for row in found) == 3
    assert sum(summary.warnings.values()) == sum(row["warning"] is not None for row in found) == 7
    with pytest.raises(SgmftError, match=r"posts\.jsonl, row \d+: .+"):
        predict_table(Source(str(table), strict=True), tmp_path / "strict.csv", small_model)
    assert not (tmp_path / "strict.csv").exists()


def test_an_output_can_be_predicted_again(table, small_model, tmp_path):
    first, second = table.with_name("first.csv"), table.with_name("second.csv")
    predict_table(Source(str(table)), first, small_model)
    predict_table(Source(str(first)), second, small_model)
    found = read_rows(second)
    assert len(set(found[0])) == len(found[0])
    once, original = read_rows(first), read_rows(table)
    for row, one, zero in zip(found, once, original, strict=True):
        assert row["input_input_label"] == one["label"] == row["label"]
        assert row["input_label"] == one["input_label"] == (zero["label"] or None)
        assert row["input_probability"] == one["probability"]


@pytest.mark.parametrize("end", SUFFIXES)
def test_an_output_is_whole_or_not_there(table, small_model, tmp_path, end):
    def stop(done):
        raise KeyboardInterrupt

    path = tmp_path / f"out.{end}"
    for earlier in (None, "an earlier one"):
        if earlier is not None:
            path.write_text(earlier)
        with pytest.raises(KeyboardInterrupt):
            predict_table(Source(str(table)), path, small_model, on_predicted=stop)
        assert file_names(tmp_path) == ([path.name] if earlier else [])
    assert path.read_text() == earlier
    predict_table(Source(str(table)), path, small_model)
    assert file_names(tmp_path) == [path.name] and len(read_rows(path)) == 12


@pytest.mark.parametrize("whole", [True, False], ids=["a file", "a folder of parts"])
def test_a_table_is_not_replaced_by_its_own_output(rows, small_model, tmp_path, whole):
    table = write_rows(rows, tmp_path / "parts" / "own.csv")
    before = table.read_bytes()
    (tmp_path / "link.csv").symlink_to(table)
    for output in (table, tmp_path / "link.csv"):
        with pytest.raises(SgmftError, match=r"csv is the table that is read: give .* a new name"):
            predict_table(Source(str(table if whole else table.parent)), output, small_model)
    assert table.read_bytes() == before


def test_memory_holds_a_chunk_whatever_the_table(small_model, tmp_path, monkeypatch):
    """Rows are written while others are not yet read: at most two chunks lie between."""
    count = 1500
    table = write_rows([{"text": f"sofa bed {i}"} for i in range(count)], tmp_path / "big.jsonl")
    taken, written, lags = 0, 0, []

    class Watched(Source):
        def iter_posts(self):
            nonlocal taken
            for post in super().iter_posts():
                taken += 1
                yield post

    @contextmanager
    def watched(path, columns):
        def counted(rows):
            nonlocal written
            lags.append(taken - written)
            written += len(rows)
            write(rows)

        with open_writer(path, columns) as writer:
            write, writer.write = writer.write, counted
            yield writer

    monkeypatch.setattr(sgmft.jobs.predict, "open_writer", watched)
    predict_table(Watched(str(table)), tmp_path / "out.csv", small_model)
    assert taken == written == count
    assert len(lags) >= 5 and max(lags) <= 512
    texts = [row["text"] for row in read_rows(tmp_path / "out.csv")]
    assert texts == [f"sofa bed {i}" for i in range(count)]


def test_outputs_that_cannot_be(table, small_model, tmp_path):
    for path in (tmp_path / "out.docx", tmp_path):
        with pytest.raises(SgmftError, match="end its name in"):
            predict_table(Source(str(table)), path, small_model)
    with pytest.raises(SgmftError, match=r"has no column 'txt'.* id, text, image, label"):
        source = Source(str(table), columns=Columns(text="txt"))
        predict_table(source, tmp_path / "out.csv", small_model)
    assert file_names(tmp_path) == []


# --- evaluate


def test_evaluation_files_hold_the_right_figures(rows, small_posts, small_model, tmp_path):
    """Two labels are made wrong, and one is none that the model learned."""
    rows, folder, seen = [dict(row) for row in rows], tmp_path / "e", []
    rows[0]["label"], rows[1]["label"], rows[2]["label"] = "Work", "Home", "Moon"
    source = Source(str(write_rows(rows, small_posts[0].images[0].parent / "truth.csv")))
    summary, evaluation, _ = evaluate_table(
        source, folder, small_model, by=["城市"], on_predicted=seen.append
    )
    assert seen[-1] == 12
    names = ["confusion.png", "metrics.json", "predictions.parquet", "report.html"]
    assert file_names(folder) == names
    found = read_rows(folder / "predictions.parquet")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["true_label"] or "" for row in found] == [row["label"] for row in rows]
    errors = [row["error"] for row in found]
    assert errors[2] == "the model never learned the label 'Moon'"
    assert "no label" in errors[11]
    assert summary.posts == 12 and summary.errors == {
        "the model never learned the label …": 1,
        "has no label to compare with": 1,
    }
    assert summary.warnings == {"there is no file …": 1}
    good = [row for row in found if row["error"] is None]
    truth, guess = ([row[name] for row in good] for name in ("true_label", "label"))
    probs = np.array([[row[f"p_{place}"] for place in LABELS] for row in good])
    probs /= probs.sum(1, keepdims=True)  # they were float32
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    right = np.equal(truth, guess)
    assert 0 < right.mean() < 1  # or the comparisons below say little
    assert metrics["posts"] == len(good) == 10
    assert metrics["accuracy"]["value"] == pytest.approx(right.mean())
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert metrics["log_loss"] == pytest.approx(log_loss(truth, probs, labels=LABELS), rel=1e-5)
    assert metrics["confusion"] == confusion_matrix(truth, guess, labels=LABELS).tolist()
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


def test_posts_without_a_value_are_one_group(small_model, small_posts, tmp_path):
    values = [None, "", "A"] * len(small_posts)
    rows = [
        {"text": f"{post.text} again", "label": post.label, "city": value}
        for post, value in zip(small_posts, values, strict=False)
    ]
    source = Source(str(write_rows(rows, tmp_path / "new.jsonl")))
    _, evaluation, _ = evaluate_table(source, tmp_path / "e", small_model, by=["city"])
    assert evaluation.to_dict()["groups"]["city"].keys() == {"", "A"}


def test_labels_are_missed_before_anything_is_encoded(tiny, small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(small_model, "_predict_batches", None)
    monkeypatch.setattr("sgmft.locator.locator.encode_all", None)
    table = write_rows([{"text": "sofa", "place": "Home"}] * 3, tmp_path / "p.csv")
    for job, locator in ((train_table, tiny()), (evaluate_table, small_model)):
        with pytest.raises(SgmftError, match=r"p\.csv has no label in any row: .*text, place\."):
            job(Source(str(table)), tmp_path / "x", locator)
    one = Source(str(table), columns=Columns(label="place"))
    with pytest.raises(SgmftError, match=r"p\.csv has only the label 'Home'"):
        train_table(one, tmp_path / "x", tiny())


def test_posts_that_a_model_was_trained_with_are_told(small_model, small_posts, tmp_path):
    small_model.save_pretrained(tmp_path / "model")
    locator = SemanticLocator.from_pretrained(tmp_path / "model")
    rows = [{"text": post.text, "label": post.label} for post in small_posts]
    new = [{"text": f"{row['text']} again", "label": row["label"]} for row in rows]
    known = [row for row, post in zip(rows, small_posts, strict=True) if not post.images]
    assert known
    table = write_rows([*new, *known], tmp_path / "all.csv")
    told = f"was trained with {len(known)} of these {len(new) + len(known)} posts"
    with pytest.warns(SgmftWarning, match=told):
        evaluate_table(Source(str(table)), tmp_path / "e", locator)
    assert told in (tmp_path / "e" / "report.html").read_text("utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_table(Source(str(write_rows(new, table))), tmp_path / "e", locator)


def test_what_cannot_be_evaluated(rows, small_posts, small_model, table, tmp_path):
    with pytest.raises(SgmftError, match=r"no column 'city': use id, text, .*城市"):
        evaluate_table(Source(str(table)), tmp_path / "e", small_model, by=["城市", "city"])
    moons = [row | {"label": "Moon"} for row in rows[:2]]
    table = write_rows(moons, small_posts[0].images[0].parent / "moons.csv")
    with pytest.raises(NoUsableRowError, match=r"can be evaluated: 2 x the model never learned"):
        evaluate_table(Source(str(table)), tmp_path / "e", small_model)
    with pytest.raises(SgmftError, match=r"moons\.csv, row 2: the model never learned"):
        evaluate_table(Source(str(table), strict=True), tmp_path / "e", small_model)
    assert file_names(tmp_path) == []


# --- train


class Blind(TinyEncoder):
    """An encoder to which all texts and pictures are the same."""

    def encode_texts(self, texts, tokens):
        found = super().encode_texts(texts, tokens)
        return found._replace(pooled=np.ones_like(found.pooled))

    def encode_images(self, images, tokens):
        found = super().encode_images(images, tokens)
        return found._replace(pooled=np.ones_like(found.pooled))


def test_the_encoder_with_the_least_validation_loss_is_kept(table, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "blind", Blind)
    train, source = partial(train_best, Source(str(table))), tmp_path / "m"
    options = {"settings": {"lexical": False}, "features": None}
    locators = [SemanticLocator(name, **options) for name in ("blind", "tiny")]
    summary, best = train(source, locators)
    assert best is locators[1] and summary.posts == 12
    saved = SemanticLocator.from_pretrained(source)
    assert saved.encoder_name == "tiny"
    losses = [saved.training.metrics[f"validation loss, {name}"] for name in ("blind", "tiny")]
    assert losses[1] == saved.training.metrics["validation loss"] < losses[0]
    assert "validation loss, blind" in (source / "README.md").read_text("utf-8")
    with pytest.raises(SgmftError, match="must be held out: use --val-size"):
        train(source, [tiny(val_size=0.0), tiny(val_size=0.0)])
    locators[1:] = [SemanticLocator("hf:./nowhere")]
    monkeypatch.setattr(locators[0], "fit", None)  # not begun where another cannot be loaded
    with pytest.raises(
        SgmftError, match=r"no encoder hf:\./nowhere: .*from_pretrained\(model, enc"
    ):
        train(source, locators)


def test_training_writes_a_model_and_says_what_it_left_out(table, tiny, tmp_path):
    steps, epochs, folder = [], [], tmp_path / "runs" / "m"
    train = partial(train_table, Source(str(table)), folder)
    with pytest.warns(
        SgmftWarning, match=r"1 posts have a warning: 1 x there is no file …"
    ) as said:
        summary = train(
            tiny(val_size=0.0), on_encoded=lambda *step: steps.append(step), on_epoch=epochs.append
        )
    assert len([x for x in said if "have a warning" in str(x.message)]) == 1
    assert summary.posts == 12 and summary.errors == {"no label": 1}
    assert summary.examples == {"no label": next(x.place for x in read_posts(table) if not x.label)}
    assert steps[-1][1] == 12 and len(epochs) == 3
    assert file_names(folder) == MODEL
    assert SemanticLocator.from_pretrained(folder).predict(read_posts(table))[3] in LABELS
    assert train(tiny(val_size=0.0)) == summary  # over an earlier model


def test_fitting_the_default_reports_each_expert_from_its_start_to_its_end(table, tiny, tmp_path):
    steps, encoded = [], []
    train_table(
        Source(str(table)),
        tmp_path / "m",
        tiny(preset="default"),
        on_encoded=lambda *step: encoded.append((*step, len(steps))),
        on_step=steps.append,
    )
    assert encoded and all(before == 0 for *_, before in encoded)  # encoding comes first
    experts = [(part, [*own]) for part, own in groupby(steps, key=attrgetter("part"))]
    assert [part for part, _ in experts] == ["text", "n-grams", "image", "both"]
    for _, own in experts:
        done = [step.done for step in own]
        assert done == [*range(len(done) - 1), own[-1].total]  # may end early
        assert len({step.total for step in own}) == 1


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
    assert file_names(tmp_path / "m") == MODEL


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
        target = (
            "models.network.save_model" if broken == "weights" else "locator.locator.nan_to_none"
        )
        patch.setattr(f"sgmft.{target}", full)
        with pytest.raises(SgmftError, match=r"The model in .* cannot be written: No space"):
            steps(tiny())
    assert not (tmp_path / "m" / "config.json").exists()
    calls = []
    monkeypatch.setattr("sgmft.training.trainer.schedule", lambda *_: calls.append(1))
    assert steps(tiny()) > 0 and not calls  # every epoch came out of the checkpoint
    assert file_names(tmp_path / "m") == MODEL


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
    assert file_names(killed) == file_names(whole) == MODEL
    one, other = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert (killed / "config.json").read_text() == (whole / "config.json").read_text()


# --- encode


def test_encoding_a_table_fills_the_store(table, tiny, tmp_path):
    locator, seen = tiny(features=tmp_path), []
    summary, folder = encode_table(Source(str(table)), locator, on_encoded=seen.append)
    assert summary.posts == 12 == seen[-1] and summary.warnings == {"there is no file …": 1}
    assert folder.parent == tmp_path
    keys = pq.read_table(folder, columns=["key"])["key"].to_pylist()
    assert len(set(keys)) == len(keys) == 12
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
