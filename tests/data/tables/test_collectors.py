"""The output of tools that collect posts: what is recognised, read and counted."""

import csv
import json
import shutil
import sqlite3
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sgmft.data.posts import Post
from sgmft.data.source import Source
from sgmft.data.tables import Columns, open_writer, read_posts
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.jobs.convert import convert_table

COLLECTED = Path(__file__).parent / "collected"
TEXT = "下课铃一响大家都冲去食堂，今天的数学课真难"


def read(path: Path, **options: Any) -> tuple[list[Post], list[str]]:
    """Return the posts of a path, and what was told of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posts = read_posts(path, **options)
    told = [str(x.message) for x in caught if issubclass(x.category, SgmftWarning)]
    return posts, list(dict.fromkeys(told))


def pictures(posts: Iterable[Post]) -> list[list[str]]:
    assert all(Path(str(image)).is_file() for post in posts for image in post.images)
    return [[Path(str(image)).name for image in post.images] for post in posts]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"a picture")


def write_csv(path: Path, rows: list[Mapping[str, str]], encoding: str = "utf-8-sig") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """The tools' output, to be changed."""
    return Path(shutil.copytree(COLLECTED, tmp_path / "collected"))


# --- weibo-crawler and weiboSpider

CRAWLED = [
    ["20250901T_5012345678901234_1.jpg", "20250901T_5012345678901234_2.jpg"],
    ["20250902T_5012345679888888.jpg"],
    [],
    [],
]


@pytest.mark.parametrize(
    "part",
    ["", "weibo", "weibo/小王同学", *(f"weibo/小王同学/1669879400.{x}" for x in ("csv", "json"))],
)
def test_weibo_crawler(part: str) -> None:
    posts, told = read(COLLECTED / "weibo-crawler" / part)
    assert posts[0].text == TEXT and posts[0].id == "5012345678901234"
    assert {post.user for post in posts} == {"小王同学"}
    assert posts[1].time == "2025-09-02 12:00:00"
    assert pictures(posts) == CRAWLED and not any(post.error for post in posts)
    assert told[-1].endswith("read as weibo-crawler: 4 posts, 3 pictures found, 0 missing")
    passed_on = posts[3].row.get("源微博正文") or posts[3].row["retweet"]["text"]
    assert passed_on == "商场周年庆，排队两小时", "the tool's columns are kept"
    assert posts[3].text == "转发微博", "of a repost its own text"


def test_pictures_that_were_not_downloaded_are_counted(collected: Path) -> None:
    folder = collected / "weibo-crawler"
    next(folder.rglob("*_2.jpg")).unlink()
    posts, told = read(folder)
    assert pictures(posts)[0] == CRAWLED[0][:1]
    assert told[-1].endswith("4 posts, 2 pictures found, 1 missing")
    shutil.rmtree(folder / "weibo/小王同学/img")
    posts, told = read(folder)
    assert [bool(post.text) for post in posts] == [True] * 4 and not any(p.error for p in posts)
    assert told[-1].endswith("4 posts, 0 pictures found, 3 missing")


def test_users_of_weibo_crawler_lie_side_by_side(collected: Path) -> None:
    home = collected / "weibo-crawler" / "weibo"
    shutil.copytree(home / "小王同学", home / "小李")
    (home / "小李/1669879400.csv").rename(home / "小李/42.csv")
    (home / "小李/1669879400.json").unlink()
    (home / "users.csv").write_text("用户id,昵称,简介\n1,小王同学,你好\n", "utf-8-sig")
    (home / "小李/小李_comments.csv").write_text(
        "id,weibo_id,created_at,user_screen_name,text,pic_url,like_count\n1,2,,a,哈哈,,0\n", "utf-8"
    )
    for folder in (collected / "weibo-crawler", home):
        posts, told = read(folder)
        assert [post.user for post in posts] == ["小李"] * 4 + ["小王同学"] * 4
        assert pictures(posts) == CRAWLED * 2
        assert told[-1].endswith("8 posts, 6 pictures found, 0 missing")
        assert posts[0].row["images"][0].startswith(str((home / "小李").relative_to(folder)))


def test_tables_of_several_users_in_one_folder_are_told_apart(collected: Path) -> None:
    home = collected / "weibo-crawler/weibo/小王同学"
    (home / "1669879400.json").unlink()
    shutil.copy(home / "1669879400.csv", home / "42.csv")
    assert {post.user for post in read(home)[0]} == {"1669879400", "42"}


OLDER = {
    "id": "1",
    "bid": "a",
    "正文": "在家",
    "原始图片url": "http://x/a.gif",
    "日期": "2020-05-01",
}


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_an_older_table_of_weibo_crawler(tmp_path: Path, encoding: str) -> None:
    path = write_csv(tmp_path / "weibo/某/7.csv", [OLDER], encoding)
    touch(path.parent, "img/原创微博图片/20200501_1.gif", "video/原创微博视频/20200501_1.mp4")
    (post,), told = read(tmp_path)
    assert pictures([post]) == [["20200501_1.gif", "20200501_1.mp4"]]
    assert (post.text, post.user, post.time) == ("在家", "某", "2020-05-01")
    assert told[-1].endswith("1 posts, 2 pictures found, 0 missing")


def test_pictures_of_weibo_crawlers_markdown(tmp_path: Path) -> None:
    row = OLDER | {"日期": "2025-09-01T12:00:30", "原始图片url": "u,v"}
    path = write_csv(tmp_path / "某/7.csv", [row])
    touch(path.parent, "2025-09/img/2025-09-01_12-00-30_1.jpg", "img/2025-09-01_12-00-30_2.jpg")
    assert pictures(read(path)[0]) == [["2025-09-01_12-00-30_1.jpg", "2025-09-01_12-00-30_2.jpg"]]


@pytest.mark.parametrize("key", ["5012", "'5012", '="5012"', "5012\t", "5012.0"])
@pytest.mark.parametrize("day", ["2025/9/1 12:00", "2025-09-01T12:00:30"])
def test_a_table_of_weibo_crawler_that_excel_saved(tmp_path: Path, key: str, day: str) -> None:
    row = OLDER | {"id": key, "日期": day, "原始图片url": "https://x/a,https://x/b"}
    path = write_csv(tmp_path / "某/7.csv", [row])
    names = [f"20250901T_5012_{n}.jpg" for n in (1, 2)]
    touch(path.parent, f"img/原创微博图片/{names[0]}", f"2025-09/原创微博图片/{names[1]}")
    (post,), _ = read(path)
    assert pictures([post]) == [names] and post.id == "5012"


def test_videos_and_live_photos_of_weibo_crawler(tmp_path: Path) -> None:
    video = {
        "日期": "2025-09-01T12:00:00",
        "原始图片url": "",
        "视频url": "",
        "Live Photo视频url": "",
    }
    live = {"原始图片url": "https://x/a", "Live Photo视频url": "https://v/a;https://v/b"}
    urls = ("https://v/a?x=1,2;https://v/b.mov", "https://v/c", "")
    rows = [OLDER | video | {"id": str(n), "视频url": x} for n, x in enumerate(urls)]
    path = write_csv(tmp_path / "某/7.csv", [*rows, OLDER | video | live | {"id": "3"}])
    touch(path.parent / "video/原创微博视频", "20250901T_0_1.mp4", "20250901T_0_2.mov")
    touch(path.parent / "2025-09/原创微博视频", "20250901T_2.mp4")
    touch(path.parent / "img/原创微博图片", "20250901T_3.jpg")
    touch(path.parent / "live_photo/原创微博Live Photo视频", "20250901T_3_2.mov")
    posts, told = read(path)
    assert pictures(posts)[0] == ["20250901T_0_1.mp4", "20250901T_0_2.mov"]
    assert pictures(posts)[1:] == [
        [],
        ["20250901T_2.mp4"],
        ["20250901T_3.jpg", "20250901T_3_2.mov"],
    ]
    assert posts[1].row["image_addresses"] == ["https://v/c"]
    assert told[-1].endswith("4 posts, 5 pictures found, 1 missing")


def test_a_name_in_a_table_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    rows = [OLDER | {"id": x} for x in ("../../../../secret", "/etc/x", "a\0b", "..", "x" * 300)]
    path = write_csv(tmp_path / "a/b/7.csv", rows)
    (path.parent / "img").symlink_to(tmp_path)
    touch(tmp_path, "20200501_9.gif")
    posts, _ = read(path)
    assert all(not post.images for post in posts)
    (post,), _ = read(write_csv(path, [OLDER | {"id": "9"}]))
    assert not post.images and "lies outside" in post.warnings[0]


SPIDER = {
    "微博id": "KgAb1",
    "微博正文": "真好\n原始用户: 某\n转发内容: 商场周年庆",
    "头条文章url": "",
    "原始图片url": "https://x/a.jpg,https://x/b.jpg",
    "被转发微博原始图片url": "无",
    "是否为原创微博": "False",
    "微博视频url": "无",
    "发布位置": "无",
    "发布时间": "2025-09-01 12:00",
}


def test_weibospider(tmp_path: Path) -> None:
    again = dict(zip(SPIDER, SPIDER, strict=True))  # it writes its header anew in every run
    rows = [SPIDER, again, SPIDER | {"微博id": "KgAb2", "原始图片url": "无", "微博正文": "看电影"}]
    rows += [
        SPIDER | {"微博id": "KgAb3", "微博正文": "原始用户: 某\n转发内容: 商场", "原始图片url": ""}
    ]
    path = write_csv(tmp_path / "weibo/小王/1669879400.csv", rows)
    touch(path.parent, "img/原创微博图片/20250901_KgAb1_2.jpg", "video/20250901_KgAb2.mp4")
    posts, told = read(tmp_path)
    assert [(post.id, post.text) for post in posts[:2]] == [("KgAb1", "真好"), ("KgAb2", "看电影")]
    assert pictures(posts) == [["20250901_KgAb1_2.jpg"], ["20250901_KgAb2.mp4"], []]
    assert told[-1].endswith("read as weibospider: 3 posts, 2 pictures found, 1 missing")
    assert not posts[2].text and posts[2].error, "nothing of its author's own"
    assert posts[0].row["微博正文"] == SPIDER["微博正文"] and posts[0].user == "小王"


def test_json_of_weibospider(tmp_path: Path) -> None:
    post = {"id": "KgAb1", "user_id": "", "content": "在家", "original_pictures": "无"}
    post |= {"publish_time": "2025-09-01 12:00", "original": True}
    data = {"user": {"id": "1669879400", "nickname": "小王"}, "weibo": [post]}
    path = tmp_path / "1669879400.json"
    path.write_text(json.dumps(data, ensure_ascii=False), "utf-8")
    (read_post,), told = read(path)
    assert (read_post.text, read_post.user) == ("在家", "小王")
    assert read_post.time == "2025-09-01 12:00" and "weibospider: 1 posts" in told[-1]


def test_files_of_several_users_put_into_one(collected: Path) -> None:
    path = next(collected.rglob("1669879400.json"))
    one = json.loads(path.read_text("utf-8"))
    other = json.loads(path.read_text("utf-8").replace("小王同学", "小李"))
    path.write_text(json.dumps([one, other]), "utf-8")
    posts, _ = read(path)
    assert [post.user for post in posts] == ["小王同学"] * 4 + ["小李"] * 4
    assert pictures(posts) == CRAWLED * 2


# --- weibo-search


@pytest.mark.parametrize("part", ["", "结果文件", "结果文件/看电影", "结果文件/看电影/看电影.csv"])
def test_weibo_search(part: str) -> None:
    posts, told = read(COLLECTED / "weibo-search" / part)
    assert posts[0].text == TEXT and posts[0].user == "小王" and posts[0].time == "2025-09-01 12:00"
    names = ["5012345678901234-0.jpg", "5012345678901234-1.jpg"]
    assert pictures(posts[:3]) == [names, ["5012345679888888.jpg"], []]
    assert told[-1].endswith("read as weibo-search: 5 posts, 4 pictures found, 0 missing")


def database(path: Path, tables: Mapping[str, list[Mapping[str, Any]]]) -> Path:
    with sqlite3.connect(path) as connection:
        for name, rows in tables.items():
            columns = ", ".join(f'"{x}"' for x in rows[0])
            connection.execute(f'CREATE TABLE "{name}" ({columns})')
            marks = ", ".join("?" * len(rows[0]))
            values = [tuple(row.values()) for row in rows if any(row.values())]
            connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', values)
    connection.close()
    return path


POST = {"id": "7", "bid": "a", "user_id": "1", "screen_name": "小王", "text": "在家", "pics": "a,b"}
POST |= {"created_at": "2025-09-01 12:00:00"}


def test_the_database_of_weibo_crawler(tmp_path: Path) -> None:
    comment = {"id": "9", "weibo_id": "7", "user_screen_name": "x", "text": "哈哈"}
    tables = {"weibo": [POST], "comments": [comment], "user": [{"id": "1", "nick_name": "小王"}]}
    path = database(tmp_path / "weibodata.db", tables)
    touch(tmp_path, "weibo/小王/img/原创微博图片/20250901T_7_1.jpg")
    for source in (path, tmp_path, path / "weibo"):
        (post,), told = read(source)
        assert pictures([post]) == [["20250901T_7_1.jpg"]] and post.user == "小王"
        assert told[-1].endswith("weibo-crawler: 1 posts, 1 pictures found, 1 missing")


@pytest.mark.parametrize("user", [{"id": "1", "nick_name": "x"}, {"id": 2, "nick_name": "小王"}])
def test_posts_passed_on_in_the_database_of_weibo_crawler(
    tmp_path: Path, user: dict[str, Any]
) -> None:
    other = POST | {"id": "8", "user_id": "9", "screen_name": "小李"}
    tables = {"weibo": [other, POST], "user": [user]}
    (post,), told = read(database(tmp_path / "weibodata.db", tables))
    assert post.id == "7" and told[-1].endswith("missing, 1 other records left out")


def test_the_database_of_weibo_search(tmp_path: Path) -> None:
    path = database(tmp_path / "weibo.db", {"weibo": [POST | {"user_authentication": ""}]})
    touch(tmp_path, "看电影/images/7-0.jpg", "看电影/images/7-1.jpg?KID=1", "a/images/8.jpg")
    (post,), told = read(path)
    assert pictures([post]) == [["7-0.jpg", "7-1.jpg?KID=1"]]
    assert "weibo-search: 1 posts" in told[-1]


# --- MediaCrawler

NOTES = [["0.jpg", "1.jpg"]] * 3


@pytest.mark.parametrize(
    "part", ["xhs", "xhs/csv", "xhs/jsonl", "xhs/csv/search_contents_2025-09-05.csv"]
)
def test_mediacrawler_for_xiaohongshu(part: str) -> None:
    posts, told = read(COLLECTED / "MediaCrawler/data" / part)
    assert posts[0].text == f"记录一下\n{TEXT}#日常[话题]#"
    assert [post.id for post in posts] == [f"66f0a0000000000{i}" for i in range(3)]
    assert posts[0].user == "a1", "names are masked, and so of many people"
    assert posts[0].time == "2025-09-01T04:13:20+00:00" and pictures(posts) == NOTES
    assert told[-1].endswith("read as mediacrawler-xhs: 3 posts, 6 pictures found, 0 missing")


def test_mediacrawler_of_two_platforms(collected: Path) -> None:
    posts, told = read(collected / "MediaCrawler")
    assert len(posts) == 6 and pictures(posts) == [[]] * 3 + NOTES
    assert posts[0].time == "2025-09-01 12:00:00+08:00" and posts[0].text == TEXT
    said = "\n".join(told)
    assert "search_contents_2025-09-05.jsonl holds the same posts as" in said
    assert "does not write which post of Weibo a picture belongs to; 1 files" in said
    assert "mediacrawler-weibo: 3 posts" in said and "mediacrawler-xhs: 3 posts" in said
    only, _ = read(collected / "MediaCrawler", format="mediacrawler-xhs")
    assert len(only) == 3


def test_older_tables_of_mediacrawler(tmp_path: Path) -> None:
    note = {
        "note_id": "n1",
        "type": "video",
        "title": "在家煮面",
        "desc": "在家煮面，追剧",
        "time": "1",
    }
    note |= {"user_id": "u1", "nickname": "小王", "image_list": "a,b", "tag_list": ""}
    write_csv(tmp_path / "data/xhs/1_search_contents_2024-08-01.csv", [note])
    touch(tmp_path, "data/xhs/images/n1/0.jpg", "data/xhs/images/n1/0.mp4")
    (post,), told = read(tmp_path)
    assert post.text == "在家煮面，追剧" and post.user == "u1", (
        "a title made of the text says no more"
    )
    assert pictures([post]) == [["0.jpg", "0.mp4"]] and told[-1].endswith(
        "2 pictures found, 1 missing"
    )


DOUYIN = {"aweme_id": "74", "title": "在家", "desc": "在家", "create_time": 1756700000}
DOUYIN |= {"user_id": "5", "aweme_url": "https://d/74", "cover_url": "https://d/c.jpg"}
VIDEO = {"video_id": "11", "title": "在家", "desc": "做饭", "create_time": "1756700000"}
VIDEO |= {"user_id": "5", "video_url": "https://b/11", "video_cover_url": "https://b/c.jpg"}
TIEBA = {"note_id": "9", "title": "在家", "desc": "做饭", "publish_time": "2025-09-01 12:00"}
ZHIHU = {
    "content_id": "8",
    "title": "在家？",
    "desc": "",
    "content_text": "做饭",
    "content_url": "u",
}


@pytest.mark.parametrize(
    ("at", "row", "text", "found", "missing"),
    [
        ("douyin", DOUYIN | {"note_download_url": "https://d/1,https://d/2"}, "在家", 2, []),
        ("douyin", DOUYIN | {"note_download_url": ""}, "在家", 0, ["https://d/c.jpg"]),
        ("bili", VIDEO, "在家\n做饭", 0, ["https://b/c.jpg"]),
        ("tieba", TIEBA | {"tieba_name": "家"}, "在家\n做饭", 0, []),
        ("zhihu", ZHIHU | {"user_id": "5"}, "在家？\n做饭", 0, []),
    ],
)
def test_other_platforms_of_mediacrawler(
    tmp_path: Path, at: str, row: dict[str, Any], text: str, found: int, missing: list[str]
) -> None:
    data = tmp_path / "data" / at
    write_csv(data / "csv/search_contents_2025-09-05.csv", [row])
    write_csv(data / "csv/search_comments_2025-09-05.csv", [{"comment_id": "1", "content": "好"}])
    touch(data, *(f"images/74/{n:03}.jpeg" for n in range(found)))
    (post,), told = read(tmp_path)
    assert post.text == text and len(pictures([post])[0]) == found
    assert post.row.get("image_addresses", []) == missing
    assert f"read as mediacrawler: 1 posts, {found} pictures found, {len(missing)} m" in told[-1]


def test_the_database_of_mediacrawler(collected: Path) -> None:
    data = collected / "MediaCrawler"
    (data / "database").mkdir()
    xhs = {"id": 1, "note_id": "66f0a00000000000", "title": "", "desc": "在家", "image_list": "a,b"}
    weibo = {
        "id": 1,
        "note_id": "5",
        "content": "看电影",
        "create_date_time": "2025",
        "shared_count": "0",
    }
    empty = {"id": None, "note_id": None, "comment_id": None}
    tables = {"xhs_note": [xhs], "weibo_note": [weibo], "xhs_note_comment": [empty]}
    path = database(data / "database/sqlite_tables.db", tables)
    posts, _ = read(path)
    assert [post.text for post in posts] == ["在家", "看电影"]
    assert pictures(posts) == [["0.jpg", "1.jpg"], []]
    assert posts[0].id == "66f0a00000000000" and posts[0].row["original.id"] == 1
    assert [post.text for post in read(path, format="mediacrawler-weibo")[0]] == ["看电影"]


# --- folders named after classes


@pytest.mark.parametrize("top", ["", "train/"])
def test_folders_named_after_classes(tmp_path: Path, top: str) -> None:
    touch(tmp_path, *(f"{top}{x}.jpg" for x in ("家/0", "家/1", "Cinema/0")), f"{top}Cinema/.x.jpg")
    posts, told = read(tmp_path)
    assert [post.label for post in posts] == ["Cinema", "家", "家"]
    assert posts[2].id == f"{top}家/1.jpg" and posts[2].row.get("split") == (top[:-1] or None)
    assert "class-folders of the labels Cinema, 家: 3 posts, 3 pictures found" in told[0]


def test_a_picture_at_another_depth_has_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.tif", "a/1.jfif", "b/0.webm", "b/x/y/1.jpg", "a/c/1.jpg", "2.jpg")
    posts, told = read(tmp_path)
    good = [post for post in posts if not post.error]
    assert [(post.id, post.label) for post in good] == [
        *(("a/0.tif", "a"), ("a/1.jfif", "a"), ("b/0.webm", "b"))
    ]
    assert {post.id for post in posts if post.error} == {"2.jpg", "a/c/1.jpg", "b/x/y/1.jpg"}
    assert "does not lie in LABEL/" in str(posts[0].error)
    assert "of the labels a, b: 6 posts, 3 pictures found" in told[0]


def test_a_table_counts_more_than_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.jpg", "b/0.jpg")
    (tmp_path / "posts.csv").write_text("text,image\nhi,a/0.jpg\n")
    (post,), told = read(tmp_path)
    assert post.text == "hi" and not told
    (tmp_path / "posts.csv").write_text("name,n\na,1\n")
    posts, told = read(tmp_path)
    assert [post.label for post in posts] == ["a", "b"] and "posts.csv not read" in told[0]
    touch(tmp_path / "other", "a/0.jpg", "a/1.jpg")
    with pytest.raises(SgmftError, match="without any of metadata"):
        read(tmp_path / "other")
    posts, _ = read(tmp_path / "other", format="class-folders")
    assert [post.label for post in posts] == ["a", "a"], "one class is asked for"


# --- comments

ON_POSTS = {"id": "1", "weibo_id": "7", "user_screen_name": "a", "text": "哈哈", "like_count": ""}


def test_comments_are_no_posts(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "weibo/小王_comments.csv", [ON_POSTS])
    for folder in (tmp_path, path.parent):
        with pytest.raises(SgmftError, match=f"give the path of a table .*{path.name}"):
            read(folder)
    assert [post.text for post in read(path)[0]] == ["哈哈"], "unless they are asked for"
    write_csv(path.with_name("posts.csv"), [{"id": "7", "text": "在家"}])
    write_csv(path.with_name("my comments.csv"), [{"id": "8", "text": "看电影"}])
    posts, told = read(path.parent)
    assert [post.text for post in posts] == ["看电影", "在家"]
    assert told == [f"{path.parent}: {path.name} not read; give the path to read it."]


@pytest.mark.parametrize("name", ["comments", "评论"])
@pytest.mark.parametrize("posts", [{"title": "t", "desc": "在家"}, {"text": "在家"}])
def test_comments_beside_posts_in_a_database(
    tmp_path: Path, name: str, posts: dict[str, str]
) -> None:
    tables = {name: [{"id": 1, "post_id": 1, "content": "好看"}], "posts": [{"id": 1} | posts]}
    path = database(tmp_path / "p.db", tables)
    found, told = read(path, columns=Columns(text=list(posts)[-1]))
    assert [post.text for post in found] == ["在家"]
    assert told == [f"{path}: {name} not read; give the path to read it."]
    assert [post.text for post in read(path / name)[0]] == ["好看"]
    tables = {"about": [{"by": "me"}], name: [{"id": 1, "content": "好看"}]}
    (post,), _ = read(database(tmp_path / "q.db", tables))
    assert post.text == "好看", "what has no posts to belong to is posts"


# --- tables by other names, in other places


def test_names_that_people_use(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "p.csv",
        [
            {
                "微博id": "1",
                "微博正文": "在家",
                "图片": "a.jpg",
                "标签": "Home",
                "用户昵称": "王",
                "发布时间": "2025",
            }
        ],
    )
    (post,), told = read(path)
    assert (post.text, post.id, post.label) == ("在家", "1", "Home")
    assert (post.user, post.time, post.images) == ("王", "2025", (tmp_path / "a.jpg",))
    (said,) = told
    assert said.startswith("p.csv: text is read from '微博正文'; image is read from '图片'; id")
    (post,), told = read(write_csv(path, [{"text": "a", "content": "b", "Caption": "c"}]))
    assert post.text == "a" and not told, "they count where the usual name is absent"


def test_a_table_of_ours_is_nobodys(tmp_path: Path) -> None:
    (post,), told = read(
        write_csv(tmp_path / "p.csv", [OLDER | {"text": "a", "images": "", "time": ""}])
    )
    assert post.text == "a" and all("原始图片url" in message for message in told)


def test_a_format_can_be_forced_and_has_to_be_known(tmp_path: Path) -> None:
    table = tmp_path / "posts.txt"
    table.write_text(json.dumps({"text": "a"}) + "\n", "utf-8")
    assert [post.text for post in read(table, format="jsonl")[0]] == ["a"]
    with pytest.raises(SgmftError, match="no format 'weibo': use one of weibo-search"):
        read(table, format="weibo")
    with pytest.raises(SgmftError, match="without what weibo-search writes"):
        read(tmp_path, format="weibo-search")
    part, _ = read(COLLECTED / "weibo-crawler/weibo/小王同学", format="csv")
    assert len(part) == 4 and not part[0].images, "as a plain table"


@pytest.mark.parametrize("around", [{"status": "ok", "n": 2}, {"tags": [], "meta": {"a": [1]}}])
def test_a_list_one_level_down(tmp_path: Path, around: dict[str, Any]) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(around | {"data": [{"text": "a"}, {"text": "b"}]}))
    assert [post.text for post in read(path)[0]] == ["a", "b"]
    path.write_text(json.dumps({"text": "one post", "comments": [{"text": "a"}]}))
    assert [post.text for post in read(path)[0]] == ["one post"]
    path.write_text(json.dumps({"users": [{"name": "u"}], "posts": [{"text": "a"}]}))
    assert [post.text for post in read(path)[0]] == ["a"]
    path.write_text(json.dumps({"code": 0, "data": {"total": 1, "list": [{"text": "a"}]}}))
    assert [post.text for post in read(path)[0]] == ["a"]
    path.write_text(json.dumps({"posts": {"7": {"text": "a"}, "8": {"text": "b"}}}))
    assert [(post.id, post.text) for post in read(path)[0]] == [("7", "a"), ("8", "b")]
    path.write_text(json.dumps({"train": [{"text": "a"}], "test": [{"text": "b"}]}))
    with pytest.raises(SgmftError, match="lists of records under train, test"):
        read(path)


POSTS = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]


@pytest.mark.parametrize(
    ("held", "texts", "left"),
    [
        ({"code": 200, "message": "ok", "data": POSTS}, "ab", None),
        ({"caption": "my export", "items": POSTS}, "ab", None),
        ({"image": "logo.png", "items": POSTS}, "ab", None),
        ({"content": POSTS}, "ab", None),
        ({"id": "7", "message": {"data": POSTS}}, "ab", None),
        ([{"message": "ok", "data": POSTS[:1]}, {"message": "ok", "data": POSTS[1:]}], "ab", None),
        ({"posts": POSTS, "comments": [{"content": "c"}]}, "ab", "comments"),
        ({"content": "a", "replies": [{"content": "c"}]}, "a", "replies"),
        ({"id": "7", "content": "a", "cited": [{"content": "c"}]}, "a", "cited"),
        ({"text": "a", "tokens": [{"text": "t"}]}, "a", "tokens"),
        ([{"text": "a", "tokens": [{"text": "t"}]}], "a", None),
        ({"comments": [{"text": "a", "label": "Home"}]}, "a", None),
    ],
)
def test_posts_in_an_object_are_told_from_the_object(
    tmp_path: Path, held: Any, texts: str, left: str | None
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(held))
    posts, told = read(path)
    assert [post.text for post in posts] == [*texts] and not any(post.error for post in posts)
    unread = [x.partition(" are not")[0] for x in told if "are not read" in x]
    assert unread == [f"{path}: the records under {x}" for x in [left] if x]


def test_comments_are_not_read_for_posts_of_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    held = {"posts": [{"id": "1", "desc": "b"}], "comments": [{"content": "c"}]}
    path.write_text(json.dumps(held))
    with pytest.raises(SgmftError, match=r"neither a text nor an image column: .*: id, desc"):
        read(path)


def test_what_was_made_of_a_tools_output_may_lie_beside_it(collected: Path) -> None:
    folder = collected / "weibo-crawler"
    before, _ = read(folder)
    with open_writer(folder / "labelled.csv", [*before[0].row, "label", "probability"]) as writer:
        writer.write([{**post.row, "label": "Home", "probability": 0.9} for post in before])
    (folder / "tasks.json").write_text('[{"data": {"text": "a"}}]')
    (folder / "suggested.csv").write_text("text,suggested_rank\na,1\n")
    after, told = read(folder)
    assert [post.place for post in after] == [post.place for post in before]
    assert "labelled.csv, suggested.csv not read; give the path to read it." in told[0]
    posts, _ = read(folder / "labelled.csv")
    assert pictures(posts) == CRAWLED and posts[0].label == "Home"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".xlsx"])
def test_a_table_of_ours_that_somebody_has_labelled_is_read_for_the_tools(
    collected: Path, suffix: str
) -> None:
    folder = collected / "weibo-search" / "结果文件" / "看电影"
    table = (folder / "posts").with_suffix(suffix)
    with warnings.catch_warnings(action="ignore"):
        convert_table(Source(str(folder)), table)
    before, told = read(folder)
    assert len(before) == 5 and before[0].label is None
    assert any("read as weibo-search" in x for x in told), "nothing is labelled yet"
    with open_writer(table, [*read(table)[0][0].row, "label"]) as writer:  # by hand, not all
        writer.write([dict(post.row) for post in before[:3]])
        writer.write([post.row | {"label": "Home"} for post in before[3:]])
    after, told = read(folder)
    assert [post.label for post in after] == [None, None, None, "Home", "Home"]
    for role in ("text", "images", "id", "user", "time"):
        assert [getattr(x, role) for x in after] == [getattr(x, role) for x in before]
    assert f"{folder}: 看电影.csv not read; give the path to read it." in told
    assert {post.label for post in read(folder, format="weibo-search")[0]} == {None}
    with pytest.raises(SgmftError, match="is the table that is read"):
        convert_table(Source(str(folder)), table)


def test_a_table_of_the_users_own_counts_more_than_what_lies_below(collected: Path) -> None:
    folder = collected / "weibo-crawler"
    write_csv(folder / "mine.csv", [{"text": "a", "label": "Home"}])
    (post,), told = read(folder)
    assert post.label == "Home"
    (said,) = told
    assert "weibo/小王同学/1669879400.csv, weibo/小王同学/1669879400.json not read" in said
    assert len(read(folder, format="weibo-crawler")[0]) == 4


# --- two tables of the same posts


def twice(folder: Path, names: tuple[str, str], more: int = 0) -> Path:
    rows = [{"id": str(i), "text": f"t{i}"} for i in range(3)]
    write_csv(folder / names[0], rows)
    lines = [json.dumps({"id": i, "text": f"t{i}"}) for i in range(more, more + 3)]
    (folder / names[1]).write_text("\n".join(lines))
    return folder


def test_two_tables_of_the_same_posts_are_read_once(tmp_path: Path) -> None:
    posts, told = read(twice(tmp_path, ("metadata1000.csv", "metadata1000.jsonl")))
    assert [post.id for post in posts] == ["0", "1", "2"]
    assert told == [
        "metadata1000.jsonl holds the same posts as metadata1000.csv: "
        "they are read from that alone."
    ]


def test_a_larger_or_a_labelled_table_of_the_same_posts_is_kept(tmp_path: Path) -> None:
    folder = twice(tmp_path, ("p.csv", "p.jsonl"))
    with (folder / "p.jsonl").open("a") as file:
        file.write('\n{"id": 9, "text": "new"}')
    assert [post.id for post in read(folder)[0]] == ["0", "1", "2", "9"]
    lines = [json.dumps({"id": i, "text": f"t{i}", "label": "Home"}) for i in range(3)]
    (folder / "p.jsonl").write_text("\n".join(lines) + "\n")
    assert {post.label for post in read(folder)[0]} == {"Home"}


@pytest.mark.parametrize(
    "more", [{"time": "2025"}, {"time": "2025", "image": ""}, {"image": "{}/a.jpg"}]
)
def test_a_post_with_pictures_of_its_own_in_two_tables(
    tmp_path: Path, more: dict[str, str]
) -> None:
    for name in "xy":
        row = {"id": "1", "text": "a", "image": f"{name}/{name}.jpg"} | more
        write_csv(tmp_path / f"{name}.csv", [row | {"image": row["image"].format(name)}])
        touch(tmp_path, f"{name}/{name}.jpg", f"{name}/a.jpg")
    (_, second), told = read(tmp_path)
    assert second.warnings == ("is the post of row 2 of x.csv again",)
    assert "1 posts of y.csv are in x.csv as well" in told[-1]
    write_csv(tmp_path / "y.csv", [{"id": "1", "text": "a", "image": "y/y.jpg"}])
    (_, second), told = read(tmp_path)
    assert not second.warnings and not told, "another post may have the id"


@pytest.mark.parametrize("names", [("a.csv", "b.jsonl"), ("p.csv", "p.jsonl")])
def test_posts_that_are_read_twice_are_told(tmp_path: Path, names: tuple[str, str]) -> None:
    posts, told = read(twice(tmp_path, names, more=1))
    assert len(posts) == 6
    (said,) = told
    assert f"2 posts of {names[1]} are in {names[0]} as well" in said
