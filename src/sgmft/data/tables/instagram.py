"""The copy of one's own data that Instagram sends: ``posts_1.json`` and the media it names."""

import re
from itertools import chain
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import pick

_POSTS = re.compile(r"(posts_\d+|reels|stories|archived_posts|igtv_videos|media)\.json")
_OLD = ("photos", "videos", "stories")  # lists of media.json, until 2021
_TIMES = ("creation_timestamp", "media.0.creation_timestamp", "taken_at")
_FOLDERS = ("", "content", "media", *(f"your_instagram_activity/{x}" for x in ("content", "media")))


def _list_parts(path: Path) -> list[Path]:
    listed = [path / at / x for at in _FOLDERS for x in tools.list_names(path / at)]
    files = [file for file in ([path] if path.is_file() else listed) if _POSTS.fullmatch(file.name)]
    return [file for file in files if re.search('"(uri|taken_at)":', tools.read_head(file))]


def _open(path: Path) -> RawTable:
    posts = tools.load_json(path)
    if isinstance(posts, dict):  # {"ig_reels_media": [...]}
        lists = [x for key, x in posts.items() if key.startswith("ig_") or key in _OLD]
        posts = list(chain(*lists))
    files = [uri for post in posts[:100] if (uri := pick(post, "media.0.uri", "uri", "path"))]
    above = path.absolute().parents
    root = next((at for at in above for file in files if (at / file).exists()), path.parent)
    user = re.fullmatch(r"instagram-(.+)-\d{4}-\d\d-\d\d-\w+", root.name)

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        media = pick(row, "media") or [row]  # a story is its own medium
        images = [uri for file in media if (uri := pick(file, "uri", "path"))]
        return {
            "text": repair(pick(row, "title", "media.0.title", "caption") or ""),
            "images": images,
            "id": Path(images[0]).stem if images else None,
            "user": user[1] if user else None,
            "time": tools.to_time(pick(row, *_TIMES)),
        }

    raw = RawTable(path.name, root, None, tools.number_rows(posts))
    return tools.adapt_table(raw, INSTAGRAM.name, to_post)


def repair(text: str) -> str:
    """Return a text whose UTF-8 was written as Latin-1, as Instagram does; any other as it is.

    Another text is not taken for one: its letters would have to be valid UTF-8 byte by byte.
    """
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


INSTAGRAM = tools.Collector("instagram", parts=_list_parts, read=_open)
