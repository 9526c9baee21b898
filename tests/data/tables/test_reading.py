import csv
import errno
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from sgmft.data.tables import (
    RawRow,
    RawTable,
    formats,
    iter_posts,
    open_table,
    open_writer,
    read_posts,
)
from sgmft.data.tables.base import TableFormat
from sgmft.data.tables.cells import replace_surrogates, says_nothing, to_text
from sgmft.errors import SgmftError, SgmftNotice, SgmftWarning

CHINESE = "text,label\n在电影院看电影，爆米花真香,Cinema\n上课中,School\n"


def table(tmp_path: Path, content: str | bytes, name: str = "posts.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- encodings and delimiters


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_encoding_is_found(tmp_path, encoding, suffix):
    content = CHINESE if suffix == "csv" else CHINESE.replace(",", "\t")
    posts = read_posts(table(tmp_path, content.encode(encoding), f"posts.{suffix}"))
    assert [post.label for post in posts] == ["Cinema", "School"]
    assert posts[0].text == "在电影院看电影，爆米花真香"
    assert posts[0].row == {"text": posts[0].text, "label": "Cinema"}


@pytest.mark.parametrize("header", ["id,text", '"id","text"'])
def test_a_mark_that_comes_twice(tmp_path, header):
    (post,) = read_posts(table(tmp_path, f"\ufeff\ufeff{header}\n1,a\n"))
    assert (post.id, post.text) == ("1", "a")


@pytest.mark.parametrize(
    "header",
    [
        *(
            "編號,內容,標籤,暱稱",
            "帖子ID,帖子内容,位置标签,使用者",
            "Post ID,Post Text,Label,User Name",
        ),
        *("ＩＤ,ｔｅｘｔ,ｌａｂｅｌ,ｕｓｅｒ", "编号(数字),正文（全文）,标签名称,作者名"),
        *("tweet-id,commentText,class_label,authorName", "帖子ID,貼文內容,類別,使用者名稱"),
        *("编号,博文内容,人工标注,发布者", "id,原文,地点类型,博主", "ID,texto,etiqueta,user"),
    ],
)
def test_names_of_columns_in_other_words_and_scripts(tmp_path, header):
    (post,) = read_posts(table(tmp_path, f"{header}\n1,在家,Home,u\n"))
    assert (post.id, post.text, post.label, post.user) == ("1", "在家", "Home", "u")


@pytest.mark.parametrize(
    "names", ["Image URL,img_path", "images/0,images/1", "image[0],image[1]", "图片地址1,图片地址2"]
)
def test_columns_of_pictures_by_part_of_their_names(tmp_path, names):
    path = table(tmp_path, f"text,{names},profile_image\na,1.jpg,2.jpg,3.jpg\n")
    first, second = names.split(",")
    with pytest.warns(SgmftNotice) as said:
        (post,) = read_posts(path)
    assert f"image is read from '{first}' and '{second}'" in str(said[0].message)
    assert [image.name for image in post.images] == ["1.jpg", "2.jpg"]


def test_a_title_is_part_of_the_text(tmp_path):
    rows = "周末,在家煮面\n,看电影\n下课,\n看电影,看电影真好\n"
    with pytest.warns(SgmftNotice, match="text is read from '内容' and '标题'"):
        posts = read_posts(table(tmp_path, f"标题,内容\n{rows}"))
    assert [x.text for x in posts] == ["周末\n在家煮面", "看电影", "下课", "看电影真好"]


@pytest.mark.parametrize(
    "row", ["下课铃一响大家都冲去食堂,Home", "1,0.jpg,家", "just went to the cinema"]
)
def test_a_table_without_a_header_is_told(tmp_path, row):
    with pytest.raises(SgmftError, match="If its first row is a post, put a row with the names"):
        read_posts(table(tmp_path, f"{row}\n{row}\n"))


ABOVE = "小王的数据,,,\n2025年9月,,,\n,,,\n"


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
@pytest.mark.parametrize("above", ["", ABOVE, "# exported\n"])
def test_notes_above_the_header_and_empty_cells_behind_rows(tmp_path, mark, name, above):
    text = f"{above}编号,正文,图片,标签\n1,在家,a.jpg,Home,\n2,上课,,School,,\n".replace(",", mark)
    first, second = read_posts(table(tmp_path, text, name))
    assert (first.id, first.text, first.label, first.error) == ("1", "在家", "Home", None)
    assert (second.text, second.images, second.error) == ("上课", (), None)
    assert first.row == {"编号": "1", "正文": "在家", "图片": "a.jpg", "标签": "Home"}


RECORDS = [{"text": "在家", "label": "Home"}, {"text": "上课", "label": "School"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({key: {str(i): x[key] for i, x in enumerate(RECORDS)} for key in RECORDS[0]}),
        json.dumps({key: [x[key] for x in RECORDS] for key in RECORDS[0]}),
        json.dumps({"hits": {"hits": [{"_id": "1", "_source": x} for x in RECORDS]}}),
        json.dumps({"features": [{"name": "text"}], "rows": [{"row": x} for x in RECORDS]}),
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=1),
        "".join(json.dumps(x) for x in RECORDS),
        "\n".join(json.dumps(x, indent=2) for x in RECORDS),
        "\n".join(json.dumps([x]) for x in RECORDS),
        ",\n".join(json.dumps(x) for x in RECORDS),
    ],
)
@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_json_in_other_shapes(tmp_path, text, name):
    if name == "p.jsonl" and text[:1] == "{" and "\n" not in text:
        pytest.skip("one line is one post")
    posts = read_posts(table(tmp_path, text, name))
    assert [{"text": x.text, "label": x.label} for x in posts] == RECORDS


def test_utf16_jsonl(tmp_path):
    path = table(tmp_path, '{"text": "回家"}\n{"text": "b"}\n'.encode("utf-16"), "posts.jsonl")
    assert [post.text for post in read_posts(path)] == ["回家", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_one_damaged_line_is_one_bad_row(tmp_path, encoding):
    path = table(tmp_path, CHINESE.encode(encoding) + "坏".encode(encoding)[:1] + b",Home\n")
    first, second, third = read_posts(path)
    assert first.text == "在电影院看电影，爆米花真香" and second.error is None
    assert "bytes that are no text" in third.error
    assert third.label == "Home" and third.row["text"] == "�"


def test_gb18030_comes_with_a_warning(tmp_path, recwarn):
    read_posts(table(tmp_path, CHINESE))
    assert not recwarn.list
    with pytest.warns(SgmftWarning, match=r"posts\.csv is not UTF-8 and is read as GB18030"):
        read_posts(table(tmp_path, CHINESE.encode("gb18030")))
    softbank = "text\n回家 \ue04a\n在电影院\n在学校\n"  # a private character is one damaged text
    with pytest.warns(SgmftWarning, match="read as GB18030"):
        posts = read_posts(table(tmp_path, softbank.encode("gb18030")))
    assert posts[0].text == "回家 \ue04a"


def test_windows_1252_comes_with_a_warning(tmp_path):
    text = "It’s “movie” night – at the Café"
    path = table(tmp_path, f"id,text\n1,{text}\n".encode("windows-1252"))
    with pytest.warns(SgmftWarning, match="is read as WINDOWS-1252"):
        assert [post.text for post in read_posts(path)] == [text]


def test_other_encodings_are_refused_with_the_line(tmp_path):
    with pytest.raises(SgmftError, match=r"line 2, is neither UTF-8 nor GB18030 nor Big5"):
        read_posts(table(tmp_path, b"text\n\xff\xff\n"))


TRADITIONAL = "text,label\n在電影院看電影，爆米花真香,Cinema\n圖書館裡大家都在複習,School\n"


@pytest.mark.parametrize("encoding", ["big5", "gb18030", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["posts.csv", "posts.jsonl"])
def test_encodings_without_a_mark_are_found_and_said(tmp_path, encoding, name):
    texts = ["在電影院看電影，爆米花真香", "圖書館裡大家都在複習", *["一開一關的門一直響" * 9] * 9]
    if name == "posts.csv":
        content = "text\n" + "\n".join(texts)
    elif encoding.startswith("utf"):
        content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    else:
        pytest.skip("JSON lines are UTF-8 or UTF-16")
    path = table(tmp_path, content.encode(encoding), name)
    with pytest.warns(SgmftWarning, match=f"is read as {encoding.upper()}"):
        assert [post.text for post in read_posts(path)] == texts


def test_the_line_for_excel_names_the_delimiter(tmp_path):
    for mark in ",;|\t":
        path = table(tmp_path, f"sep={mark}\r\nid{mark}text\r\n1{mark}在家, 看书; 好\r\n".encode())
        if mark in ",;":
            path = table(
                tmp_path, f'"sep={mark}"\nid{mark}text\n1{mark}"在家, 看书; 好"\n'.encode()
            )
        (post,) = read_posts(path)
        assert (post.id, post.text, post.place) == ("1", "在家, 看书; 好", "posts.csv, row 3")


def test_quotation_marks_escaped_by_backslashes(tmp_path):
    content = r"""id,text,label
1,"他说\"回家, 吃饭\"了",Home
2,"a\\b",Work
"""
    with pytest.warns(SgmftWarning, match="writes quotation marks inside texts as"):
        one, two = read_posts(table(tmp_path, content.encode()))
    assert (one.text, one.label, two.label) == ('他说"回家, 吃饭"了', "Home", "Work")


@pytest.mark.parametrize("cell", [r'"C:\d\"', r'"{""a"": ""say \""hi\""""}"', r"5\" x"])
def test_backslashes_before_ordinary_quotation_marks(tmp_path, recwarn, cell):
    one, two = read_posts(table(tmp_path, f"id,text\n1,{cell}\n2,b\n".encode()))
    assert one.text == next(csv.reader([cell]))[0] and two.text == "b" and not recwarn.list


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".jsonl"])
def test_a_name_too_long_for_the_system(tmp_path, name):
    with pytest.raises(SgmftError, match="cannot be read: File name too long"):
        read_posts(tmp_path / name)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_a_table_that_may_not_be_read(tmp_path, monkeypatch, suffix):
    path, real = table(tmp_path, "text\na\n", f"posts.{suffix}"), io.open

    def refuse(file, *args, **options):  # as the system does, but for the administrator
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(file, *args, **options)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr(pq, "read_metadata", refuse)
    with pytest.raises(SgmftError, match=rf"posts\.{suffix} cannot be read: Permission denied"):
        read_posts(path)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SgmftError, match="cannot be read: Permission denied"):
        read_posts(tmp_path)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_delimiter_is_sniffed(tmp_path, mark):
    posts = read_posts(table(tmp_path, f'id{mark}text\n1{mark}"a, b; c\td"\n'))
    assert posts[0].text == "a, b; c\td"


def test_big_cells_and_nul(tmp_path):
    posts = read_posts(table(tmp_path, f"text,id\n{'长' * 1_000_000},1\na\0b,2\n"))
    assert len(posts[0].text) == 1_000_000
    assert posts[1].text == "a\0b"


# --- rows


def test_rows_are_counted_as_records(tmp_path):
    path = table(tmp_path, 'text\n"two\nlines"\nb\n\nc\n')
    assert [(post.text, post.place) for post in iter_posts(path)] == [
        ("two\nlines", "posts.csv, row 2"),
        ("b", "posts.csv, row 3"),
        ("c", "posts.csv, row 5"),
    ]


def test_short_and_long_rows(tmp_path):
    short, long = read_posts(table(tmp_path, "text,label,user\na\nb,Home,u,x,y\n"))
    assert short.error is None and short.label is None
    assert short.row == {"text": "a", "label": None, "user": None}
    assert "5 cells where the header has 3" in long.error
    assert (long.text, long.label) == ("b", "Home")
    assert long.row["column 4"] == "x" and long.row["column 5"] == "y"


def test_unclosed_quotation_mark_is_a_bad_row(tmp_path):
    good, bad = read_posts(table(tmp_path, 'text,id\na,1\n"b,2\nc,3\n'))
    assert good.error is None
    assert "never closed" in bad.error and bad.row["text"] == "b,2\nc,3\n"
    (closed,) = read_posts(table(tmp_path, 'text,id\n"b\n",2'))
    assert closed.error is None


def test_unnamed_and_doubled_columns(tmp_path):
    (post,) = read_posts(table(tmp_path, ",text\n0,a\n"))
    assert post.row == {"column 1": "0", "text": "a"}
    assert read_posts(table(tmp_path, "text,label\n")) == []
    twice = table(tmp_path, "text,image,image,text,,text 2\na,b.jpg,c.jpg,d,e,f\n")
    with pytest.warns(SgmftWarning, match="are read as image 2, text 2, text 2 2"):
        (post,) = read_posts(twice)
    assert [image.name for image in post.images] == ["b.jpg", "c.jpg"]
    assert [*post.row.values()] == ["a", "b.jpg", "c.jpg", "d", "e", "f"]


def test_a_header_of_very_many_columns_is_read_at_once(tmp_path):
    many = table(tmp_path, f"text{',' * 30_000}{',x' * 30_000}\na{',y' * 60_002}\n")
    with pytest.warns(SgmftWarning, match="are read as x 2, x 3, .*, x 10, …"):
        (post,) = read_posts(many)
    assert (post.text, post.row["column 3"], post.row["x 30000"]) == ("a", "y", "y")
    assert len(post.row) == 60_003 and "60003 cells" in post.error


def test_json_lines_in_gb18030(tmp_path):
    path = table(tmp_path, '{"text": "在家煮了面"}\n{"text": "b"}\n'.encode("gb18030"), "p.jsonl")
    with pytest.warns(SgmftWarning, match="is read as GB18030"):
        assert [post.text for post in read_posts(path)] == ["在家煮了面", "b"]


def test_a_line_that_holds_posts_is_no_post(tmp_path):
    page = {"code": 200, "message": "ok", "data": [{"text": "a"}]}
    own = {"content": "b", "cited": [{"name": "c"}], "replies": [{"text": "d"}]}
    posts = read_posts(table(tmp_path, "\n".join(map(json.dumps, [page, own])), "p.jsonl"))
    assert "the records under data are not read: give each a line" in str(posts[0].error)
    assert posts[1].text == "b" and not posts[1].error


def test_pages_of_posts_in_lines(tmp_path):
    pages = [{"data": [{"text": x} for x in texts], "meta": {}} for texts in ("ab", "c")]
    posts = read_posts(table(tmp_path, "\n".join(map(json.dumps, pages)), "p.jsonl"))
    assert [(x.text, x.place) for x in posts] == [
        ("a", "p.jsonl, row 1"),
        ("b", "p.jsonl, row 1"),
        ("c", "p.jsonl, row 2"),
    ]


def test_bad_json_lines(tmp_path):
    lines = ['{"text": "a", "id": 1}', '{"text": ', "[1]", "", '{"id": true, "text": 7.0}']
    path = table(tmp_path, "\n".join(lines).encode() + b'\n{"text": "\xff"}\n', "p.jsonl")
    posts = read_posts(path)
    assert [post.place.rpartition(" ")[2] for post in posts] == ["1", "2", "3", "5", "6"]
    assert posts[1].error.startswith("not JSON") and posts[1].row == {"line": '{"text": '}
    assert "not an object" in posts[2].error
    assert (posts[3].id, posts[3].text, posts[3].error) == ("true", "7", None)
    assert "bytes that are no text" in posts[4].error


def test_json_lines_may_begin_with_bad_rows_and_gain_columns(tmp_path):
    path = table(tmp_path, 'oops\n{"id": 1}\n{"text": "a"}\n' + "[" * 200_000 + "\n", "p.jsonl")
    assert [post.error is None for post in read_posts(path)] == [False, False, True, False]
    assert len(read_posts(table(tmp_path, "oops\n", "bad.jsonl"))) == 1


def test_json_lines_are_read_lazily(tmp_path):
    path = table(tmp_path, '{"text": "a"}\n' * 3, "p.jsonl")
    rows = open_table(path).rows
    assert next(rows).number == 1
    posts = iter_posts(path)
    assert next(posts).text == "a"
    posts.close()


def test_standard_input(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO('{"text": "家", "image": "a.jpg"}\n'.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    monkeypatch.chdir(tmp_path)
    (post,) = read_posts("-")
    assert post.images == (Path("a.jpg"),) and post.place == "standard input, row 1"
    assert not stream.buffer.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(SgmftError, match="standard input is empty"):
        read_posts("-")


def test_plain_json_list(tmp_path):
    path = table(tmp_path, json.dumps([{"text": "a", "id": 3}, 5, {"id": 4}]), "p.json")
    first, second, third = read_posts(path)
    assert first.id == "3" and first.error is None
    assert "not an object" in second.error and second.row == {"line": "5"}
    assert third.error == "nothing to go on: no text and no picture"
    (one,) = read_posts(table(tmp_path, '{"text": "a", "images": ["x.jpg"]}', "p.json"))
    assert one.text == "a" and one.images == (tmp_path / "x.jpg",)


# --- Parquet


def test_parquet_values_and_row_numbers(tmp_path):
    path = tmp_path / "p.parquet"
    columns = {
        "text": ["a", None, "c"],
        "id": [7.0, 8.5, None],
        "image": [["x.jpg", "y.jpg"], [], None],
        "label": [True, None, False],
    }
    pq.write_table(pa.table(columns), path)
    first, second, third = read_posts(path)
    assert (first.id, first.label, len(first.images)) == ("7", "true", 2)
    assert second.error.startswith("nothing to go on") and second.place == "p.parquet, row 2"
    assert third.id is None and third.label == "false"


def test_parquet_text_that_is_not_utf8_is_one_bad_row(tmp_path):
    broken = pa.array([b"ok", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"text": broken}), tmp_path / "p.parquet")
    good, bad = read_posts(tmp_path / "p.parquet")
    assert good.text == "ok" and "not UTF-8" in bad.error


@pytest.mark.parametrize("cut", [3, 10, -9])
def test_damaged_parquet(tmp_path, cut):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"text": ["a"] * 100}), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SgmftError, match="damaged Parquet"):
        read_posts(path)


# --- the registry of formats


def test_a_new_format_is_one_line_in_the_registry(tmp_path, monkeypatch):
    def read(path: Path) -> RawTable:
        rows = [RawRow(i, {"text": line}) for i, line in enumerate(path.read_text().split(), 1)]
        return RawTable(path.name, path.parent, ["text"], iter(rows))

    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, TableFormat((".txt",), read)))
    path = table(tmp_path, "one\ntwo\n", "P.TXT")
    assert [post.text for post in read_posts(path)] == ["one", "two"]
    with pytest.raises(SgmftError, match="no table sgmft can write"), open_writer(path, ["text"]):
        pass


def test_suffixes_of_the_formats():
    assert formats.STREAMED == (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
    assert (*formats.STREAMED, ".xlsx") == formats.WRITABLE
    only_read = {".json", ".sqlite", ".sqlite3", ".db"}
    assert {*formats.WRITABLE, *only_read} == {*formats.READABLE}


# --- broken tables


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "There is no file"),
        ("e.csv", "", "is empty"),
        ("e.jsonl", "", "is empty"),
        ("blank.csv", "\n\n", "is empty"),
        ("blank.jsonl", "\n \n", "is empty"),
        ("e.parquet", "", "is empty"),
        ("p.xls", "x", r"use one of \.csv.* save an old workbook as \.xlsx"),
        ("p.xlsx", "x", r"is no \.xlsx workbook"),
        ("p.db", "text\na\n", "is no SQLite database"),
        ("p.json", "{", "not valid JSON"),
        ("o.json", "5", "not a list"),
        ("o.json", '{"a": 1}', "neither a text nor an image column"),
        ("q.csv", '"text\na\n', "never closed"),
        ("h.csv", b"\xff\xfet\0e\0x\0t\0\n\0\x00\xd8", "not valid utf-16"),
    ],
)
def test_broken_tables(tmp_path, name, content, message):
    path = tmp_path / name if content is None else table(tmp_path, content, name)
    with pytest.raises(SgmftError, match=message) as caught:
        read_posts(path)
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    records=st.lists(
        st.fixed_dictionaries(
            {"text": json_values},
            optional=dict.fromkeys(("image", "images", "id", "label", "user"), json_values),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_record_comes_back(tmp_path, records):
    path = table(tmp_path, "\n".join(map(json.dumps, records)), "p.jsonl")
    posts = read_posts(path)
    assert len(posts) == len(records)
    for post, record in zip(posts, records, strict=True):
        assert json.dumps(post.row) == json.dumps(record)
        if isinstance(record["text"], str) and not says_nothing(record["text"]):
            assert post.text == record["text"]
        assert all(file.resolve().is_relative_to(tmp_path.resolve()) for file in post.images)
    ids = [post.id for post in posts if post.id and not (post.error or post.warnings)]
    assert len(set(ids)) == len(ids)


@given(st.text(st.characters(), max_size=20))
def test_replaced_surrogates_can_be_encoded(text):
    replace_surrogates(text).encode()


def test_replace_surrogates():
    assert replace_surrogates("a\ud800b\udc00c\ud800") == "a�b�c�"
    assert replace_surrogates("\ud83d\ude00") == "😀"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (7.0, "7"), (0.1, "0.1"), (1e300, "1e+300"), (float("nan"), ""), (b"x", "x")],
)
def test_to_text(value, text):
    assert to_text(value) == text


def test_no_cell_is_lost_where_columns_of_two_headers_share_a_name(tmp_path):
    table = tmp_path / "posts.csv"
    table.write_text("text,image,id,label\na,,1,Home\nname,label,id\nb,Work,2,left,over\n", "utf-8")
    with pytest.warns(SgmftWarning, match="other headers"):
        *_, post = read_posts(table)
    assert {"b", "Work", "2", "left", "over"} <= {*post.row.values()} and post.error


def test_a_path_of_very_many_folders_leads_nowhere(tmp_path):
    (tmp_path / "posts.csv").write_text(f"text,image\na,{'d/' * 900}b.png\n", "utf-8")
    (post,) = read_posts(tmp_path / "posts.csv")
    assert (post.error, post.text) == (None, "a")


def test_utf8_with_nuls_is_no_utf16(tmp_path):
    (tmp_path / "posts.tsv").write_text("text\tuser\n在家\t\0u\n\0b\t\0c\n\0d\t\0e\n", "utf-8")
    assert len(read_posts(tmp_path / "posts.tsv")) == 3
