import base64
import json
import re
import unicodedata
import warnings
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, strategies as st
from PIL import Image

from sgmft.data.posts import Attachment, Post
from sgmft.data.tables import Columns, RawTable, iter_posts, read_posts
from sgmft.data.tables.cells import says_nothing
from sgmft.data.tables.images import parse_image_cell
from sgmft.data.tables.paths import PathResolver
from sgmft.errors import SgmftError, SgmftNotice, SgmftWarning
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
        ("[]", []),
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


def picture(folder: Path, name: str) -> str:
    """Put a picture there, and return its name."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(folder / name, "PNG")
    return name


def read_cell(tmp_path: Path, cell: object) -> Post:
    (post,) = read_posts(table(tmp_path, json.dumps({"text": "t", "image": cell}), "p.jsonl"))
    return post


@pytest.mark.parametrize(
    "cell",
    [
        "['p/a.jpg', 'p/b 2.png']",
        "[\"p/a.jpg\", 'p/b 2.png']",
        "['p/a.jpg' 'p/b 2.png']",
        "['p/a.jpg'\n 'p/b 2.png']",
        "array(['p/a.jpg', 'p/b 2.png'], dtype=object)",
        "array(['p/a.jpg', 'p/b 2.png'], dtype='<U9')",
        "{'p/a.jpg', 'p/b 2.png'}",
        "Index(['p/a.jpg', 'p/b 2.png'], dtype='object')",
        "[PosixPath('p/a.jpg'), PosixPath('p/b 2.png')]",
        "frozenset({'p/a.jpg', 'p/b 2.png'})",
        "(p/a.jpg, p/b 2.png)",
        "'p/a.jpg','p/b 2.png'",
        "'p/a.jpg';'p/b 2.png'",
        "[np.str_('p/a.jpg'), np.str_('p/b 2.png')]",
        "('p/a.jpg', 'p/b 2.png',)",
        "['p\\\\a.jpg', None, nan, 'p/b 2.png']",
        "[p/a.jpg, p/b 2.png]",
        "p/a.jpg;p/b 2.png",
        "p/a.jpg；p/b 2.png；",
        "p/a.jpg, p/b 2.png",
        "p/a.jpg，p/b 2.png",
        "p/a.jpg\r\np/b 2.png",
        " p/a.jpg | 'p/b 2.png' ",
    ],
)
def test_lists_of_pictures_as_people_write_them(tmp_path, cell):
    with (
        pytest.warns(SgmftWarning, match=r"p\.jsonl, understood by a guess: 1 x ")
        if ("|" not in cell)
        else nullcontext()
    ):
        post = read_cell(tmp_path, cell)
    assert post.error is None
    assert list(post.images) == [tmp_path / "p/a.jpg", tmp_path / "p/b 2.png"]


@pytest.mark.parametrize(
    "name", ["a, b.jpg", "a;b.jpg", "[1].jpg", "['x.jpg']", "a.jpg,b.jpg", "x y.jpg", "nan", "-"]
)
def test_names_of_files_that_are_there_are_not_taken_apart(tmp_path, recwarn, name):
    assert read_cell(tmp_path, picture(tmp_path, name)).images == (tmp_path / name,)
    assert not recwarn.list


@pytest.mark.parametrize(
    "cell",
    [
        *("d/a.jpg & d/b.png", "d/a.jpg#d/b.png", "<d/a.jpg> <d/b.png>", "【d/a.jpg】【d/b.png】"),
        *("![](d/a.jpg) ![x](d/b.png)", '<img src="d/a.jpg"><img src="d/b.png">'),
        *(
            "1. d/a.jpg 2. d/b.png",
            "d/a.jpg（封面）,d/b.png",
            "d/a.jpg','d/b.png",
            "“d/a.jpg” d/b.png",
        ),
        *("\u202ad/a.jpg d/b.png", "d/a.jpg,nan,d/b.png", "d/a.jpg!large d/b.png"),
        *('[{"file_name": "d/a.jpg"}, {"url": "d/b.png"}]', "here/d/a.jpg|D/b.PNG"),
    ],
)
def test_names_of_pictures_among_other_words(tmp_path, cell):
    there = [tmp_path / "here" / picture(tmp_path / "here", x) for x in ("d/a.jpg", "d/b.png")]
    path = table(tmp_path / "here", json.dumps({"text": "t", "image": cell}), "p.jsonl")
    (post,) = read_posts(path)
    assert (list(post.images), post.warnings) == (there, ())
    lost = cell.replace("b.", "c.")
    (post,) = read_posts(
        table(tmp_path / "here", json.dumps({"text": "t", "image": lost}), "p.jsonl")
    )
    assert not all(image.exists() for image in post.images), "and so it is told"


@pytest.mark.parametrize("mark", [";", ", ", "，", " ", "|"])
def test_files_behind_an_address_are_read(tmp_path, mark):
    name = picture(tmp_path, "c.jpg")
    post = read_cell(tmp_path, f"https://x.cn/b.jpg?x=1{mark}{name}")
    assert post.images == (tmp_path / name,) and "not fetched" in post.warnings[0]


@pytest.mark.parametrize("cell", ["1, 2.jpg", "Mr. Bean, 3.jpg", "a b.jpg c.jpg", "[微笑]", "a;b"])
def test_what_may_be_one_name_is_one(tmp_path, recwarn, cell):
    assert read_cell(tmp_path, cell).images == (tmp_path / cell,)
    assert not recwarn.list


@pytest.mark.parametrize(
    "cell",
    [
        *("['a.jpg' ... 'z.jpg']", "['a.jpg', b.jpg", "[{'a': 'b'}]", '[["b.jpg"]]'),
        *('["a.jpg","b.jpg"', "array(['a.jpg', 'b", "[a.jpg, b.jp"),
    ],
)
def test_lists_that_are_not_understood_are_said(tmp_path, cell):
    post = read_cell(tmp_path, cell)
    assert post.images in ((), (tmp_path / cell,))  # the latter is missing when it is opened
    assert post.images or "image" in post.warnings[0]


NOTHING = [
    "nan",
    "NaN",
    "None",
    "NULL",
    "\\N",
    "无",
    "暂无",
    "-",
    "[ ]",
    "<NA>",
    "",
    " ",
    "[None]",
    "/",
    "''",
    "None,None",
    "#REF!",
]


@pytest.mark.parametrize("cell", NOTHING)
def test_words_for_nothing_are_no_picture(tmp_path, cell):
    with pytest.warns(SgmftWarning, match="1 x") if cell.strip() else nullcontext():
        post = read_cell(tmp_path, cell)
    assert (post.images, post.error) == ((), None)


def test_words_for_nothing_in_other_columns(tmp_path):
    path = table(tmp_path, "text,id,label,user\nnan,NULL,nan,无\nNone,\\N,NA,-\n家,None,无,a\n")
    with pytest.warns(SgmftWarning, match="2 x a word for nothing in the column 'text'"):
        first, second, third = read_posts(path)
    assert (first.text, first.id, first.label, first.user) == ("", None, None, None)
    assert first.error is second.error == "nothing to go on: no text and no picture"
    assert (third.id, third.label) == (None, "无"), "such a label may be meant"


def test_spaces_around_values(tmp_path):
    path = table(tmp_path, "text,id,label,user\na, 1, Home,\u3000u \nb,1 ,Home,u\n")
    with pytest.warns(SgmftWarning, match="1 x spaces around the label, left out"):
        first, second = read_posts(path)
    assert (first.label, first.user, first.id) == ("Home", "u", "1")
    assert "'1' is already that of row 2" in second.warnings[0]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "cell",
    ["ä/é 1.jpg", "ä/é%201.jpg", "%C3%A4/%C3%A9%201.JPG", "ä\\é 1.jpg?x=1", "file:ä/é%201.jpg"],
)
def test_paths_in_another_spelling(tmp_path, form, cell):
    name = picture(tmp_path, unicodedata.normalize(form, "ä/é 1.jpg"))
    for other in ("NFC", "NFD"):
        post = read_cell(tmp_path, unicodedata.normalize(other, cell))
        assert post.images == (tmp_path / name,) and post.images[0].exists()


def test_a_spelling_that_several_files_have_is_not_guessed(tmp_path, recwarn):
    for name in ("a.jpg", "A.jpg"):
        picture(tmp_path, name)
    assert read_cell(tmp_path, "a.JPG").images == (tmp_path / "a.JPG",)
    assert not recwarn.list


@pytest.mark.parametrize("root", ["C:\\Users\\me\\", "/home/somebody/", "file:///home/somebody/"])
def test_paths_of_another_computer(tmp_path, root):
    picture(tmp_path, "u1/0.jpg")
    picture(tmp_path, "0.jpg")
    cells = [f"{root}u1/0.jpg", f"{root}u2/0.jpg", "C:/Windows/win.jpg"]
    lines = "\n".join(json.dumps({"image": cell}) for cell in cells)
    with pytest.warns(SgmftWarning, match="1 x .*, a folder of another computer"):
        first, second, third = read_posts(table(tmp_path, lines, "p.jsonl"))
    assert first.images == (tmp_path / "u1/0.jpg",)
    assert "is a path of another computer" in second.error, "not the 0.jpg that is there"
    assert "is a path of another computer" in third.error


def test_pictures_in_the_cells_of_text(tmp_path):
    data = png(3)
    coded = base64.b64encode(data).decode()
    broken = "\n".join(coded[i : i + 76] for i in range(0, len(coded), 76))
    cells = {
        f"data:image/png;base64,{coded}": 1,
        f"DATA:image/png;base64,{broken}": 1,
        coded: 1,
        coded.rstrip("="): 1,
        broken: 1,
        json.dumps([f"data:image/png;base64,{coded}"] * 2): 2,
        f"data:image/png;base64,{coded};data:image/png;base64,{coded}": 2,
        repr({"bytes": data, "path": None}): 1,
        repr({"bytes": data, "path": "a'b.png"}): 1,
    }
    for cell, count in cells.items():
        post = read_cell(tmp_path, cell)
        assert post.error is None and [image.data for image in post.images] == [data] * count, cell
    assert "is not valid Base64" in read_cell(tmp_path, "data:image/png;base64,%%%").warnings[0]


def test_pictures_of_several_columns_are_taken_together(tmp_path):
    path = table(
        tmp_path,
        "text,image,images,Image_2,图片1,image_width\nt,a.jpg,a.jpg|b.jpg,c.jpg,d.jpg,640\nu,,,,,\n",
    )
    first, second = read_posts(path)
    assert [image.name for image in first.images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert (second.images, second.error) == ((), None)
    (named, _) = read_posts(path, columns=Columns(image="Image_2"))
    assert [image.name for image in named.images] == ["c.jpg"]


def test_a_column_of_pictures_that_is_not_read_is_said(tmp_path, recwarn):
    read_posts(table(tmp_path, "text,上传,note\na,x/1.jpg,see b.com\nb,['2.PNG'],\n"))
    (warned,) = recwarn.list
    assert "the column '上传' seems to hold pictures and is not read" in str(warned.message)
    assert "--column image=上传" in str(warned.message)


@pytest.mark.parametrize("name", ["7.jpg", "images/7.png"])
def test_pictures_that_only_their_names_tie_to_posts_are_said(tmp_path, recwarn, name):
    picture(tmp_path, name)
    read_posts(table(tmp_path, "id,text\n6,a\n7,b\n"))
    (warned,) = recwarn.list
    assert f"{name} seems to be of a post by its id: name such files in" in str(warned.message)
    recwarn.clear()
    read_posts(table(tmp_path, "id,text,image\n7,b,\n"))
    assert not recwarn.list


def test_a_column_of_texts_that_is_not_read_is_said(tmp_path, recwarn):
    read_posts(table(tmp_path, "image,说的话,n\na.jpg,今天在家做饭，真好吃,1\nb.jpg,,2\n"))
    (warned,) = recwarn.list
    assert "'说的话' seems to hold texts and is not read; see --column text=说的话" in str(
        warned.message
    )
    recwarn.clear()
    read_posts(table(tmp_path, "image,text,title\na.jpg,在家,今天在家做饭，真好吃\n"))
    assert not recwarn.list, "there is another"


@pytest.mark.parametrize("cell", ["['Home']", '["Home"]', ["Home"], {"$name": "Home"}])
def test_a_label_in_a_list_is_that_label(tmp_path, cell):
    (post,) = read_posts(table(tmp_path, json.dumps({"text": "t", "label": cell}), "p.jsonl"))
    assert (post.label, post.warnings) == ("Home", ())


@pytest.mark.parametrize(
    ("cell", "label"),
    [("[]", None), ("家\u200b", "家"), ("1.0", "1"), ("1.5", "1.5"), ("-1", "-1")],
)
def test_labels_as_programs_write_them(tmp_path, cell, label):
    (post,) = read_posts(table(tmp_path, f"id,text,label\n7.0,t,{cell}\n"))
    assert (post.id, post.label) == ("7", label)


def test_names_of_classes_win_over_their_numbers_beside_them(tmp_path):
    first, second = read_posts(table(tmp_path, "text,label,label_text\na,0,家\nb,1,\n"))
    assert (first.label, second.label) == ("家", "1")


def test_a_list_of_objects_as_python_writes_it(tmp_path):
    names = [picture(tmp_path, "a.png"), picture(tmp_path, "b.png")]
    with pytest.warns(SgmftNotice, match="1 x a list as Python or NumPy writes it"):
        post = read_cell(tmp_path, repr([{"path": name, "id": None} for name in names]))
    assert [image.name for image in post.images] == names


@pytest.mark.parametrize("user", [{"id": 7, "screen_name": "u"}, {"userName": "u"}, {"name": "u"}])
def test_the_name_of_a_user_who_is_an_object(tmp_path, user):
    (post,) = read_posts(table(tmp_path, json.dumps({"text": "t", "user": user}), "p.jsonl"))
    assert (post.user, post.warnings) == ("u", ())


WORDS = st.sampled_from(["a.jpg", "b c.png", "é.JPG", "d/e.webp", "x,y.jpg", "无.jpg", "[1].gif"])


@given(names=st.lists(WORDS, min_size=2, max_size=4), write=st.sampled_from([repr, json.dumps]))
def test_no_picture_of_a_list_is_lost(tmp_path_factory, names, write):
    folder = tmp_path_factory.mktemp("lists")
    files = PathResolver(RawTable("t", folder, None, iter(())))
    written = [write(names), str(tuple(names)), " ".join(map(repr, names)).join("[]")]
    for cell in (*written, str(np.array(names))):
        assert parse_image_cell(cell, files) == names, cell
    plain = [name for name in names if "," not in name]
    for mark in ("|", ";", "；", "，", ", ", "\n"):
        assert parse_image_cell(mark.join(plain), files) == plain


@given(cell=st.text(st.sampled_from("a.jpg[]()'\",;| \\{}x:/%b9N"), max_size=24))
@example("9|[9]")
@example("Na|9")
@example("9('9'")
def test_any_cell_is_read_or_refused_with_a_reason(tmp_path_factory, cell):
    folder = tmp_path_factory.getbasetemp()
    files = PathResolver(RawTable("t", folder, None, iter(())))
    try:
        found = parse_image_cell(cell, files)
    except ValueError as error:
        assert str(error)
    else:
        shown = "".join(x if isinstance(x, str) else "" for x in found)
        parts = [x for x in re.split("[|;,]", cell) if not says_nothing(x)]  # NaN is no picture
        letters = [c for c in "".join(parts) if c.isalnum()]
        lost = len(letters) - sum(c.isalnum() for c in shown) - cell.count("\\") * 5
        assert not found or files.refused or lost <= 0


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


@pytest.mark.parametrize("cell", ["http://x.cn/a.jpg", "HTTPS://x.cn/a.jpg", "//x.cn/a.jpg"])
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


def test_image_folders_of_splits(tmp_path):
    for split in ("test", "train"):
        (tmp_path / split).mkdir()
        table(tmp_path / split, f"file_name,text,label\n1.jpg,{split},Home\n", "metadata.csv")
        picture(tmp_path, f"{split}/1.jpg")
    posts = read_posts(tmp_path)
    assert [(post.text, post.label, post.images[0].parent.name) for post in posts] == [
        ("test", "Home", "test"),
        ("train", "Home", "train"),
    ]


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


def test_classes_of_a_hugging_face_table_have_their_names(tmp_path):
    about = {"info": {"features": {"label": {"names": ["Home", "School"], "_type": "ClassLabel"}}}}
    columns = pa.table({"text": ["a", "b", "c", "d"], "label": pa.array([1, 0, -1, 7])})
    described = columns.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(described, tmp_path / "t.parquet")
    posts = read_posts(tmp_path / "t.parquet")
    assert [post.label for post in posts] == ["School", "Home", None, "7"]
    assert posts[0].row["label"] == "School"
    about["info"]["features"] = {"place": about["info"]["features"]["label"]}
    renamed = columns.rename_columns(["text", "place"])
    renamed = renamed.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(renamed, tmp_path / "t.parquet")
    assert read_posts(tmp_path / "t.parquet")[0].label == "School", "the only such column"
    for damaged in (b"{", b"[]", b'{"info": {"features": {"label": 3}}}'):
        pq.write_table(
            columns.replace_schema_metadata({"huggingface": damaged}), tmp_path / "t.parquet"
        )
        assert read_posts(tmp_path / "t.parquet")[0].label == "1"


def test_what_a_prediction_says_of_pictures_is_no_picture(tmp_path):
    row = "a text,,there is no file a.jpg,b.jpg"
    path = table(tmp_path, f"text,images,warning,error\n{row}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (post,) = read_posts(path)
    assert (post.images, post.error) == ((), None)


def test_what_a_model_predicted_is_not_read_with_the_posts(tmp_path):
    table(tmp_path, "id,text,category\n1,at home,Home\n")
    made = "id,text,label,probability,error,warning,p_Home\n1,at home,Home,0.9,,,0.9\n"
    (tmp_path / "labelled.csv").write_text(made)
    with pytest.warns(SgmftNotice, match=r"labelled\.csv not read"):
        (post,) = read_posts(tmp_path)
    assert post.label == "Home" and post.place.startswith("posts.csv")
    (tmp_path / "posts.csv").unlink()  # alone they are what there is
    assert len(read_posts(tmp_path)) == 1


def test_a_workbook_beside_a_table_is_named(tmp_path):
    table(tmp_path, "id,text\n1,at home\n")
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    book = openpyxl.Workbook()
    for row in (["id", "text"], ["2", "at school"]):
        book.active.append(row)
    book.save(tmp_path / "more.xlsx")
    with pytest.warns(SgmftNotice, match=r": more\.xlsx not read; give the path"):
        assert [post.id for post in read_posts(tmp_path)] == ["1"]
