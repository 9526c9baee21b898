"""What weibo-crawler, weiboSpider and weibo-search write (github.com/dataabc).

Of a repost the text and pictures are its author's own; the post that was passed on stays in the
tools' columns.
"""

import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import Collector, pick

_PASSED_ON = re.compile(r"\n(?:原始用户|转发内容): ")  # of weiboSpider's texts
_IMAGES = ("img/原创微博图片", "img", "原创微博图片")
_VIDEOS = ("video/原创微博视频", "video")
_TIMES = ("created_at", "日期", "publish_time", "发布时间", "完整日期")


def _adapt_user(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read the posts of one user, or of all users in a database.

    Pictures are ``img/原创微博图片/<day>_<id>[_<n>].jpg`` beside the table, or, where weibo-crawler
    writes Markdown, ``img/<time>[_<n>].jpg``; videos ``video/原创微博视频/<day>_<id>.mp4``.
    """
    in_database = path.parent.is_file()
    alone = sum(1 for file in path.parent.glob("*.csv") if file.stem.isdigit()) < 2
    owner = path.parent.name if alone else path.stem  # several users' were put into one folder
    owner = pick(raw.about, "user.screen_name", "user.nickname") or owner

    @lru_cache(1024)
    def is_there(at: str) -> bool:
        return (raw.folder / at).is_dir()

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key, time = tools.name_part(pick(row, "id", "微博id")), str(pick(row, *_TIMES) or "")
        users = [pick(row, "screen_name"), pick(row, "user_id")]
        homes = [f"weibo/{tools.name_part(x)}/" for x in users if x] if in_database else [""]
        homes += [f"{home}{time[:7]}/" for home in homes]
        day, second = time[:10].replace("-", ""), re.sub("[T ]", "_", time).replace(":", "-")
        stems = [f"{day}T_{key}", f"{day}_{key}"]
        images, clips = (
            [place for x in homes for at in places if is_there(place := f"{x}{at}")]
            for places in (_IMAGES, _VIDEOS)
        )
        images = [f"{place}/{x}" for place in images for x in (*stems, second)]
        urls = pick(row, "原始图片url", "pics", "original_pictures")
        text = str(pick(row, "正文", "微博正文", "text", "content") or "")
        return {
            "text": _PASSED_ON.split(text)[0] if tool == "weibospider" else text,
            "images": tools.find_numbered(raw.folder, images, urls)
            + tools.find_video(raw.folder, [f"{place}/{x}" for place in clips for x in stems]),
            "id": key,
            "user": users[0] or (users[1] if in_database else owner),
            "time": pick(row, "完整日期", "full_created_at") or time,
        }

    return tools.adapt_table(raw, tool, to_post)


def _adapt_search(raw: RawTable, path: Path) -> RawTable:
    """Read weibo-search's posts: a CSV for each keyword, or a database of all.

    Pictures are ``images/<id>.jpg``, or ``images/<id>-<n>.jpg`` from 0, in the keyword's folder.
    """
    homes: dict[str, str] = {}  # of the pictures of a post, where all are in a database
    for at in raw.folder.iterdir() if path.parent.is_file() else ():
        names = tools.list_names(at / "images")
        homes |= {re.split("[-.]", name)[0]: f"{at.name}/" for name in names}

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key, urls = tools.name_part(row.get("id")), pick(row, "微博图片url", "pics")
        images, clips = ([f"{homes.get(key, '')}{at}/{key}"] for at in ("images", "videos"))
        return {
            "text": pick(row, "微博正文", "text") or "",
            "images": tools.find_numbered(raw.folder, images, urls, "-", 0)
            + tools.find_video(raw.folder, clips),
            "id": key,
            "user": pick(row, "用户昵称", "screen_name", "user_id"),
            "time": pick(row, "发布时间", "created_at"),
        }

    return tools.adapt_table(raw, WEIBO_SEARCH.name, to_post)


_DATABASE = frozenset({"id", "bid", "text", "pics", "screen_name"})
WEIBO_SEARCH = Collector(
    "weibo-search",
    (frozenset({"id", "微博正文", "用户昵称", "微博图片url"}), _DATABASE | {"user_authentication"}),
    adapt=_adapt_search,
)
WEIBO_CRAWLER = Collector(
    "weibo-crawler",
    (frozenset({"id", "正文", "原始图片url"}), _DATABASE),
    adapt=partial(_adapt_user, tool="weibo-crawler"),
)
WEIBO_SPIDER = Collector(
    "weibospider",
    (
        frozenset({"微博id", "微博正文", "原始图片url"}),
        frozenset({"id", "content", "original_pictures", "publish_time"}),
    ),
    adapt=partial(_adapt_user, tool="weibospider"),
)
