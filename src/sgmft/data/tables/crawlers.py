"""Tools that write tables or lines of JSON; of most the pictures lie beside them.

Chinese ones are github.com/dataabc, NanmiCoder/MediaCrawler and JoeanAmier/XHS-Downloader.
"""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import Collector, FileFinder, adapt_table, name_part, pick
from sgmft.errors import warn

_PASSED_ON = re.compile(r"\n(?:原始用户|转发内容): ")  # of weiboSpider's texts
_IMAGES = ("img/原创微博图片", "img", "原创微博图片")
_VIDEOS = ("video/原创微博视频", "video")
_TIMES = ("created_at", "日期", "publish_time", "发布时间", "完整日期")
_XHS_KEY = re.compile(r"[0-9a-f]{24}|\d{4}-\d\d-\d\d_\d\d\.\d\d\.\d\d")  # an id, or a time
_GONE = ("[removed]", "[deleted]", "[deleted by user]")
_USERS = ("user.username", "username", "author", "user.account", "user.screenname", "user.id")


def _adapt_weibo_user(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read the posts of one user, or of all users in a database.

    Pictures are ``img/原创微博图片/<day>_<id>[_<n>].jpg`` beside the table, or, where weibo-crawler
    writes Markdown, ``img/<time>[_<n>].jpg``; videos ``video/原创微博视频/<day>_<id>.mp4``. Of a
    repost the text and pictures are its author's own.
    """
    in_database = path.parent.is_file()
    alone = sum(1 for file in path.parent.glob("*.csv") if file.stem.isdigit()) < 2
    owner = path.parent.name if alone else path.stem  # several users' were put into one folder
    owner = pick(raw.about, "user.screen_name", "user.nickname") or owner
    files = FileFinder(raw.folder)

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, time = name_part(pick(row, "id", "微博id")), str(pick(row, *_TIMES) or "")
        users = [pick(row, "screen_name"), pick(row, "user_id")]
        homes = [f"weibo/{name_part(x)}/" for x in users if x] if in_database else [""]
        homes += [f"{home}{time[:7]}/" for home in homes]
        day, second = time[:10].replace("-", ""), re.sub("[T ]", "_", time).replace(":", "-")
        stems = [f"{day}T_{key}", f"{day}_{key}"]
        images = [f"{x}{at}/{y}" for x in homes for at in _IMAGES for y in (*stems, second)]
        clips = [f"{x}{at}/{y}" for x in homes for at in _VIDEOS for y in stems]
        urls = pick(row, "原始图片url", "pics", "original_pictures")
        text = str(pick(row, "正文", "微博正文", "text", "content") or "")
        text = _PASSED_ON.split(text)[0] if tool == "weibospider" else text
        user = users[0] or (users[1] if in_database else owner)
        time = pick(row, "完整日期", "full_created_at") or time
        return text, files.media(images, urls, clips), key, user, time

    return adapt_table(raw, tool, to_post)


def _adapt_weibo_search(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read posts in a CSV for each keyword, or a database of all.

    Pictures are ``images/<id>.jpg``, or ``images/<id>-<n>.jpg`` from 0, in the keyword's folder.
    """
    homes: dict[str, str] = {}  # of the pictures of a post, where all are in a database
    for at in raw.folder.iterdir() if path.parent.is_file() else ():
        homes |= {
            re.split("[-.]", name)[0]: f"{at.name}/" for name in tools.list_names(at / "images")
        }
    files = FileFinder(raw.folder)

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, text = name_part(row.get("id")), pick(row, "微博正文", "text") or ""
        stems, clips = ([f"{homes.get(key, '')}{at}/{key}"] for at in ("images", "videos"))
        images = files.media(stems, pick(row, "微博图片url", "pics"), clips, "-", 0)
        user = pick(row, "用户昵称", "screen_name", "user_id")
        return text, images, key, user, pick(row, "发布时间", "created_at")

    return adapt_table(raw, tool, to_post)


def _adapt_mediacrawler(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read notes from any of its tables, which lie in ``data/<platform>[/<format>]``.

    Pictures of Xiaohongshu are ``data/xhs/images/<id>/<n>.jpg`` from 0. Those of Weibo have names
    that no table holds.
    """
    platform = tool.rpartition("-")[2]
    inside, at = Path("data", platform), raw.folder
    homes = (at, at.parent, at / inside, at.parent / inside, at / platform)
    folder = next((home for home in homes if (home / "images").is_dir()), at)
    if platform == "weibo" and (unused := tools.list_names(folder / "images")):
        warn(
            f"{raw.name}: MediaCrawler does not write which post of Weibo a picture belongs to; "
            f"{len(unused)} files in {folder / 'images'} are not used."
        )
    files = FileFinder(folder)

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, title = name_part(row.get("note_id")), str(row.get("title") or "")
        text = str(pick(row, "desc", "content") or "")
        if not text.startswith(title):  # the tool makes a title of the text where there is none
            text = f"{title}\n{text}" if text else title
        clips = [f"{x}/{key}/{name}" for x in ("videos", "images") for name in ("0", "video")]
        stems = [f"images/{key}/"] if key else []
        images = files.media(stems, row.get("image_list"), clips, "", 0)
        user = pick(row, "user_id", "creator_hash", "nickname")  # newer nicknames are masked
        time = tools.to_time(pick(row, "create_date_time", "time", "create_time"))
        return text, images, key, user, time

    return adapt_table(raw, tool, to_post, folder)


def _adapt_xhs_downloader(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read posts; a file is a post's if its name or folder has the id, or the time and title.

    How names are made is the user's choice; by default of time, author and title.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for at, _, names in os.walk(raw.folder):
        for name in names:
            if name.lower().endswith(tools.MEDIA):
                file = os.path.relpath(Path(at, name), raw.folder)
                for key in set(_XHS_KEY.findall(file)):
                    files[key].append(file)

    def letters(text: str) -> str:  # those that the tool keeps in a file's name
        return re.sub("[^a-zA-Z0-9\u4e00-\u9fff]", "", text)

    def number(file: str) -> int:  # of a file of its post; 0 for the only one
        found = re.search(r"_(\d+)\.\w+$", file)
        return int(found[1]) if found else 0

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, title, time = (str(row.get(x) or "") for x in ("作品ID", "作品标题", "发布时间"))
        begin = letters(title)[:8] or key
        timed = [x for x in files.get(time.replace(":", "."), []) if begin in letters(x)]
        there = sorted(files.get(key) or timed, key=lambda x: (number(x), x))
        numbers = set(map(number, there))
        urls = str(row.get("下载地址") or "").split()
        images = there + [url for n, url in enumerate(urls, 1) if not numbers & {n, 0}]
        text = "\n".join(filter(None, (title, row.get("作品描述"))))
        return text, images, key, pick(row, "作者ID", "作者昵称"), time.replace("_", " ")

    return adapt_table(raw, tool, to_post)


def _adapt_reddit(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read submissions as Pushshift, Arctic Shift and the API have them."""

    def to_post(row: dict[str, Any]) -> tuple[Any, ...] | None:
        if "title" not in row:  # a comment
            return None
        texts = (row["title"], row.get("selftext"))
        items = pick(row, "gallery_data.items", "crosspost_parent_list.0.gallery_data.items") or ()
        kinds = pick(row, "media_metadata", "crosspost_parent_list.0.media_metadata")
        images = []
        for key in filter(None, (pick(item, "media_id") for item in items)):
            kind = pick(kinds, f"{key}.m") or "image/jpg"
            images.append(f"https://i.redd.it/{key}.{kind.rpartition('/')[2]}")
        address = pick(row, "media.reddit_video.fallback_url")
        link = pick(row, "url_overridden_by_dest", "url") or ""
        if not items and (address or link.partition("?")[0].lower().endswith(tools.PICTURES)):
            images.append(address or link)
        text = "\n\n".join(x for x in texts if isinstance(x, str) and x and x not in _GONE)
        user = None if row.get("author") in _GONE else row.get("author")
        time = tools.to_time(pick(row, "created_utc", "created"))
        return text, images, pick(row, "id", "name"), user, time

    return adapt_table(raw, tool, to_post)


def _adapt_tweets(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read posts; a repost without pictures of its own has those of the post passed on."""

    def addresses(media: Any) -> list[str]:
        """Return an address for each picture and video: of a video that of most bits."""
        kinds = [pick(media, x) for x in ("photos", "animated", "videos")]
        found = []
        for item in media if isinstance(media, list) else (x for some in kinds for x in some or ()):
            variants = [x for x in pick(item, "variants") or () if pick(x, "bitrate")]
            best = max(variants, key=lambda x: float(x["bitrate"]), default=None)
            address = pick(best, "url") or pick(item, "fullUrl", "videoUrl", "url", "thumbnailUrl")
            found += [address] if address else []
        return found

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        media = pick(row, "media"), pick(row, "retweetedTweet.media")
        text = pick(row, "rawContent", "content", "renderedContent", "text")
        images = next(filter(None, map(addresses, media)), [])
        key, time = pick(row, "id_str", "id", "url"), pick(row, "date", "createdAt")
        return text, images, key, pick(row, *_USERS), time

    return adapt_table(raw, tool, to_post)


_WEIBO = {"id", "bid", "text", "pics", "screen_name"}  # a database
_SPIDER = {"微博id", "微博正文", "原始图片url"}
_SPIDER_JSON = {"id", "content", "original_pictures", "publish_time"}
_SEARCH = {"id", "微博正文", "用户昵称", "微博图片url"}
_NOTE_WEIBO = {"note_id", "content", "create_date_time", "shared_count"}
_SNSCRAPE = (
    {"rawContent", "renderedContent", "date"},
    {"content", "date", "outlinks"},
    {"_type", "_snscrape"},
)
CRAWLERS = (
    Collector("weibo-search", (_SEARCH, _WEIBO | {"user_authentication"}), _adapt_weibo_search),
    Collector("weibo-crawler", ({"id", "正文", "原始图片url"}, _WEIBO), _adapt_weibo_user),
    Collector("weibospider", (_SPIDER, _SPIDER_JSON), _adapt_weibo_user),
    Collector("mediacrawler-xhs", ({"note_id", "desc", "image_list"},), _adapt_mediacrawler),
    Collector("mediacrawler-weibo", (_NOTE_WEIBO,), _adapt_mediacrawler),
    Collector("xhs-downloader", ({"作品ID", "作品描述", "下载地址"},), _adapt_xhs_downloader),
    Collector("reddit", ({"subreddit", "title", "author", "created_utc"},), _adapt_reddit),
    Collector("snscrape", _SNSCRAPE, _adapt_tweets),
    Collector("twscrape", ({"rawContent", "date", "user"},), _adapt_tweets),
)
"""In the order in which a table's columns are looked at."""
