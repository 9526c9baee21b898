"""What weibo-crawler, weiboSpider and weibo-search write (github.com/dataabc)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import (
    Collector,
    adapt_table,
    find_file,
    name_part,
)

_FOLDERS = ("img/原创微博图片", "原创微博图片", "img")


def _adapt_crawler(raw: RawTable, path: Path) -> RawTable:
    """Read weibo-crawler's posts: CSV, JSON with ``user`` and ``weibo``, or a SQLite database.

    Pictures are ``img/原创微博图片/<date>_<id>[_<n>].jpg`` beside the table. Of a repost that is
    what its author wrote and added; the post that was passed on stays in its own columns.
    """

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key, time = (
            name_part(row.get("id")),
            _first(row, "完整日期", "full_created_at", "created_at", "日期"),
        )
        pictures = _split(_first(row, "原始图片url", "pics"))
        post = {"text": _first(row, "正文", "text"), "id": key, "time": time}
        post["images"] = list(_dated(raw.folder, _FOLDERS, str(time), key, len(pictures)))
        post["user"] = _first(row, "screen_name") or path.parent.name
        return post

    return adapt_table(raw, WEIBO_CRAWLER.name, to_post)


def _dated(
    folder: Path, folders: tuple[str, ...], time: str, key: str, count: int
) -> Iterator[str]:
    """Yield the paths of a post's pictures: <date>_<id>.jpg, or _1 to _n of them."""
    days = [time[:10].replace("-", "") + mark for mark in ("T", "")]
    for number in range(1, count + 1):
        end = f"_{number}" if count > 1 else ""
        stems = [f"{at}/{day}_{key}{end}" for at in folders for day in days if key]
        if stems:
            yield find_file(folder, stems)


def _first(row: dict[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _split(urls: Any) -> list[str]:
    """Return the addresses of a cell; 无 stands for none."""
    return [x for x in str(urls or "").split(",") if x.strip() and x.strip() != "无"]


WEIBO_CRAWLER = Collector(
    "weibo-crawler",
    (
        frozenset({"id", "正文", "原始图片url"}),
        frozenset({"id", "bid", "text", "pics", "screen_name"}),
    ),
    adapt=_adapt_crawler,
)
