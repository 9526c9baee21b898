"""Excel workbooks and SQLite databases, in which there may be several tables."""

import datetime
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from openpyxl import Workbook, load_workbook

from sgmft.data.tables import open_table, open_writer, read_posts
from sgmft.errors import SgmftError, SgmftWarning

ID = "1960000000000000001"
texts = st.text(max_size=12) | st.sampled_from(
    ["=1+1", '=HYPERLINK("http://x","y")', "+1", "@a", ID, "1e5", "TRUE", "2025-09-01", "a\nb", " "]
)


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_a_table(tmp_path: Path) -> None:
    rows = [[], ["id", "微博正文", None, "label", "when", "n"]]
    rows += [[ID, "在家", "x", "Home", datetime.datetime(2025, 9, 1, 12), 5012345678901234], []]
    rows += [["2", "看电影", None, None, None, None, "surplus"]]
    path = workbook(tmp_path / "p.xlsx", Sheet1=rows)
    first, second = read_posts(path)
    assert (first.id, first.text, first.label) == (ID, "在家", "Home")
    assert first.row["column 3"] == "x" and str(first.row["when"]) == "2025-09-01 12:00:00"
    assert first.row["n"] == 5012345678901234
    assert first.place == "p.xlsx, row 3" and second.place == "p.xlsx, row 5"
    assert second.row["column 7"] == "surplus"
    assert [post.text for post in read_posts(tmp_path)] == ["在家", "看电影"], "alone in a folder"


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("yyyy/m/d", "2025-09-01"),
        ("YYYY\\-MM\\-DD", "2025-09-01"),
        ('[$-x-sysdate]dddd, mmmm dd "hs"', "2025-09-01"),
        ("yyyy-mm-dd h:mm", "2025-09-01 00:00:00"),
        ("YYYY-MM-DD HH:MM:SS", "2025-09-01 00:00:00"),
    ],
)
def test_a_day_is_no_midnight(tmp_path: Path, style: str, text: str) -> None:
    path = workbook(tmp_path / "p.xlsx", a=[["text", "time"], ["a", 1], ["b", 1]])
    book = load_workbook(path)
    for row, hour in ((2, 0), (3, 8)):
        cell = book["a"].cell(row, 2, datetime.datetime(2025, 9, 1, hour))
        cell.number_format = style
    book.save(path)
    assert [post.time for post in read_posts(path)] == [text, "2025-09-01 08:00:00"]


def test_a_title_above_the_header(tmp_path: Path) -> None:
    rows = [["2025年9月微博数据"], [], ["id", "正文"], ["1", "在家"]]
    (post,) = read_posts(workbook(tmp_path / "p.xlsx", a=rows))
    assert (post.id, post.text, post.place) == ("1", "在家", "p.xlsx, row 4")
    (tmp_path / "Thumbs.db").write_bytes(b"of Windows")
    assert len(read_posts(tmp_path)) == 1
    path = workbook(tmp_path / "q.xlsx", a=[["a", "b"], *([i, i] for i in range(30))])
    with pytest.raises(SgmftError, match=r"neither a text nor an image column.*a, b"):
        read_posts(path)


def test_merged_cells_have_one_value(tmp_path: Path) -> None:
    rows = [["编号", "正文", "图片", None, "标签"], [None, None, "图1", "图2", None]]
    rows += [["1", "在家", "a.jpg", "b.jpg", "Home"], ["2", "做饭", "c.jpg", None, None]]
    rows += [["3", "上课", "d.jpg", None, "School"], [None, None, "e.jpg", None, None]]
    path = workbook(tmp_path / "p.xlsx", a=rows)
    book = load_workbook(path)
    for cells in ("A1:A2", "B1:B2", "C1:D1", "E1:E2", "E3:E4", "A5:A6", "B5:B6", "E5:E6"):
        book.active.merge_cells(cells)
    book.save(path)
    with pytest.warns(SgmftWarning, match="other headers, by which rows below are read"):
        posts = read_posts(path)
    assert [post.label for post in posts] == ["Home", "Home", "School", "School"]
    assert [post.text for post in posts] == ["在家", "做饭", "上课", "上课"]
    assert [len(post.images) for post in posts] == [2, 1, 1, 1]
    assert "'3' is already that of row 5" in posts[3].warnings[0]


def test_a_post_that_holds_the_name_of_a_column_is_no_header(tmp_path: Path) -> None:
    rows = [[None, "编号", "帖", "类型"], [0, "1", "在家", "视频"], [1, "2", "电影", "图片"]]
    with pytest.raises(SgmftError, match=r"neither a text nor an image column.*编号, 帖, 类型"):
        read_posts(workbook(tmp_path / "p.xlsx", a=rows))
    rows = [["导出", "今天"], ["序号", "阅读", "正文", "点赞", "转发"], [1, 2, "在家", 3, 4]]
    assert [post.text for post in read_posts(workbook(tmp_path / "q.xlsx", a=rows))] == ["在家"]


@pytest.mark.parametrize("key", [5.01234567890123e18, 5.012345678901235e18, 50123456789012345.0])
def test_ids_that_are_rounded_numbers(tmp_path: Path, key: float) -> None:
    (post,) = read_posts(workbook(tmp_path / "p.xlsx", a=[["id", "text"], [key, "a"]]))
    assert any("was rounded" in str(x) for x in post.warnings)


def test_hidden_sheets_and_comments_are_not_read(tmp_path: Path) -> None:
    sheet = [["id", "text"], ["1", "a"]]
    path = workbook(tmp_path / "p.xlsx", 数据=sheet, old=[*sheet, ["2", "b"]], 评论=sheet)
    book = load_workbook(path)
    book["old"].sheet_state = "hidden"
    book.save(path)
    with pytest.warns(SgmftWarning) as said:
        assert [post.text for post in read_posts(path)] == ["a"]
    told = " ".join(str(x.message) for x in said)
    assert "hidden are not read: old" in told and "评论 not read" in told
    assert read_posts(path / "评论")


def test_sheets_with_posts_are_read_one_after_another(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "p.xlsx",
        notes=[["remark"], ["n/a"]],
        train=[["text"], ["a"]],
        test=[["text", "split"], ["b", "x"]],
    )
    assert [post.text for post in read_posts(path)] == ["a", "b"]
    (post,) = read_posts(path / "test")
    assert post.place == "p.xlsx/test, row 2"
    with pytest.raises(SgmftError, match="has no sheet other"):
        read_posts(path / "other")


@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore::sgmft.errors.SgmftWarning")  # of characters it has not
def test_texts_come_back_as_texts(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "o.xlsx"
    with open_writer(path, ["text", "id"]) as writer:
        writer.write([dict(zip(("text", "id"), row, strict=True)) for row in rows])
    sheet = load_workbook(path).active
    found = [[(cell.value or "", cell.data_type) for cell in row] for row in sheet.iter_rows(2)]
    for cells, row in zip(found, rows, strict=True):
        for (value, kind), text in zip(cells, row, strict=True):
            assert kind != "f", "never a formula"
            if text.isprintable():
                assert value == text


def test_values_in_a_workbook(tmp_path: Path) -> None:
    path = tmp_path / "o.xlsx"
    row = {
        **{"text": "家", "image": ["a.jpg", "b.jpg"], "p": 0.25, "yes": True, "none": None},
        **{"long": 1960000000000000001, "short": 7, "far": float("inf"), "old": "=SUM(1)"},
        "day": datetime.date(2025, 9, 1),
        "zone": datetime.datetime(2025, 9, 1, tzinfo=datetime.UTC),
    }
    with open_writer(path, row) as writer:
        writer.write([row])
    (read,) = [x.values for x in open_table(path).rows]
    assert read == row | {
        **{"image": '["a.jpg", "b.jpg"]', "long": ID, "far": "inf"},
        **{"day": "2025-09-01", "zone": "2025-09-01 00:00:00+00:00"},
    }
    assert read_posts(path)[0].images == (tmp_path / "a.jpg", tmp_path / "b.jpg")


@pytest.mark.parametrize("text", ["a" * 40_000, "😀" * 20_000, "a\x01b", "a\uffffb"])
def test_what_excel_has_no_room_for_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "o.xlsx"
    with (
        pytest.warns(SgmftWarning, match="1 cells hold more than"),
        open_writer(path, ["text"]) as writer,
    ):
        writer.write([{"text": text}])
    (read,) = [row.values["text"] for row in open_table(path).rows]
    assert read == (
        text[: 32_767 // (1 + (text[0] > "\uffff"))] if text[2:3] != "b" else "a\ufffdb"
    )


def test_too_many_rows_for_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgmft.data.tables.xlsx.MAX_ROWS", 2)
    with (
        pytest.raises(SgmftError, match="no more than 2 rows"),
        open_writer(tmp_path / "o.xlsx", ["text"]) as writer,
    ):
        writer.write([{"text": "a"}, {"text": "b"}])
    assert not list(tmp_path.iterdir())


def test_a_workbook_that_unpacks_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "p.xlsx", a=[["text"], ["a" * 30_000]])
    monkeypatch.setattr("sgmft.data.tables.xlsx.MAX_UNPACKED", 20_000)
    with pytest.raises(SgmftError, match="unpacks to more than"):
        read_posts(path)


def test_pictures_in_a_workbook_are_told(tmp_path: Path) -> None:
    path = workbook(tmp_path / "p.xlsx", a=[["text"], ["a"]])
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("xl/media/image1.png", b"x")
    with pytest.warns(SgmftWarning, match="pictures that lie in the workbook itself are not read"):
        assert read_posts(path)[0].text == "a"


@pytest.mark.parametrize("cut", [0, 100, 0.5, 0.9])
def test_a_damaged_workbook(tmp_path: Path, cut: float) -> None:
    path = workbook(tmp_path / "p.xlsx", a=[["text"], *(["a"] for _ in range(2000))])
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data)) if cut < 1 else int(cut)])
    with pytest.raises(SgmftError, match=r"p\.xlsx") as caught:
        read_posts(path)
    assert "\n" not in str(caught.value)


# --- SQLite


def database(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize("suffix", ["db", "sqlite", "sqlite3"])
def test_a_table_of_a_database(tmp_path: Path, suffix: str) -> None:
    path = database(
        tmp_path / f"p q#?.{suffix}",
        'CREATE TABLE "my ""posts" (id INTEGER, content TEXT, raw BLOB)',
        f"INSERT INTO \"my \"\"posts\" VALUES ({ID}, '在家', x'00')",
        'INSERT INTO "my ""posts" VALUES (2, CAST(x\'ff\' AS TEXT), NULL)',
        "CREATE TABLE users (name TEXT)",
        "INSERT INTO users VALUES ('u')",
        "CREATE TABLE old (text TEXT)",
    )
    before = path.read_bytes()
    good, bad = read_posts(path)
    assert (good.text, good.id, good.row["raw"]) == ("在家", ID, b"\0")
    assert "bytes that are no text" in str(bad.error)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_tables_of_a_database_are_read_one_after_another(tmp_path: Path) -> None:
    made = [f"CREATE TABLE {x} (text TEXT)" for x in ("a", "b")]
    path = database(tmp_path / "p.db", *made, *(f"INSERT INTO {x} VALUES ('{x}')" for x in "ab"))
    assert [(post.text, post.place) for post in read_posts(path)] == [
        ("a", "p.db/a, row 1"),
        ("b", "p.db/b, row 1"),
    ]
    assert [post.text for post in read_posts(path / "b")] == ["b"]
    with pytest.raises(SgmftError, match="has no table c"):
        read_posts(path / "c")


def test_a_database_that_is_still_written_to(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE posts (text TEXT)")
    writer.execute("INSERT INTO posts VALUES ('a')")
    assert [post.text for post in read_posts(path)] == ["a"]
    writer.close()


def test_what_a_database_says_is_not_done(tmp_path: Path) -> None:
    path = database(
        tmp_path / "p.db",
        "CREATE TABLE posts (text TEXT)",
        "INSERT INTO posts VALUES ('a')",
        "CREATE VIEW text AS WITH RECURSIVE n(text) AS (SELECT 1 UNION ALL SELECT 1 FROM n) "
        "SELECT text FROM n",
    )
    assert [post.text for post in read_posts(path)] == ["a"], "a view is no table"


def test_escaped_characters_are_read_and_written(tmp_path: Path) -> None:
    """Excel writes a carriage return as _x000D_, and those letters as _x005F_x000D_."""
    path = workbook(tmp_path / "p.xlsx", posts=[["text"], ["one_x000D_\ntwo"], ["_x005F_x000D_"]])
    assert [post.text for post in read_posts(path)] == ["one\r\ntwo", "_x000D_"]
    with open_writer(tmp_path / "out.xlsx", ["text"]) as writer:
        writer.write([{"text": "_x000D_"}])
    assert [post.text for post in read_posts(tmp_path / "out.xlsx")] == ["_x000D_"]


def test_formulas_without_a_value_are_told(tmp_path: Path) -> None:
    path = workbook(tmp_path / "p.xlsx", posts=[["text", "id"], ['="at"&" home"', "a"], ["b", "c"]])
    with pytest.warns(SgmftWarning, match="Sheet posts: formulas without a stored value"):
        missing, post = read_posts(path)
    assert missing.error is not None and post.text == "b"


def test_tables_beside_the_posts_are_named(tmp_path: Path) -> None:
    path = database(
        tmp_path / "p.db",
        "CREATE TABLE posts (id, text)",
        "CREATE TABLE images (post_id, path)",
        "CREATE TABLE likes (post_id, user)",
        "INSERT INTO posts VALUES (1, 'a')",
        "INSERT INTO images VALUES (1, 'a.jpg')",
        "INSERT INTO likes VALUES (1, 'b')",
    )
    with pytest.warns(SgmftWarning, match=r"p\.db: images not read"):
        assert [post.text for post in read_posts(path)] == ["a"]
