"""`sgmft label` and llama.cpp's own server: structured output, log-probabilities, pictures, key."""

import csv
import math

import pytest
from PIL import Image

from llama_server import serve_llama
from sgmft import Post
from sgmft.errors import SgmftError
from sgmft.jobs.label import LanguageModel
from small_tables import read_rows, write_rows

pytest.importorskip("openai")
pytest.importorskip("xllamacpp")
KEY = "sk-sesame-0123456789"
LOGITS = {"A": 2.0, "B": 3.0, "C": 1.0, "D": 0.5, "Z": 9.0}  # by itself it would say Z
LABELS = {"Home": ["在家", "at home"], "School": ["in class"], "Work": ["Work"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = serve_llama(tmp_path_factory.mktemp("llama"), LOGITS, KEY)
    yield f"{server.listening_address}/v1"
    del server  # stops


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("sgmft.jobs.label.RETRIES", 1)

    def ask(*posts, labels=LABELS, **settings):
        model = LanguageModel(server, "any", labels, cache=tmp_path / "c", **settings)
        try:
            return list(model.predictions(posts)), model
        finally:
            model.close()

    return ask


def test_answers_are_constrained_and_have_their_probabilities(ask):
    (first, empty), model = ask(Post("躺在沙发上"), Post(""))
    total = sum(math.exp(LOGITS[x]) for x in "ABC")
    assert first.label == "School" and not model.refused
    shares = [math.exp(LOGITS[x]) / total for x in "ABC"]
    assert first.probabilities == pytest.approx(shares, abs=1e-3)
    none = math.exp(LOGITS["D"]) / (total + math.exp(LOGITS["D"]))
    assert first.more["llm_none"] == pytest.approx(none, abs=1e-3)
    assert "nothing to go on" in empty.error and model.spent["requests"] == 1
    assert first.more["llm_tokens"] == model.spent["tokens"] + model.spent["written"] > 400


@pytest.mark.parametrize(("colour", "label"), [("red", "Home"), ("blue", "Work")])
def test_pictures_are_seen(ask, tmp_path, colour, label):
    Image.new("RGB", (300, 200), colour).save(tmp_path / "p.png")
    (text, picture, alone, both), model = ask(
        Post("x"),
        Post("x", images=[str(tmp_path / "p.png")]),
        Post("", images=[str(tmp_path / "p.png")]),
        Post("x", images=[str(tmp_path / "p.png")] * 3),
    )
    assert [p.label for p in (text, picture, alone, both)] == ["School", label, label, label]
    assert not model.refused
    assert picture.more["llm_tokens"] - text.more["llm_tokens"] == 4  # of a picture, one a patch
    assert both.more["llm_tokens"] - text.more["llm_tokens"] == 12


def test_more_labels_than_letters(ask):
    labels = {f"place {i}": [f"place {i}"] for i in range(38)}
    (found,), model = ask(Post("somewhere"), labels=labels)
    assert found.label in labels and found.probabilities is None  # each digit is a token
    assert model.spent["requests"] == 1 and not model.refused


def test_votes(ask):
    (found,), model = ask(Post("x"), votes=20, max_tokens=400)
    assert model.spent["requests"] == 20 and found.probabilities.sum() == pytest.approx(1)
    assert found.label in LABELS and 0.05 <= found.more["llm_none"] + found.probabilities[0] < 1


def test_a_text_too_long_for_the_server_is_an_error_of_its_row(ask):
    (short, long, other), model = ask(Post("x"), Post("長" * 9000), Post("y"))
    assert short.label == other.label == "School" and long.label is None
    assert "context size" in long.error and not model.refused


def test_a_wrong_key_ends_the_job_and_is_not_shown(ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", wrong := "sk-wrong-0123456789")
    with pytest.raises(SgmftError, match="Invalid API Key") as error:
        ask(Post("x"))
    assert wrong not in str(error.value)


def test_the_command_and_training_on_what_it_wrote(server, run, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    rows = [{"id": str(i), "text": f"post {i}"} for i in range(12)]
    table, output = write_rows(rows, tmp_path / "posts.csv"), tmp_path / "labelled.csv"
    words = ["--llm", server, "--model", "any", "--labels", "Home=at home|in bed;School;Work"]
    words += ["--cache", tmp_path / "answers.sqlite", "--price", "1", "10"]
    ended = run("label", table, "-o", output, *words)
    assert ended.returncode == 0 and "12 requests" in ended.stderr, ended.stderr
    assert KEY not in ended.stderr + output.read_text("utf-8-sig")
    found = read_rows(output)
    assert {row["label"] for row in found} == {"School"}
    assert sum(float(found[0][f"p_{x}"]) for x in ("Home", "School", "Work")) == pytest.approx(
        1, abs=2e-4
    )
    again = run("label", table, "-o", tmp_path / "again.csv", *words)
    assert "0 requests" in again.stderr and read_rows(tmp_path / "again.csv") == found
    with output.open(newline="", encoding="utf-8-sig") as file:
        assert next(csv.reader(file))[:3] == ["id", "text", "label"]
