import json
from pathlib import Path

import pytest

from sgmft.data.tables import Columns, iter_posts, read_posts
from sgmft.errors import SgmftError


def table(tmp_path: Path, content: str, name: str = "posts.csv") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    return path


# --- which column is what


def test_usual_names_in_any_case(tmp_path):
    (post,) = read_posts(table(tmp_path, " Text ,IMAGES,ID,Label,User\na,b.jpg,1,Home,u\n"))
    assert (post.text, post.id, post.label, post.user) == ("a", "1", "Home", "u")
    assert post.images == (tmp_path / "b.jpg",)
    assert post.row[" Text "] == "a"


def test_named_columns(tmp_path):
    path = table(tmp_path, "content,pic,kind\nhi,a.jpg,Work\n")
    (post,) = read_posts(path, columns=Columns(text="content", image="pic", label="kind"))
    assert (post.text, post.label, post.images) == ("hi", "Work", (tmp_path / "a.jpg",))


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_wrong_column_names_those_there_are(tmp_path, name):
    content = "content,kind\na,b\n" if name == "p.csv" else '{"content": "a", "kind": "b"}\n'
    path = table(tmp_path, content, name)
    with pytest.raises(SgmftError, match=r"content, kind\. Did you mean 'content'"):
        read_posts(path, columns=Columns(text="contnt"))
    with pytest.raises(SgmftError, match=r"neither a text nor an image column.*content, kind"):
        read_posts(path)
    with pytest.raises(SgmftError, match="no column 'split'"):
        read_posts(path, columns=Columns(text="content"), where={"split": "train"})


def test_where_keeps_rows_before_anything_else(tmp_path):
    path = table(tmp_path, "id,text,split\n1,a,train\n1,b,test\n2,c,train\n")
    posts = read_posts(path, where={"split": "train"})
    assert [(post.id, post.error) for post in posts] == [("1", None), ("2", None)]
    numbers = table(tmp_path, '{"text": "a", "fold": 1}\nbad\n{"text": "b"}\n', "p.jsonl")
    kept = read_posts(numbers, where={"fold": "1"})
    assert [post.text for post in kept] == ["a", ""] and kept[1].error is not None


def test_duplicate_ids(tmp_path):
    posts = read_posts(table(tmp_path, "id,text\n7,a\n8,b\n7,c\n,d\n,e\n"))
    assert [post.error for post in posts] == [
        None,
        None,
        "the id '7' is already that of row 2",
        None,
        None,
    ]
    assert posts[2].id == "7" and posts[2].text == "c"


def test_strict_stops_at_the_first_bad_row(tmp_path):
    posts = iter_posts(table(tmp_path, "text\na\n \nb\n"), strict=True)
    assert next(posts).text == "a"
    with pytest.raises(SgmftError, match=r"posts\.csv, row 3: nothing to go on"):
        next(posts)


def test_values_that_are_no_single_value(tmp_path):
    lines = ['{"text": ["a"]}', '{"text": "a", "label": ["x", "y"]}', '{"text":"a","label":["x"]}']
    posts = read_posts(table(tmp_path, "\n".join(lines), "p.jsonl"))
    assert posts[0].error == "text: a list where one value is needed"
    assert "several labels (x, y)" in posts[1].error
    assert posts[2].label == "x"


# --- pictures


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("a.jpg", ["a.jpg"]),
        ("", []),
        ("a.jpg| d/b.jpg |", ["a.jpg", "d/b.jpg"]),
        ('["a.jpg", "b|c.jpg", null]', ["a.jpg", "b|c.jpg"]),
        ("[1].jpg", ["[1].jpg"]),
        ("d\\b.jpg", ["d/b.jpg"]),
    ],
)
def test_image_cells(tmp_path, cell, names):
    path = table(tmp_path, json.dumps({"text": "t", "image": cell}), "p.jsonl")
    (post,) = read_posts(path)
    assert post.error is None
    assert list(post.images) == [tmp_path / name for name in names]


def test_backslash_that_is_part_of_a_name_is_kept(tmp_path):
    (tmp_path / "d\\b.jpg").touch()
    (post,) = read_posts(table(tmp_path, "image\nd\\b.jpg\n"))
    assert post.images == (tmp_path / "d\\b.jpg",)


@pytest.mark.parametrize(
    "cell", ["../x.jpg", "/etc/passwd", "link/x.jpg", "..\\x.jpg", "link/..", "l.jpg"]
)
def test_pictures_outside_are_refused(tmp_path, cell):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "l.jpg").symlink_to("../x.jpg")
    path = table(folder, f"text,image\na,good.jpg|{cell}\n")
    (post,) = read_posts(path)
    assert post.images == (folder / "good.jpg",) and post.text == "a"
    assert "allow it with --allow-outside" in post.error
    (allowed,) = read_posts(path, allow_outside=True)
    assert allowed.error is None and len(allowed.images) == 2


def test_links_that_stay_inside_are_accepted(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    absolute = tmp_path / "real" / "a.jpg"
    path = table(tmp_path, f"image\nlink/a.jpg|real/../b.jpg|{absolute}|loop\n")
    (post,) = read_posts(path)
    assert post.error is None and len(post.images) == 4 and post.images[2] == absolute


@pytest.mark.parametrize("cell", ["http://x.cn/a.jpg", "HTTPS://x.cn/a.jpg", "data:image/png;b,x"])
def test_pictures_on_the_web(tmp_path, cell):
    (post,) = read_posts(table(tmp_path, f"image\n{cell}\n"), allow_outside=True)
    assert "pictures on the web are not fetched" in post.error


@pytest.mark.parametrize("image", ["a\0b.jpg", "\ud800.jpg", 7, [["a"]], {"x": 1}])
def test_what_is_no_path_is_a_bad_row(tmp_path, image):
    path = table(tmp_path, json.dumps({"text": "a", "image": image}), "p.jsonl")
    (post,) = read_posts(path)
    assert post.error is not None and post.text == "a" and post.images == ()


def test_image_folder(tmp_path):
    table(tmp_path, "file_name,text\nimg/a.jpg,hi\n", "metadata.csv")
    (post,) = read_posts(tmp_path)
    assert post.images == (tmp_path / "img/a.jpg",)
    table(tmp_path, "{}", "metadata.jsonl")
    with pytest.raises(SgmftError, match=r"metadata\.csv and metadata\.jsonl"):
        read_posts(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SgmftError, match="without any of metadata"):
        read_posts(tmp_path / "empty")
