"""The archive of one's own posts that X (Twitter) sends: ``data/tweets.js`` and its media."""

import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import pick

_POSTS = re.compile(r"tweets?(-part\d+)?\.js")  # tweet.js until 2022


def _list_parts(path: Path) -> list[Path]:
    folders = (path, path / "data")
    files = [path] if path.is_file() else [x / y for x in folders for y in tools.list_names(x)]
    posts = [file for file in files if _POSTS.fullmatch(file.name)]
    return [file for file in posts if tools.read_head(file).startswith("window.YTD.tweet")]


def _open(path: Path) -> RawTable:
    account = path.parent / "account.js"
    people = tools.load_json(account, after="=") if account.is_file() else []
    user = pick(people, "0.account.username", "0.account.accountId")
    media = "tweet_media" if (path.parent / "tweet_media").is_dir() else "tweets_media"

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key, time = pick(row, "id_str", "id"), pick(row, "created_at")
        return {
            "text": pick(row, "full_text", "text"),
            "images": [f"{media}/{key}-{name}" for name in _media_names(row)],
            "id": key,
            "user": user,
            "time": time and parsedate_to_datetime(time).isoformat(),
        }

    posts = [pick(item, "tweet") or item for item in tools.load_json(path, after="=")]
    rows = tools.number_rows(posts)
    return tools.adapt_table(RawTable(path.name, path.parent, None, rows), X_ARCHIVE.name, to_post)


def _media_names(row: dict[str, Any]) -> Iterator[str]:
    """Yield the names of a post's files in the archive: of a video that of most bits."""
    for item in pick(row, "extended_entities.media", "entities.media") or ():
        variants = pick(item, "video_info.variants") or []
        best: Any = max(variants, key=lambda x: int(x.get("bitrate") or -1), default={})
        address = pick(best, "url") or pick(item, "media_url_https", "media_url") or ""
        if name := address.partition("?")[0].rpartition("/")[2]:
            yield name


X_ARCHIVE = tools.Collector("x-archive", parts=_list_parts, read=_open)
