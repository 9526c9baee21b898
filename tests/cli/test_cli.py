"""The commands, and the one line that answers a user's mistake."""

import json
import shlex
import signal
import time
from importlib.metadata import version

import pyarrow.parquet as pq
import pytest
from synthetic.sample import write_sample

COMMANDS = ["train", "evaluate", "predict", "explain", "encode"]
COLUMNS = ["id", "user", "text", "images", "label", "informative", "split", "synthetic"]
COLUMNS += ["time", "gender", "followers"]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(run, command):
    ended = run(*filter(None, [command]), "--help")
    assert ended.returncode == 0 and "Usage: sgmft" in ended.stdout and ended.stderr == ""
    if command is None:
        assert all(f" {name} " in ended.stdout for name in COMMANDS)
    if command == "predict":
        assert "sgmft[scale]" in ended.stdout  # brackets mean something to what prints it


def test_version(run):
    ended = run("--version")
    assert ended.returncode == 0 and ended.stdout == f"sgmft {version('sgmft')}\n"


def test_from_sample_to_labels(run, tmp_path, store):
    """Every command once, in the order of the README."""
    table, model, labelled = tmp_path / "posts" / "posts.jsonl", tmp_path / "m", tmp_path / "l.csv"
    few = ["--features", store]

    write_sample(tmp_path / "posts", posts=21, damaged=2, seed=4, several=0)
    settings = ["--set", "joint=false", "--seed", 3, "--class-weights", "balanced"]
    ended = run("train", table, "-o", model, *settings, "--column", "image=images", *few)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "" and f"Model: {model}" in ended.stderr
    assert "Trained on 23 posts, 7 labels; every post was tested" in ended.stderr
    assert "validation accuracy: " in ended.stderr
    assert "Warning: 2 posts have a warning: " in ended.stderr
    assert "… is empty" in ended.stderr and "… is cut off" in ended.stderr
    config = json.loads((model / "config.json").read_text("utf-8"))["sgmft"]
    assert (config["preset"], config["val_size"], config["train"]["seed"]) == ("default", 0, 3)
    assert config["train"]["class_weights"] is True
    assert config["model"]["joint"] is False and config["model"]["vocabulary_size"] > 0

    ended = run("evaluate", model, table, "-o", tmp_path / "e", "--by", "informative", *few)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "" and "accuracy" in ended.stderr
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text("utf-8"))
    assert metrics["posts"] == 23 and set(metrics["groups"]) == {"informative"}
    assert (tmp_path / "e" / "report.html").is_file()

    ended = run("predict", model, table, "-o", labelled, "--where", "split=test", *few)
    assert ended.returncode == 0, ended.stderr
    assert f"rows to {labelled}" in ended.stderr
    assert labelled.read_text("utf-8-sig").startswith("id,user,text,images,input_label,")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")  # whose features are in the store
def test_training_in_epochs(run, sample, tmp_path, store):
    settings = ["--set", "epochs=2", "--set", "width=16", "--val-size", "0.25", "--seed", 3]
    words = ["train", str(sample), "-o", str(tmp_path / "m"), "--preset", "elements", *settings]
    ended = run(*words, "--features", store)
    assert ended.returncode == 0, ended.stderr
    assert "Trained on 21 posts, 7 labels; 7 posts held out to choose the epoch" in ended.stderr
    assert "guidance (1 = none): P^m" in ended.stderr
    config = json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))["sgmft"]
    assert (config["preset"], config["val_size"]) == ("elements", 0.25)
    assert (config["train"]["epochs"], config["train"]["seed"]) == (2, 3)


def test_standard_input_to_standard_output(run, trained, sample, store):
    lines = sample.read_text("utf-8").splitlines()[:5]
    lines.insert(2, '{"id": "x", "images": ["images/gone.jpg"]}')
    lines.insert(4, "this is no JSON")
    words = ["predict", trained, "-", "-o", "-", "--features", store]
    ended = run(*words, input="\n".join(lines) + "\n", cwd=sample.parent)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]  # and nothing else
    ids = [json.loads(line)["id"] if line.startswith("{") else None for line in lines]
    assert [row["id"] for row in found] == ids
    assert [row["error"] is None for row in found] == [True, True, False, True, False, True, True]
    assert all((row["label"] is None) == (row["error"] is not None) for row in found)
    assert "2 of 7 rows could not be used" in ended.stderr


def test_exit_codes_and_summaries(run, trained, sample, store, tmp_path):
    """0 where some rows could be used, 3 where none could; the counts are in a file."""
    words = ["predict", trained, "-", "-o", tmp_path / "out.csv", "--features", store]
    words += ["--summary", tmp_path / "new.json"]

    def read():
        return json.loads((tmp_path / "new.json").read_text("utf-8"))

    rows = [{"id": "1", "text": "家", "images": ["a.jpg", "b.jpg"]}, {"id": "1", "text": "校"}]
    lines = [*map(json.dumps, rows), "{}", '{"images": ["images/gone.jpg"]}']
    ended = run(*words, "--min-probability", 0.999, input="\n".join(lines))
    assert ended.returncode == 0, ended.stderr
    found = read()
    assert found["posts"] == 4 and found["model"] == str(trained) and found["seconds"] > 0
    assert found["errors"] == {
        "nothing to go on: no text and no picture": 1,
        "there is no file …": 1,
    }
    assert found["warnings"] == {"there is no file …": 1, "the id … is already that of row …": 1}
    assert found["labelled"] == 2 - sum(found["abstained"].values())
    example = found["examples"]["the id … is already that of row …"]
    assert example == "standard input, row 2: the id '1' is already that of row 1"
    ended = run(*words, input="\n".join(lines[2:]))
    assert ended.returncode == 3 and "2 of 2 rows could not be used" in ended.stderr
    assert "Wrote 2 rows" in ended.stderr and read()["labelled"] == 0
    assert len((tmp_path / "out.csv").read_text("utf-8-sig").splitlines()) == 3
    (tmp_path / "none.csv").write_text("id,text\n", "utf-8")
    ended = run("predict", trained, tmp_path / "none.csv", "-o", tmp_path / "out.csv")
    assert ended.returncode == 3, "none could be used where there are none"
    (tmp_path / "moon.csv").write_text("text,label\n家,Moon\n", "utf-8")
    ended = run("evaluate", trained, tmp_path / "moon.csv", "-o", tmp_path / "e", *words[-4:])
    assert ended.returncode == 3 and "No row of" in ended.stderr
    assert read()["errors"] == {"the model never learned the label …": 1}
    ended = run("evaluate", trained, tmp_path / "gone.csv", "-o", tmp_path / "e")
    assert ended.returncode == 2


def test_what_a_spreadsheet_would_change_is_said_once(run, trained, store, tmp_path):
    rows = ["1,5012345678901234567,=1+1,-5,@小明 在家", "2,5,a,3.5,家"]
    (tmp_path / "p.csv").write_text("n,mid,note,gain,text\n" + "\n".join(rows * 300), "utf-8")
    words = ["predict", trained, tmp_path / "p.csv", "--features", store, "-o"]
    ended = run(*words, tmp_path / "out.csv")
    (said,) = (line for line in ended.stderr.splitlines() if "A spreadsheet would" in line)
    assert said.startswith("Warning: ") and "in mid, note, text: import" in said
    found = (tmp_path / "out.csv").read_text("utf-8-sig").splitlines()
    assert found[1].startswith(rows[0] + ","), "cells are as they were"
    assert "A spreadsheet" not in run(*words, tmp_path / "out.jsonl").stderr


def test_encode(run, sample, tmp_path, store):
    ended = run("encode", sample, "-o", store, "--no-tokens", "--where", "split=test")
    assert ended.returncode == 0, ended.stderr
    (folder,) = store.glob("*-pooled-3")
    assert f"posts are in {folder}" in ended.stderr and ended.stdout == ""
    keys = pq.read_table(folder, columns=["key"])["key"].to_pylist()
    tests = sum('"split": "test"' in line for line in sample.read_text("utf-8").splitlines())
    assert len(set(keys)) == len(keys) >= tests > 0


def test_a_reader_that_has_enough(start, trained, sample, store):
    process = start("predict", trained, sample, "--features", store)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 0 and "Traceback" not in errors and "Broken" not in errors


def test_ctrl_c(start, store, tmp_path):
    rows = [{"text": text, "label": text[:2]} for text in ("在家睡觉", "上课考试") * 7]
    table = tmp_path / "posts.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    settings = ["--set", "epochs=500", "--set", "patience=0", "--set", "width=16"]
    words = ["train", str(table), "-o", str(tmp_path / "m"), "--preset", "elements", *settings]
    process = start(*words, "--features", store)
    while process.poll() is None and not any(tmp_path.rglob("checkpoint.safetensors")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].endswith(shlex.join(["sgmft", *words, "--features", str(store)]))
    assert "Traceback" not in errors


def test_a_mistake_in_a_process_of_its_own(run_process, tmp_path):
    ended = run_process("train", tmp_path / "nope.csv", "-o", tmp_path / "m")
    assert ended.returncode == 2 and ended.stdout == ""
    (line,) = filter(None, ended.stderr.splitlines())
    assert line.startswith("sgmft: There is no file") and "nope.csv" in line
    assert not (tmp_path / "m").exists()


MISTAKES = {
    "train {table} -o {out}": {
        "--column text=txt": "no column 'txt'",
        "--column label=place": ", ".join(COLUMNS),
        "--column words=text": "the fields are text, image, id, label",
        "--column text": "--column text: write it as NAME=VALUE",
        "--preset best": "no preset 'best': use tokens, elements",
        "--encoder nonsense": "no encoder 'nonsense': use compact",
        "--cleaning hard": "no cleaning 'hard'",
        "--device quantum": "no device 'quantum' here",
        "--where split": "--where split: write it as NAME=VALUE",
        "--where fold=1": "no column 'fold'",
        "--where split=train --where split=test": "split=test: split was given as 'train' already",
        "--where split=dev": "has no rows with split=dev",
        "--set epochs": "--set epochs: write it as NAME=VALUE",
        "--set folds=few": "--set folds=few: expected a whole number",
        "--set folds=1": "folds must be at least 2, not 1",
        "--set epochs=3": "gated-experts has no setting 'epochs': use",
        "--preset paper --set epoch=3": "no setting 'epoch': use",
        "--preset paper --set epochs=0": "epochs must be at least 1, not 0",
        "-o {table}": "is a file: choose a folder for the model",
    },
    "predict": {
        "{gone} {table} -o {out}.csv": "There is no model",
        "{images} {table} -o {out}.csv": "not a model saved by sgmft",
        "{model} {gone}.csv -o {out}.csv": "There is no file",
        "{model} {table} -o {out}.xls": "no table sgmft can write",
        "{model} {table} -o {table}": "is the table that is read",
        "{model} {images} -o {out}.csv": "a folder without any of metadata.csv",
        "{model} {table} -o {out}.csv --device quantum": "no device 'quantum' here",
    },
    "evaluate {model} {table} -o {out}": {"--where id=x": "has no rows with id=x"},
    "encode -o": {"{out} {gone}.jsonl": "There is no file", "{table} {table}": "choose another"},
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [(f"{command} {x}", text) for command, some in MISTAKES.items() for x, text in some.items()],
)
def test_a_mistake_is_answered_in_one_line(run, sample, trained, tmp_path, words, expected):
    places = {"table": sample, "model": trained, "images": sample.parent / "images"}
    places |= {name: tmp_path / name for name in ("out", "gone")}
    ended = run(*(word.format(**places) for word in words.split()))
    assert ended.returncode == 2 and ended.stdout == ""
    (line,) = filter(None, ended.stderr.splitlines())
    assert line.startswith("sgmft: ") and expected in line and len(line) < 500
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left in ([], ["_encoder.json"])  # a feature store without features


def test_strict_stops_with_the_row(run, trained, tmp_path):
    (tmp_path / "t.csv").write_text("text,image\nhello,gone.jpg\n")
    for words in (f"predict {trained} t.csv -o out.csv --features none", "encode t.csv -o f"):
        ended = run(*words.split(), "--strict", cwd=tmp_path)
        last = ended.stderr.splitlines()[-1]
        assert ended.returncode == 2 and last == "sgmft: t.csv, row 2: there is no file gone.jpg."
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("words", ["train", "train posts.csv", "fly", "train t --epochs 3"])
def test_words_that_are_no_command(run, words):
    ended = run(*words.split())
    assert ended.returncode == 2 and "Usage: " in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("pool", ["posts", "-"])
def test_only_labelled_tables_need_the_column_of_labels(run, tmp_path, pool):
    lines = '{"text": "在家做饭", "place": null}\n{"text": "上班开会"}\n'
    (tmp_path / "labelled.csv").write_text("text,place\n回家,Home\n", "utf-8")
    (tmp_path / "posts.csv").write_text("text\n在家做饭\n", "utf-8")
    table = pool if pool == "-" else tmp_path / "posts.csv"
    named = "--labelled", tmp_path / "labelled.csv", "--column", "label=place", "-n", 1
    ended = run("suggest", table, "-o", tmp_path / "new.csv", *named, input=lines)
    assert ended.returncode == 0 and "Wrote 1 posts" in ended.stderr
