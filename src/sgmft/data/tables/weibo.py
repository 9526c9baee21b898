"""What weibo-crawler, weiboSpider and weibo-search write (github.com/dataabc).

Of a repost the text and pictures are its author's own; the post that was passed on stays in the
tools' columns.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import (
    VIDEOS,
    Collector,
    adapt_table,
    find_file,
    find_numbered,
    first_of,
    name_part,
    split_urls,
)

_PASSED_ON = re.compile(
    r"\n(?:原始用户|转发内容): "
)  # weiboSpider has what is reposted in the text


def _adapt_user(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read the posts of one user, or of all users in a database.

    Pictures are ``img/原创微博图片/<day>_<id>[_<n>].jpg`` beside the table, or, where weibo-crawler
    writes Markdown, ``img/<time>[_<n>].jpg``; videos ``video/原创微博视频/<day>_<id>.mp4``.
    """
    in_database = path.parent.is_file()
    users = [file for file in path.parent.glob("*.csv") if file.stem.isdigit()]
    user = path.stem if users[1:] else path.parent.name  # several were put into one folder
    about = raw.about.get("user")
    user = first_of(about, "screen_name", "nickname") or user if isinstance(about, dict) else user

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key = name_part(first_of(row, "id", "微博id"))
        names = ("created_at", "日期", "publish_time", "发布时间", "完整日期")
        time = str(first_of(row, *names) or "")
        given = first_of(row, "screen_name"), first_of(row, "user_id")
        homes = [f"weibo/{name_part(x)}/" for x in given if x] if in_database else [""]
        homes += [f"{homes[0]}{time[:7]}/"] if homes else []
        day, second = time[:10].replace("-", ""), re.sub("[T ]", "_", time).replace(":", "-")
        stems = [f"{day}T_{key}", f"{day}_{key}"]
        places = [
            f"{home}{at}" for home in homes for at in ("img/原创微博图片", "img", "原创微博图片")
        ]
        images = [f"{at}/{stem}" for at in places for stem in (*stems, second)]
        clips = [
            f"{home}video/{at}{x}" for home in homes for at in ("原创微博视频/", "") for x in stems
        ]
        urls = split_urls(first_of(row, "原始图片url", "pics", "original_pictures"))
        text = str(first_of(row, "正文", "微博正文", "text", "content") or "")
        return {
            "text": _PASSED_ON.split(text)[0] if tool == "weiboSpider" else text,
            "images": find_numbered(raw.folder, images, len(urls)) + _video(raw.folder, clips),
            "addresses": urls,
            "id": key,
            "user": given[0] or (given[1] if in_database else user),
            "time": first_of(row, "完整日期", "full_created_at") or time,
        }

    return adapt_table(raw, tool, to_post)


def _adapt_search(raw: RawTable, path: Path) -> RawTable:
    """Read weibo-search's posts: a CSV for each keyword, or a database of all.

    Pictures are ``images/<id>.jpg``, or ``images/<id>-<n>.jpg`` from 0, in the keyword's folder.
    """
    homes = [""]
    if path.parent.is_file():
        homes = [f"{at.name}/" for at in sorted(raw.folder.iterdir()) if (at / "images").is_dir()]

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key = name_part(row.get("id"))
        images, clips = ([f"{home}{at}/{key}" for home in homes] for at in ("images", "videos"))
        urls = split_urls(first_of(row, "微博图片url", "pics"))
        found = find_numbered(raw.folder, images, len(urls), "-", 0)
        return {
            "text": first_of(row, "微博正文", "text") or "",
            "images": found + _video(raw.folder, clips),
            "addresses": urls,
            "id": key,
            "user": first_of(row, "用户昵称", "screen_name", "user_id"),
            "time": first_of(row, "发布时间", "created_at"),
        }

    return adapt_table(raw, WEIBO_SEARCH.name, to_post)


def _video(folder: Path, stems: list[str]) -> list[str]:
    """Return the video of a post, where it was downloaded."""
    found = [find_file(folder, stems, VIDEOS)] if stems else []
    return [name for name in found if (folder / name).exists()]


_COMMENTS = frozenset({"weibo_id", "user_screen_name", "text"})

WEIBO_SEARCH = Collector(
    "weibo-search",
    (
        frozenset({"id", "微博正文", "用户昵称", "微博图片url"}),
        frozenset({"id", "bid", "text", "pics", "screen_name", "user_authentication"}),
    ),
    adapt=_adapt_search,
)
WEIBO_CRAWLER = Collector(
    "weibo-crawler",
    (
        frozenset({"id", "正文", "原始图片url"}),
        frozenset({"id", "bid", "text", "pics", "screen_name"}),
    ),
    others=(_COMMENTS,),
    adapt=partial(_adapt_user, tool="weibo-crawler"),
)
WEIBO_SPIDER = Collector(
    "weiboSpider",
    (
        frozenset({"微博id", "微博正文", "原始图片url"}),
        frozenset({"id", "content", "original_pictures", "publish_time"}),
    ),
    adapt=partial(_adapt_user, tool="weiboSpider"),
)
