import json
from pathlib import Path

import pytest

from sgmft.data.tables import Columns, read_posts
from sgmft.data.tables.label_studio import local_path
from sgmft.errors import SgmftError


def annotation(*choices: str, name: str = "place", cancelled: bool = False) -> dict:
    result = {"from_name": name, "to_name": "text", "type": "choices"}
    result["value"] = {"choices": list(choices)}
    return {"id": 1, "was_cancelled": cancelled, "result": [result]}


def task(number: int, *annotations: dict, **data) -> dict:
    return {"id": number, "data": {"text": "hi", **data}, "annotations": list(annotations)}


def export(tmp_path: Path, *items: dict) -> Path:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(list(items)))
    return path


def test_full_export(tmp_path):
    path = export(
        tmp_path,
        task(1, annotation("Home"), image="/data/local-files/?d=img/a%20b.jpg"),
        task(2, annotation("Work", cancelled=True)),
        task(3, annotation("Home", cancelled=True), annotation("Work")),
        task(4),
    )
    posts = read_posts(path)
    assert [post.label for post in posts] == ["Home", None, "Work", None]
    assert [post.id for post in posts] == ["1", "2", "3", "4"]
    assert posts[0].images == (tmp_path / "img/a b.jpg",)
    assert all(post.error is None for post in posts)


def test_annotators_vote(tmp_path):
    home, work, both = annotation("Home"), annotation("Work"), annotation("Work", "Home")
    tasks = task(1, home, work, home), task(2, home, work), task(3, both)
    most, *undecided = read_posts(export(tmp_path, *tasks))
    assert most.label == "Home"
    for post in undecided:
        assert post.label is None and "several labels (Home, Work)" in post.warnings[0]


def test_several_controls(tmp_path):
    path = export(tmp_path, task(1, annotation("Home"), annotation("Sad", name="mood")))
    assert read_posts(path)[0].label is None
    assert read_posts(path, columns=Columns(label="mood"))[0].label == "Sad"


def test_the_annotation_wins_over_a_label_in_the_data(tmp_path):
    path = export(
        tmp_path,
        task(1, annotation("Home", name="label"), label="Guess", id="w-17"),
        task(2, label="Guess"),
    )
    first, second = read_posts(path)
    assert (first.label, first.id) == ("Home", "w-17")
    assert first.row["data.label"] == "Guess"
    assert second.label == "Guess"
    other = export(tmp_path, task(1, annotation("Home"), label="Guess"), task(2, label="Guess"))
    assert [post.label for post in read_posts(other)] == ["Home", None]


def test_json_min(tmp_path):
    path = export(
        tmp_path,
        {"id": 1, "text": "a", "choice": "Home", "annotator": 1},
        {"id": 2, "text": "b", "choice": {"choices": ["Home", "Work"]}},
        {"id": 3, "text": "c", "choice": {"choices": ["Travel"]}},
        {"id": 1, "text": "a", "choice": "Work"},
    )
    first, several, one, again = read_posts(path)
    assert (first.label, first.id, one.label) == ("Home", "1", "Travel")
    assert several.error is again.error is None and "several labels" in several.warnings[0]
    assert again.warnings == ("the id '1' is already that of row 1",)


@pytest.mark.parametrize("there", [None, "name.jpg", "upload/1/name.jpg"])
def test_uploads(tmp_path, there):
    if there:
        (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / there).touch()
    (post,) = read_posts(export(tmp_path, task(1, image="/data/upload/1/name.jpg")))
    assert post.images == (tmp_path / (there or "name.jpg"),)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("http://localhost:8080/data/local-files/?d=a/b.jpg", "a/b.jpg"),
        ("pictures/data/upload/1/b.jpg", "pictures/data/upload/1/b.jpg"),
        ("https://x.cn/b.jpg", "https://x.cn/b.jpg"),
    ],
)
def test_addresses(path, local):
    assert local_path(path, Path()) == local


def test_a_local_path_cannot_leave_the_folder(tmp_path):
    path = export(tmp_path, task(1, image="/data/local-files/?d=..%2F..%2Fetc/passwd"))
    (post,) = read_posts(path)
    assert post.images == () and "outside" in (post.error or post.warnings[0])


@pytest.mark.parametrize(
    "broken",
    [
        {"id": 1, "data": {"text": "a"}, "annotations": None},
        {"id": 1, "data": {"text": "a"}, "annotations": [None, {"result": [3, {"value": 4}]}]},
        {"id": 1, "data": {"text": "a"}, "annotations": [{"result": [{"value": {"choices": 5}}]}]},
    ],
)
def test_odd_tasks_are_posts_without_a_label(tmp_path, broken):
    (post,) = read_posts(export(tmp_path, broken))
    assert post.error is None and post.label is None


def test_the_rounds_of_one_post_are_merged(tmp_path):
    """A post that was skipped or left undecided is suggested again, and so is a second task."""
    home, work = annotation("Home"), annotation("Work")
    path = export(
        tmp_path,
        task(1, annotation("Home", cancelled=True), id="a", image="/data/local-files/?d=x/1.jpg"),
        task(2, home, work, id="b"),
        task(3, row="posts.csv, row 4"),
        task(4, home, id="a", image=["/data/local-files/?d=x/1.jpg"]),  # beside one of several
        task(5, work, id="b"),
        task(6, work, row="posts.csv, row 4"),
        task(7, home, id="a", text="another post"),
    )
    first, second, third, other = read_posts(path)
    assert (first.id, first.label, first.error) == ("a", "Home", None)
    assert (second.id, second.label, second.error) == ("b", "Work", None)
    assert third.label == "Work"
    assert other.warnings == ("the id 'a' is already that of row 1",)


def test_pictures_tell_posts_of_one_id_apart(tmp_path):
    """As an annotator's list of photographs may have them, all numbered 0."""
    first, second, without = read_posts(
        export(
            tmp_path,
            task(1, annotation("Home"), id="a", text="", image="/data/local-files/?d=1.jpg"),
            task(2, annotation("Work"), id="a", text="", image="/data/local-files/?d=2.jpg"),
            task(3, annotation("Work"), id="a", text="", image=["/data/local-files/?d=1.jpg"]),
            task(4, annotation("Home"), id="a", text="", image=""),
            task(5, annotation("Home"), id="a", text="", image=["/data/local-files/?d=1.jpg"]),
        )
    )
    assert first.images == (tmp_path / "1.jpg",) and first.label == "Home"
    assert second.images == (tmp_path / "2.jpg",) and second.label == "Work"
    assert second.warnings == without.warnings == ("the id 'a' is already that of row 1",)
    assert (second.error, without.error) == (None, "nothing to go on: no text and no picture")


def record(number: int, choice, annotation: int, **data) -> dict:
    """As JSON-MIN has them: newest first, one for each annotation, the task's id."""
    cells = {"annotation_id": annotation, "annotator": annotation % 3, "lead_time": annotation / 7}
    return {"text": "hi", "id": number, "place": choice, **cells, **data}


def test_annotators_vote_in_json_min_too(tmp_path):
    path = export(
        tmp_path,
        record(7, "Work", 5),
        record(7, "Home", 4),
        record(8, "Work", 3),
        record(8, "Home", 2),
        record(7, "Home", 1, note="sure"),
        {"text": "hi", "id": 9, "annotation_id": 6},
        record(21, "Home", 8, row="t.csv, row 5"),
        record(11, "Work", 7, row="t.csv, row 5"),
        record(11, "Home", 6, row="t.csv, row 5"),
        record(12, "Home", 9, row="t.csv, row 5", image="1.jpg"),
        record(13, "Work", 10, row="t.csv, row 5", image="2.jpg"),
    )
    most, tied, none, rounds, *pictures = read_posts(path, columns=Columns(label="place"))
    assert (most.id, most.label, most.error, most.row["note"]) == ("7", "Home", None, "sure")
    assert tied.label is None and "several labels (Home, Work)" in tied.warnings[0]
    assert none.label is None and none.error is None
    assert (rounds.id, rounds.label, rounds.error) == ("11", "Home", None)
    assert [post.label for post in pictures] == ["Home", "Work"]


def test_a_csv_export_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text("annotation_id,annotator,id,image,label,lead_time,text\n1,1,1,,Home,2.5,hi\n")
    with pytest.raises(SgmftError, match="export as JSON"):
        read_posts(path)
