"""`sgmft predict --zero-shot` and `sgmft suggest`, started as a user starts them."""

from __future__ import annotations

import json
import sys

import pytest

from sgmft.cli.main import main
from sgmft.features.encoders.base import Recognizer
from sgmft.features.encoders.registry import load_encoder
from toy_tables import read, table_of

PLACES = "Home=sofa bed|kitchen;School=teacher desk;Work"
ROWS = [{"text": "teacher exam"}, {"text": "kitchen sofa"}, {"text": ""}]


@pytest.fixture
def said(monkeypatch, capfd, tiny):
    """The exit code of a command, what it says and what it writes to standard output."""

    def said(*words):
        monkeypatch.setattr(sys, "argv", ["sgmft", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, " ".join(err.split()), out

    return said


def test_labels_from_descriptions(said, tmp_path):
    table, output = table_of(ROWS, tmp_path / "p.csv"), tmp_path / "out.csv"
    words = ["--zero-shot", PLACES, "--encoder", "tiny", "--features", "none"]
    code, err, _ = said("predict", table, "-o", output, *words)
    rows = read(output)
    assert code == 0 and "Wrote 3 rows" in err
    assert list(rows[0]) == [
        "text",
        "label",
        "probability",
        "p_Home",
        "p_School",
        "p_Work",
        "error",
    ]
    assert [row["label"] for row in rows] == ["School", "Home", None]
    assert "nothing to go on" in rows[2]["error"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["m", "p.csv", "--zero-shot", "a;b"], "With --zero-shot there is no model"),
        (["p.csv", "--zero-shot", "a"], "at least two labels"),
        (["p.csv", "--zero-shot", "a=;b"], "lacks a label or a description"),
        (["p.csv"], "needs a model and a table"),
        (["m", "p.csv", "--encoder", "tiny"], "leave --encoder out"),
    ],
)
def test_what_predict_refuses(said, words, told):
    code, err, _ = said("predict", *words)
    assert code == 2 and told in err


def test_tasks_to_label(said, tmp_path):
    table, output = table_of(ROWS, tmp_path / "p.csv"), tmp_path / "tasks.json"
    words = ["-n", 5, "--encoder", "tiny", "--features", "none"]
    code, err, _ = said("suggest", table, "-o", output, "--labels", "Home, School", *words)
    assert code == 0 and "Wrote 2 posts" in err and "tasks.config.xml" in err
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}" in err
    tasks = json.loads(output.read_text("utf-8"))
    assert {task["data"]["text"] for task in tasks} == {"teacher exam", "kitchen sofa"}
    assert not any("predictions" in task for task in tasks)
    assert 'value="School"' in (tmp_path / "tasks.config.xml").read_text("utf-8")
    code, err, _ = said("suggest", table, "-o", output, *words)
    assert code == 2 and "--labels" in err
    code, err, _ = said("suggest", table, "-o", output, "--model", "m", "--encoder", "tiny")
    assert code == 2 and "leave both options out" in err
    code, _, out = said("suggest", table, "-o", "-", *words)
    assert code == 0 and len(out.splitlines()) == 2


def test_the_heads_of_the_compact_encoder_know_a_thousand_classes():
    encoder = load_encoder("compact")
    assert isinstance(encoder, Recognizer)
    heads = encoder.class_heads()
    assert heads.weight.shape == (2, 1000, 1280) and heads.bias.shape == (2, 1000)
    assert len(set(heads.names)) > 990 and heads.names[498].startswith("cinema, movie theater")
    assert encoder.info.image_width == 2 * 1280
