"""`sgmft predict --zero-shot` and `sgmft suggest`."""

import json

import pytest

from sgmft.features.encoders.registry import load_encoder
from small_tables import read_rows, write_rows

PLACES = "Home=sofa bed|kitchen;School=teacher desk;Work"
ROWS = [{"text": "teacher exam"}, {"text": "kitchen sofa"}, {"text": ""}]


pytestmark = pytest.mark.usefixtures("tiny")


def test_labels_from_descriptions(run, tmp_path):
    table, output = write_rows(ROWS, tmp_path / "p.csv"), tmp_path / "out.csv"
    words = ["--zero-shot", PLACES, "--encoder", "tiny", "--features", "none"]
    ended = run("predict", table, "-o", output, *words)
    rows = read_rows(output)
    assert ended.returncode == 0 and "Wrote 3 rows" in ended.stderr
    assert ",".join(rows[0]) == "text,label,probability,error,warning,p_Home,p_School,p_Work"
    assert [row["label"] for row in rows] == ["School", "Home", None]
    assert "nothing to go on" in rows[2]["error"]


def test_what_predict_refuses(run):
    for words, message in {
        "m p.csv --zero-shot a;b": "With --zero-shot there is no model",
        "p.csv --zero-shot a": "at least two labels",
        "p.csv --zero-shot a=;b": "lacks a label or a description",
        "p.csv": "needs a model and a table",
        "m p.csv --encoder tiny": "leave --encoder out",
    }.items():
        ended = run("predict", *words.split())
        assert ended.returncode == 2 and message in ended.stderr


def test_tasks_to_label(run, tmp_path):
    table, output = write_rows(ROWS, tmp_path / "p.csv"), tmp_path / "tasks.json"
    words = ["-n", 5, "--encoder", "tiny", "--features", "none"]
    ended = run("suggest", table, "-o", output, "--labels", "Home, School", *words)
    assert ended.returncode == 0 and "Wrote 2 posts" in ended.stderr
    assert "tasks.config.xml" in ended.stderr
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}" in ended.stderr
    tasks = json.loads(output.read_text("utf-8"))
    assert {task["data"]["text"] for task in tasks} == {"teacher exam", "kitchen sofa"}
    assert not any("predictions" in task for task in tasks)
    assert 'value="School"' in (tmp_path / "tasks.config.xml").read_text("utf-8")
    for more, message in (([], "--labels"), (["--model", "m"], "leave both options out")):
        ended = run("suggest", table, "-o", output, *words, *more)
        assert ended.returncode == 2 and message in ended.stderr
    ended = run("suggest", table, "-o", "-", *words)
    assert ended.returncode == 0 and len(ended.stdout.splitlines()) == 2


def test_the_heads_of_the_compact_encoder_know_a_thousand_classes():
    encoder = load_encoder("compact")
    assert hasattr(encoder, "class_heads")
    heads = encoder.class_heads()
    assert heads.weight.shape == (2, 1000, 1280) and heads.bias.shape == (2, 1000)
    assert len(set(heads.names)) > 990 and heads.names[498].startswith("cinema, movie theater")
    assert encoder.info.image_width == 2 * 1280
