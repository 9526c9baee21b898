"""`sgmft explain`, from a table or a file of one post to a page or numbers."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from sgmft.cli.main import main


@pytest.fixture(scope="module")
def model(tiny, small_posts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny(preset="default").fit(small_posts).save_pretrained(folder)
    return folder


@pytest.fixture
def tool(monkeypatch, capfd, model):
    """Runs the command on a saved toy model, in this process: exit code and standard error."""

    def tool(*words):
        command = ["sgmft", "explain", model, *words]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert out == ""
        return ended.value.code or 0, err

    return tool


@pytest.fixture
def table(small_posts, tmp_path):
    shutil.copy(small_posts[0].images[0], tmp_path / "a.png")
    rows = [
        {"id": "one", "text": "the boss again", "image": "a.png"},
        {"id": "two", "text": "exam", "image": "gone.png"},
        {"id": "three", "text": "sofa and bed"},
    ]
    path = tmp_path / "posts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def test_a_file_of_one_post(tool, tmp_path, table):
    (tmp_path / "post.json").write_text('{"text": "boss meeting", "images": ["a.png"]}', "utf-8")
    code, told = tool(tmp_path / "post.json", "-o", tmp_path / "new" / "why.html")
    assert code == 0 and "Work, " in told and "Explanation: " in told
    page = (tmp_path / "new" / "why.html").read_text("utf-8")
    assert ">boss</span>" in page and page.count("<section") == 1


def test_a_table_with_a_bad_row(tool, tmp_path, table):
    code, told = tool(table, "-o", tmp_path / "why.html")
    assert code == 0 and "1 of 3 rows could not be used" in told
    page = (tmp_path / "why.html").read_text("utf-8")
    assert page.count('<section class="post">') == 2 and "there is no file gone.png" in page


def test_numbers_of_the_rows_that_were_asked_for(tool, tmp_path, table):
    output = tmp_path / "why.json"

    def ids(*options):
        code, told = tool(table, "-o", output, *options)
        assert code == 0, told
        assert ("Only the first 2 posts are explained" in told) == ("--posts" in options)
        return [row["post"]["id"] for row in json.loads(output.read_text("utf-8"))]

    assert ids() == ["one", "two", "three"]
    assert ids("--posts", 2) == ["one", "two"]
    assert ids("--row", 3) == ["three"]
    assert ids("--where", "id=one", "--label", "School") == ["one"]
    assert json.loads(output.read_text("utf-8"))[0]["label"] == "School"


def test_mistakes(tool, tmp_path, table):
    for words, message in (
        ((table, "-o", tmp_path / "why.txt"), "must end in .html"),
        ((table, "-o", tmp_path / "w.html", "--row", 9), "has no row 9"),
        ((table, "-o", tmp_path / "w.html", "--row", 2), "row 2 cannot be explained: there is no"),
        ((table, "-o", tmp_path / "w.html", "--label", "Moon"), "no label 'Moon'"),
        ((table, "-o", tmp_path / "w.html", "--strict"), "there is no file gone.png"),
        ((table, "-o", tmp_path / "w.html", "--where", "id=no"), "has no rows with id=no"),
    ):
        code, told = tool(*words)
        assert code == 2 and message in told and len(told.strip().splitlines()) <= 2, told
        assert not (tmp_path / "w.html").exists()
