import json
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sgmft.data.posts import Attachment
from sgmft.data.tables import Columns, iter_posts, read_posts
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_all
from tiny_encoder import TinyEncoder


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
    content = "words,kind\na,b\n" if name == "p.csv" else '{"words": "a", "kind": "b"}\n'
    path = table(tmp_path, content, name)
    with pytest.raises(SgmftError, match=r"words, kind\. Did you mean 'words'"):
        read_posts(path, columns=Columns(text="wrds"))
    with pytest.raises(SgmftError, match=r"neither a text nor an image column.*words, kind"):
        read_posts(path)
    with pytest.raises(SgmftError, match="no column 'split'"):
        read_posts(path, columns=Columns(text="words"), where={"split": "train"})


def test_where_keeps_rows_before_anything_else(tmp_path):
    path = table(tmp_path, "id,text,split\n1,a,train\n1,b,test\n2,c,train\n")
    posts = read_posts(path, where={"split": "train"})
    assert [(post.id, post.error) for post in posts] == [("1", None), ("2", None)]
    numbers = table(tmp_path, '{"text": "a", "fold": 1}\nbad\n{"text": "b"}\n', "p.jsonl")
    kept = read_posts(numbers, where={"fold": "1"})
    assert [post.text for post in kept] == ["a", ""] and kept[1].error is not None


def test_duplicate_ids(tmp_path):
    posts = read_posts(table(tmp_path, "id,text\n7,a\n8,b\n7,c\n,d\n,e\n"))
    assert not any(post.error for post in posts)
    assert [post.warnings for post in posts if post.warnings] == [
        ("the id '7' is already that of row 2",)
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
    assert posts[1].error is None and "several labels (x, y)" in posts[1].warnings[0]
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
def test_pictures_outside_are_left_out(tmp_path, cell):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "l.jpg").symlink_to("../x.jpg")
    path = table(folder, f"text,image\na,good.jpg|{cell}\n")
    (post,) = read_posts(path)
    assert post.images == (folder / "good.jpg",) and post.text == "a"
    assert post.error is None and "allow it with --allow-outside" in post.warnings[0]
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
    (post,) = read_posts(table(tmp_path, f'image\n"{cell}"\n'), allow_outside=True)
    assert "pictures on the web are not fetched" in post.error


@pytest.mark.parametrize("image", ["a\0b.jpg", "\ud800.jpg", 7, [["a"]], {"x": 1}])
def test_what_is_no_path_is_left_out(tmp_path, image):
    lines = [json.dumps({"text": text, "image": image}) for text in ("a", "")]
    used, bad = read_posts(table(tmp_path, "\n".join(lines), "p.jsonl"))
    assert used.error is None and used.text == "a" and used.images == bad.images == ()
    assert used.warnings == (bad.error,) and bad.warnings == ()


def test_image_folder(tmp_path):
    table(tmp_path, "file_name,text\nimg/a.jpg,hi\n", "metadata.csv")
    (post,) = read_posts(tmp_path)
    assert post.images == (tmp_path / "img/a.jpg",)
    table(tmp_path, "text\n二\n", "other.csv")
    assert read_posts(tmp_path) == [post], "the metadata alone"
    table(tmp_path, "{}", "metadata.jsonl")
    with pytest.raises(SgmftError, match=r"metadata\.csv and metadata\.jsonl"):
        read_posts(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SgmftError, match="without any of metadata"):
        read_posts(tmp_path / "empty")


# --- tables in parts, and pictures inside a table


def png(shade: int) -> bytes:
    data = BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(data, "PNG")
    return data.getvalue()


def test_a_folder_of_tables_is_read_as_one_in_the_order_of_their_names(tmp_path):
    table(tmp_path, '{"id": "1", "text": "三"}\n', "b.jsonl")
    table(tmp_path, "id,text,image\n1,一,\n2,二,../a.png\n", "a.csv")
    table(tmp_path, '{"text": "not a part"}\n', "_job.jsonl")
    table(tmp_path, '{"text": "not a part"}\n', ".b.jsonl")
    table(tmp_path, "not a part", "notes.txt")
    posts = read_posts(tmp_path)
    assert [post.text for post in posts] == ["一", "二", "三"]
    assert [post.place for post in posts] == ["a.csv, row 2", "a.csv, row 3", "b.jsonl, row 1"]
    assert posts[0].warnings == posts[2].warnings == (), "ids are unique within a file"
    assert "outside the table's folder" in posts[1].warnings[0]


def test_a_part_without_the_columns_is_named(tmp_path):
    table(tmp_path, "text\n一\n", "a.csv")
    table(tmp_path, "txt\n二\n", "b.csv")
    with pytest.raises(SgmftError, match=r"b\.csv has neither a text nor an image column"):
        read_posts(tmp_path)


@pytest.mark.parametrize("shape", ["bytes", "hugging face", "list"])
def test_pictures_inside_a_table_are_those_of_files(tmp_path, shape):
    datas = [png(shade) for shade in (10, 200)]
    for i, data in enumerate(datas):
        (tmp_path / f"{i}.png").write_bytes(data)
    lines = [json.dumps({"text": "家", "image": f"{i}.png"}) for i in (0, 1)]
    files = table(tmp_path, "\n".join(lines), "files.jsonl")
    cells = {
        "bytes": datas,
        "hugging face": [{"bytes": x, "path": f"there/{i}.png"} for i, x in enumerate(datas)],
        "list": [[x] for x in datas],
    }[shape]
    pq.write_table(pa.table({"text": ["家", "家"], "image": cells}), tmp_path / "inside.parquet")
    inside = read_posts(tmp_path / "inside.parquet")
    assert all(isinstance(post.images[0], Attachment) for post in inside)
    ours, theirs = (encode_all(posts, TinyEncoder()) for posts in (inside, read_posts(files)))
    assert ours.keys == theirs.keys
    assert (ours.features.image == theirs.features.image).all()


def test_rows_do_not_repeat_the_bytes_of_their_pictures(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": png(1), "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    columns = {"text": ["家", "校", "店"], "image": pa.array(cells, kind)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    posts = read_posts(tmp_path / "t.parquet")
    assert [post.row["image"] for post in posts] == ["a.png", cells[1], None]
    assert [post.images for post in posts] == [
        (Attachment(png(1), "a.png"),),
        (tmp_path / "b.png",),
        (),
    ]


def test_a_damaged_picture_inside_a_table_is_left_out(tmp_path):
    table = pa.table({"text": ["家", ""], "image": [b"no picture"] * 2})
    pq.write_table(table, tmp_path / "t.parquet")
    found = encode_all(read_posts(tmp_path / "t.parquet"), TinyEncoder())
    assert found.posts[0].warnings == (found.refused[0].error,)
    assert "picture" in str(found.refused[0].error)
