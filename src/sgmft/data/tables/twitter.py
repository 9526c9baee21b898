"""JSON lines of twscrape and snscrape, which download no pictures."""

from functools import partial
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import pick

_NAMES = ("user.username", "username", "author", "user.account", "user.screenname", "user.id")


def _adapt(name: str, raw: RawTable, path: Path) -> RawTable:
    """Read posts; a repost without pictures of its own has those of the post passed on."""

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        media = pick(row, "media"), pick(row, "retweetedTweet.media")
        return {
            "text": pick(row, "rawContent", "content", "renderedContent", "text"),
            "images": next(filter(None, map(_addresses, media)), []),
            "id": pick(row, "id_str", "id", "url"),
            "user": pick(row, *_NAMES),
            "time": pick(row, "date", "createdAt"),
        }

    return tools.adapt_table(raw, name, to_post)


def _addresses(media: Any) -> list[str]:
    """Return an address for each picture and video: of a video that of most bits."""
    kinds = [pick(media, x) for x in ("photos", "animated", "videos")]
    found = []
    for item in media if isinstance(media, list) else (x for some in kinds for x in some or ()):
        variants = [x for x in pick(item, "variants") or () if pick(x, "bitrate")]
        best = max(variants, key=lambda x: float(x["bitrate"]), default=None)
        address = pick(best, "url") or pick(item, "fullUrl", "videoUrl", "url", "thumbnailUrl")
        found += [address] if address else []
    return found


SNSCRAPE = tools.Collector(
    "snscrape",
    (
        frozenset({"rawContent", "renderedContent", "date"}),
        frozenset({"content", "date", "outlinks"}),
        frozenset({"_type", "_snscrape"}),
    ),
    adapt=partial(_adapt, "snscrape"),
)
TWSCRAPE = tools.Collector(
    "twscrape",
    (frozenset({"rawContent", "date", "user"}),),
    adapt=partial(_adapt, "twscrape"),
)
