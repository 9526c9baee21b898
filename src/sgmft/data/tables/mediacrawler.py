"""What MediaCrawler writes for Weibo and Xiaohongshu (github.com/NanmiCoder/MediaCrawler)."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import Collector, pick
from sgmft.errors import SgmftWarning


def _adapt(raw: RawTable, path: Path, platform: str) -> RawTable:
    """Read notes from any of its tables, which lie in ``data/<platform>[/<format>]``.

    Pictures of Xiaohongshu are ``data/xhs/images/<id>/<n>.jpg`` from 0. Those of Weibo have names
    that no table holds.
    """
    inside, at = Path("data", platform), raw.folder
    homes = (at, at.parent, at / inside, at.parent / inside, at / platform)
    folder = next((home for home in homes if (home / "images").is_dir()), at)
    if platform == "weibo" and (unused := tools.list_names(folder / "images")):
        warnings.warn(
            f"{raw.name}: MediaCrawler does not write which post of Weibo a picture belongs to; "
            f"{len(unused)} files in {folder / 'images'} are not used.",
            SgmftWarning,
            stacklevel=2,
        )

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key, title = tools.name_part(row.get("note_id")), str(row.get("title") or "")
        text = str(pick(row, "desc", "content") or "")
        if not text.startswith(title):  # the tool makes a title of the text where there is none
            text = f"{title}\n{text}" if text else title
        clips = [f"{x}/{key}/{name}" for x in ("videos", "images") for name in ("0", "video")]
        stems = [f"images/{key}/"] if key else []
        return {
            "text": text,
            "images": tools.find_numbered(folder, stems, row.get("image_list"), "", 0)
            + tools.find_video(folder, clips),
            "id": key,
            "user": pick(row, "user_id", "creator_hash", "nickname"),  # newer nicknames are masked
            "time": tools.to_time(pick(row, "create_date_time", "time", "create_time")),
        }

    return tools.adapt_table(raw, f"mediacrawler-{platform}", to_post, folder)


MEDIACRAWLER_XHS = Collector(
    "mediacrawler-xhs",
    (frozenset({"note_id", "desc", "image_list"}),),
    adapt=partial(_adapt, platform="xhs"),
)
MEDIACRAWLER_WEIBO = Collector(
    "mediacrawler-weibo",
    (frozenset({"note_id", "content", "create_date_time", "shared_count"}),),
    adapt=partial(_adapt, platform="weibo"),
)
