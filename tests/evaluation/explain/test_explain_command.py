"""`sgmft explain`, from a table or a file of one post to a page or numbers."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def explain(run, default, tmp_path_factory):
    """Explain with a saved small model: exit code and standard error."""
    model = tmp_path_factory.mktemp("saved") / "model"
    default.save_pretrained(model)

    def explain(*words):
        ended = run("explain", model, *words)
        assert ended.stdout == ""
        return ended.returncode, ended.stderr

    return explain


@pytest.fixture
def table(pictures, tmp_path):
    shutil.copy(pictures / "red.png", tmp_path / "a.png")
    rows = [
        {"id": "one", "text": "the boss again", "image": "a.png"},
        {"id": "two", "text": "", "image": "gone.png"},
        {"id": "three", "text": "sofa and bed", "image": "away.png"},
    ]
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def test_a_file_of_one_post_and_a_table_with_a_bad_row(explain, tmp_path, table):
    (tmp_path / "post.json").write_text('{"text": "boss meeting", "images": ["a.png"]}', "utf-8")
    code, errors = explain(tmp_path / "post.json", "-o", tmp_path / "new" / "why.html")
    assert code == 0 and "Work, " in errors and "Explanation: " in errors
    page = (tmp_path / "new" / "why.html").read_text("utf-8")
    assert ">boss</span>" in page and page.count("<section") == 1
    code, errors = explain(table, "-o", tmp_path / "why.html")
    assert code == 0 and "1 of 3 rows could not be used" in errors
    page = (tmp_path / "why.html").read_text("utf-8")
    assert page.count('<section class="post">') == 2 and "there is no file gone.png" in page
    assert "Left out or doubtful: there is no file away.png." in page


def test_the_language_of_the_page(explain, tmp_path, table, monkeypatch):
    output, why = ("-o", tmp_path / "why.html"), tmp_path / "why.html"
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert explain(table, *output)[0] == 0
    assert '<html lang="zh-CN">' in why.read_text("utf-8")
    assert explain(table, *output, "--lang", "en")[0] == 0
    assert '<html lang="en">' in why.read_text("utf-8")
    code, errors = explain(table, *output, "--lang", "fr")
    assert code == 2 and "'en', 'zh'" in errors


def test_numbers_of_the_rows_that_were_asked_for(explain, tmp_path, table):
    output = tmp_path / "why.json"

    def ids(*options):
        code, errors = explain(table, "-o", output, *options)
        assert code == 0, errors
        assert ("Only the first 2 posts are explained" in errors) == ("--posts" in options)
        return [row["post"]["id"] for row in json.loads(output.read_text("utf-8"))]

    assert ids() == ["one", "two", "three"]
    assert ids("--posts", 2) == ["one", "two"]
    assert ids("--row", 3) == ["three"]
    assert ids("--where", "id=one", "--label", "School") == ["one"]
    assert json.loads(output.read_text("utf-8"))[0]["label"] == "School"


def test_mistakes(explain, tmp_path, table):
    for words, message in {
        "why.txt": "must end in .html",
        "w.html --row 9": "has no row 9",
        "w.html --row 2": "row 2 cannot be explained: there is no",
        "w.html --label Moon": "no label 'Moon'",
        "w.html --strict": "there is no file gone.png",
        "w.html --where id=no": "has no rows with id=no",
    }.items():
        name, *options = words.split()
        code, errors = explain(table, "-o", tmp_path / name, *options)
        assert code == 2 and message in errors and len(errors.strip().splitlines()) <= 2, errors
        assert not (tmp_path / "w.html").exists()
