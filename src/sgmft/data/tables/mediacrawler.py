"""What MediaCrawler writes for Weibo and Xiaohongshu (github.com/NanmiCoder/MediaCrawler)."""

import warnings
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
from sgmft.errors import SgmftWarning


def _adapt(raw: RawTable, path: Path, platform: str) -> RawTable:
    """Read notes from any of its tables, which lie in ``data/<platform>[/<format>]``.

    Pictures of Xiaohongshu are ``data/xhs/images/<id>/<n>.jpg`` from 0. Of Weibo they have names
    that no table holds.
    """
    folder = _find_home(raw.folder, platform)
    if platform == "weibo" and folder != raw.folder:
        unused = sum(1 for file in (folder / "images").iterdir() if not file.name.startswith("."))
        warnings.warn(
            f"{raw.name}: MediaCrawler does not write which post of Weibo a picture belongs to; "
            f"{unused} files in {folder / 'images'} are not used.",
            SgmftWarning,
            stacklevel=2,
        )

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key = name_part(row.get("note_id"))
        text, title = str(first_of(row, "desc", "content") or ""), str(row.get("title") or "")
        if title and not text.startswith(title):  # the tool makes a title of a text without one
            text = f"{title}\n{text}" if text else title
        urls = split_urls(row.get("image_list"))
        stems = [f"{at}/{key}/{name}" for at in ("videos", "images") for name in ("0", "video")]
        video = find_file(folder, stems, VIDEOS)
        return {
            "text": text,
            "images": find_numbered(folder, [f"images/{key}/"] if key else [], len(urls), "", 0)
            + [video] * (folder / video).exists(),
            "addresses": urls,
            "id": key,
            "user": first_of(row, "user_id", "creator_hash", "nickname"),
            "time": first_of(row, "create_date_time", "time", "create_time"),
        }

    return adapt_table(raw, f"mediacrawler-{platform}", to_post, folder)


def _find_home(folder: Path, platform: str) -> Path:
    """Return the folder of a platform, which holds ``images``; the table's where there is none."""
    inside = Path("data", platform)
    places = (folder, folder.parent, folder / inside, folder.parent / inside, folder / platform)
    return next((place for place in places if (place / "images").is_dir()), folder)


_COMMENTS = frozenset({"comment_id", "note_id", "content"})

MEDIACRAWLER_XHS = Collector(
    "mediacrawler-xhs",
    (frozenset({"note_id", "desc", "image_list"}),),
    others=(_COMMENTS,),
    adapt=partial(_adapt, platform="xhs"),
)
MEDIACRAWLER_WEIBO = Collector(
    "mediacrawler-weibo",
    (frozenset({"note_id", "content", "create_date_time", "shared_count"}),),
    adapt=partial(_adapt, platform="weibo"),
)
