"""The output of tools that collect posts: what is recognised, read and counted."""

import json
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest

from sgmft.data.posts import Post
from sgmft.data.tables import read_posts
from sgmft.errors import SgmftError, SgmftNotice

COLLECTED = Path(__file__).parent / "collected"


def read(path: Path, **options: str) -> tuple[list[Post], list[str]]:
    """Return the posts of a path, and what was told of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posts = read_posts(path, **options)
    return posts, [str(x.message) for x in caught if issubclass(x.category, SgmftNotice)]


def pictures(posts: Iterable[Post]) -> list[list[str]]:
    return [[Path(str(image)).name for image in post.images] for post in posts]


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """The tools' output, to be changed."""
    return Path(shutil.copytree(COLLECTED, tmp_path / "collected"))


WEIBO = [
    ["20250901T_5012345678901234_1.jpg", "20250901T_5012345678901234_2.jpg"],
    ["20250902T_5012345679888888.jpg"],
    [],
    [],
]


@pytest.mark.parametrize("part", ["", "weibo/小王同学", "weibo/小王同学/1669879400.csv"])
def test_weibo_crawler(part: str) -> None:
    posts, told = read(COLLECTED / "weibo-crawler" / part)
    assert posts[0].text == "下课铃一响大家都冲去食堂，今天的数学课真难"
    assert posts[0].id == "5012345678901234"
    assert {post.user for post in posts} == {"小王同学"}
    assert posts[1].time == "2025-09-02 12:00:00"
    assert pictures(posts) == WEIBO and all(image.exists() for p in posts for image in p.images)
    assert told[-1].endswith("read as weibo-crawler: 4 posts, 3 pictures found, 0 missing")
    assert posts[3].row["源微博正文"] == "商场周年庆，排队两小时"


def test_a_picture_that_was_not_downloaded_is_counted(collected: Path) -> None:
    folder = collected / "weibo-crawler"
    next(folder.rglob("*_2.jpg")).unlink()
    posts, told = read(folder)
    assert pictures(posts)[0] == WEIBO[0][:1] and not any(post.error for post in posts)
    assert told[-1].endswith("4 posts, 2 pictures found, 1 missing")


def test_a_table_of_ours_is_nobodys(collected: Path) -> None:
    table = collected / "ours.csv"
    table.write_text("text,images,id,正文,原始图片url\na,,1,b,https://x/y.jpg\n", "utf-8")
    (post,), told = read(table)
    assert post.text == "a" and not told


def test_a_format_can_be_forced_and_has_to_be_known(tmp_path: Path) -> None:
    table = tmp_path / "posts.txt"
    table.write_text(json.dumps({"text": "a"}) + "\n", "utf-8")
    assert [post.text for post in read(table, format="jsonl")[0]] == ["a"]
    with pytest.raises(SgmftError, match="no format 'weibo': use one of weibo-crawler"):
        read(table, format="weibo")
