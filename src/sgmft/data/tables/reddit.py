"""Submissions of Reddit as JSON lines: Pushshift's, Arctic Shift's and the API's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import pick

_GONE = ("[removed]", "[deleted]", "[deleted by user]")


def _adapt(raw: RawTable, path: Path) -> RawTable:
    def to_post(row: dict[str, Any]) -> dict[str, Any] | None:
        if "title" not in row:  # a comment
            return None
        texts = (row["title"], row.get("selftext"))
        return {
            "text": "\n\n".join(x for x in texts if isinstance(x, str) and x and x not in _GONE),
            "images": list(_addresses(row)),
            "id": pick(row, "id", "name"),
            "user": None if row.get("author") in _GONE else row.get("author"),
            "time": tools.to_time(pick(row, "created_utc", "created")),
        }

    return tools.adapt_table(raw, REDDIT.name, to_post)


def _addresses(row: dict[str, Any]) -> Iterator[str]:
    """Yield the addresses of a submission's pictures, or of its video."""
    items = pick(row, "gallery_data.items", "crosspost_parent_list.0.gallery_data.items") or ()
    kinds = pick(row, "media_metadata", "crosspost_parent_list.0.media_metadata")
    for key in filter(None, (pick(item, "media_id") for item in items)):
        kind = pick(kinds, f"{key}.m") or "image/jpg"
        yield f"https://i.redd.it/{key}.{kind.rpartition('/')[2]}"
    address = pick(row, "media.reddit_video.fallback_url")
    link = pick(row, "url_overridden_by_dest", "url") or ""
    if not items and (address or link.partition("?")[0].lower().endswith(tools.PICTURES)):
        yield address or link


REDDIT = tools.Collector(
    "reddit",
    (frozenset({"subreddit", "title", "author", "created_utc"}),),
    adapt=_adapt,
)
