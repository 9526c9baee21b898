"""Tools that collect posts: what all readers share, and those that write tables or lines of JSON.

`archives` has the others. Of most the pictures lie beside their tables. Chinese ones are
github.com/dataabc, NanmiCoder/MediaCrawler and JoeanAmier/XHS-Downloader.
"""

import json
import os
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sgmft.data.tables.base import RawRow, RawTable, parsing
from sgmft.data.tables.cells import is_deep, join_texts
from sgmft.data.tables.images import find_web_address
from sgmft.data.tables.sqlite import open_sqlite
from sgmft.errors import TEXTS, Message, SgmftError, warn

OWN = ("text", "images", "id", "user", "time")  # columns first; ``images`` is a list of paths
ADDRESSES = "image_addresses"
PICTURES: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp")
PICTURES += (".tif", ".tiff", ".heic", ".heif", ".avif")
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".m4v", ".3gp")
MEDIA = (*PICTURES, *VIDEOS)
_PASSED_ON = re.compile(r"(?:^|\n)(?:原始用户|转发内容): ")  # of weiboSpider's texts
_IMAGES = ("img/原创微博图片", "img", "原创微博图片")
_VIDEOS = ("video/原创微博视频", "video", "原创微博视频")
_MOVING = ("live_photo/原创微博Live Photo视频", "原创微博Live Photo视频")  # of live photos
_XHS_KEY = re.compile(r"[0-9a-f]{24}|\d{4}-\d\d-\d\d_\d\d\.\d\d\.\d\d")  # an id, or a time
_GONE = ("[removed]", "[deleted]", "[deleted by user]")
_KNOWN: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
COLUMNS = {tool: [{*x.split()} for x in listed] for tool, listed in _KNOWN.pop("columns").items()}
"""A table that has all of one of these is the tool's."""
FIELDS = {of: {name: x.split() for name, x in fields.items()} for of, fields in _KNOWN.items()}
ToPost = Callable[[dict[str, Any]], tuple[Any, ...] | None]


@dataclass(frozen=True)
class Collector:
    """What one tool writes; `formats.COLLECTORS` lists all of them.

    Of a path `parts` lists what `read` opens: nothing, where it is not the tool's; the path itself;
    or files and folders in it (the sub-folders of a folder without any are looked at as well).
    Asked of its own part, it returns that part.
    """

    name: str  # as ``--format`` and messages have it; given to `adapt` and `read`
    adapt: Callable[[RawTable, Path, str], RawTable] | None = None  # returns the posts of such
    parts: Callable[[Path], list[Path]] | None = None
    read: Callable[[Path, str], RawTable] | None = None
    to_post: ToPost | None = None  # in place of `adapt`, where a record tells all of a post


def adapt_table(
    raw: RawTable, tool: str, to_post: ToPost, folder: Path | None = None, own: Sequence[str] = OWN
) -> RawTable:
    """Return a table with our own columns before the tool's.

    Of a record `to_post` returns the values of the columns `own`, or None where it is no post;
    ``images`` are paths from `folder` (by default the table's), whether there is a file or not, web
    addresses, or None for a picture of which nothing is known. Those that are not there are counted
    and left out; their addresses are kept in a column `ADDRESSES`, for ``sgmft fetch``. A column of
    the tool's that has one of our names and another value is kept as ``original.NAME``.
    """
    folder = raw.folder if folder is None else folder
    counts = Counter(posts=0, found=0, missing=0)

    def rows() -> Iterator[RawRow]:
        for row in raw.rows:
            try:
                values = None if row.error is not None else to_post(row.values)
                post = dict(zip(own, values, strict=True)) if values else {}
                paths = [str(path or "") for path in post.get("images") or ()]
            except (AttributeError, KeyError, TypeError, ValueError):
                post, row = {}, replace(row, error=f"not laid out as {tool} does it")
            if not post:
                counts["left" if row.error is None else "posts"] += 1
                yield from [row] * (row.error is not None)
                continue
            gone = [path for path in paths if find_web_address(path)]
            there = [x for x in paths if x and x not in gone and os.path.lexists(folder / x)]
            counts.update(posts=1, found=len(there), missing=len(paths) - len(there))
            merged = post | {"images": there} | ({ADDRESSES: gone} if gone else {})
            for name, value in row.values.items():
                if name not in merged:
                    merged[name] = value
                elif str(value or "").strip() != str(merged[name] or "").strip():
                    merged[f"original.{name}"] = value
            yield replace(row, values=merged)

    columns = None if raw.columns is None else list(dict.fromkeys([*own, *raw.columns]))
    made = replace(raw, folder=folder, columns=columns, rows=rows(), label_columns=("label",))
    return replace(made, tool=tool, counts=counts)


def rebase(raw: RawTable, base: Path) -> RawTable:
    """Return a tool's table with paths of pictures from `base`, where they lie below it."""
    inside = os.path.relpath(raw.folder, base)
    if raw.tool is None or inside.startswith(os.pardir) or inside == os.curdir:
        return raw

    def rows() -> Iterator[RawRow]:
        for row in raw.rows:
            images = [(Path(inside) / path).as_posix() for path in row.values.get("images") or ()]
            yield replace(row, values=row.values | {"images": images}) if images else row

    return replace(raw, folder=base, rows=rows())


def pick(values: Any, *paths: str) -> Any:
    """Return the first value that is not empty at some paths, as "user.name" or "media.0.url"."""
    for path in paths:
        value = values
        for key in path.split("."):
            if isinstance(value, list):
                value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        if value not in (None, "", [], {}):
            return value
    return None


def to_time(value: Any) -> Any:
    """Return a Unix time, in seconds or milliseconds, as ISO 8601; anything else as it is."""
    if isinstance(value, bool) or not re.fullmatch(r"\d{9,13}(\.\d+)?", str(value)):
        return value
    seconds = float(value) / (1000 if float(value) > 1e11 else 1)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def load_json(path: Path, after: str = "") -> Any:
    """Read a file of JSON, or what follows `after` in it; SgmftError where it is damaged."""
    with parsing(path, "not valid JSON", "export it again"):
        text = path.read_text("utf-8-sig")
        return json.loads(text.partition(after)[2] if after else text)


def number_rows(items: Iterable[Any]) -> Iterator[RawRow]:
    """Yield a row for each item of a list; one that is no object has an error."""
    for number, item in enumerate(items, 1):
        fits = isinstance(item, dict) and not is_deep(item)
        reason = None if fits else "not an object of columns and values"
        yield RawRow(number, item if fits else {"line": str(item)[:500]}, reason)


def read_head(path: Path) -> str:
    """Return the beginning of a text file, by which a tool's is recognised."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(2**16)


def list_names(path: Path) -> list[str]:
    """List the files in a folder, in order; none where it is none."""
    return sorted(x.name for x in os.scandir(path) if x.is_file()) if path.is_dir() else []


def name_part(value: Any) -> str:
    """Return a cell that is part of a file's name; "" where it would lead to another folder."""
    text = str(value).strip("'=\" \t") if isinstance(value, (str, int)) else ""  # Excel's '5, ="5"
    text = re.sub(r"^(\d+)\.0$", r"\1", text)  # of pandas
    return "" if re.search(r"[/\\\0]|^\.*$", text) else text


class FileFinder:
    """Finds the pictures and videos of posts in folders that are listed once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = lru_cache(4096)(self._list)

    def find(self, stems: Iterable[str], suffixes: Sequence[str] = PICTURES) -> str | None:
        """Return the first of some files that is there, from the folder; *_ stands for a day."""
        for stem in stems:
            at, slash, name = stem.rpartition("/")
            there = self._names(at)
            for suffix in suffixes if there else ():
                if found := there.get(name + suffix):
                    return at + slash + found
        return None

    def media(
        self, stems: Sequence[str], urls: Any, first: str = "_1", kinds: Sequence[str] = PICTURES
    ) -> list[str | None]:
        """Return the pictures or videos of a post: STEM, or of several STEM_1, as `first` says, ...

        An address, with commas between those of pictures and semicolons between those of videos,
        stands for a file that is not there; 无 is none. A video may be there without.
        """
        parts = map(str.strip, str(urls or "").split(";" if kinds == VIDEOS else ","))
        listed = [x for x in parts if x not in ("", "无")] or [""] * (kinds == VIDEOS)
        mark, start = first[:-1], int(first[-1])
        found: list[str | None] = []
        for number, url in enumerate(listed, start):
            end = f"{mark}{number}" if listed[1:] or not mark else ""
            file = self.find([stem + end for stem in stems], kinds)
            found += [file or find_web_address(url)] if file or url else []
        return found

    def _list(self, at: str) -> dict[str, str]:
        with suppress(OSError, ValueError):
            names = os.listdir(self._folder / at)  # noqa: PTH208
            days = {re.sub(r"^\d{8}T?_", "*_", x): x for x in names}
            return days | {x.partition("?")[0]: x for x in names}  # "a.jpg?KID=1", of an address
        return {}


def _adapt_weibo_user(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read the posts of one user, or of all users in a database.

    Pictures are ``img/原创微博图片/<day>_<id>[_<n>].jpg`` beside the table, or, where weibo-crawler
    writes Markdown, ``img/<time>[_<n>].jpg``; videos ``video/原创微博视频/<day>_<id>[_<n>].mp4``,
    those of live photos, which have a picture as well, in another folder. Of a repost the text and
    pictures are its author's own. A database has posts that were passed on among the others.
    """
    in_database = path.parent.is_file()
    alone = sum(1 for file in path.parent.glob("*.csv") if file.stem.isdigit()) < 2
    owner = path.parent.name if alone else path.stem  # several users' were put into one folder
    owner = pick(raw.about, "user.screen_name", "user.nickname") or owner
    files, of = FileFinder(raw.folder), FIELDS["weibo"]
    whose = set[str]()  # ids and names of those whose posts were to be collected
    with suppress(SgmftError):  # there is a table of them in weibo-crawler's database alone
        people = open_sqlite(path.parent / "user").rows if in_database else ()
        whose = {str(row.values.get(x)) for row in people for x in ("id", "nick_name")}

    def to_post(row: dict[str, Any]) -> tuple[Any, ...] | None:
        key, time = name_part(pick(row, *of["id"])), str(pick(row, *of["time"]) or "")
        users = [pick(row, "screen_name"), pick(row, "user_id")]
        if whose and whose.isdisjoint(map(str, users)):
            return None  # it was passed on
        if time and not re.search(r"\d", time):
            raise ValueError("cells that stand in other columns than the header has")
        homes = [f"weibo/{name_part(x)}/" for x in users if x] if in_database else [""]
        month = "-".join(x.zfill(2) for x in re.findall(r"\d+", time)[:2])  # Excel writes 2025/9/1
        homes += [f"{home}{month}/" for home in homes]
        second = re.sub("[T ]", "_", time).replace(":", "-")
        stems = [f"{x}{at}/{y}" for x in homes for at in _IMAGES for y in (f"*_{key}", second)]
        images = files.media(stems, pick(row, *of["pictures"]))
        clips = [f"{x}{at}/*_{key}" for x in homes for at in _VIDEOS]
        images += files.media(clips, pick(row, *of["videos"]), kinds=VIDEOS)
        clips = [f"{x}{at}/*_{key}" for x in homes for at in _MOVING]
        moving = files.media(clips, pick(row, "Live Photo视频url", "live_photo_url"), kinds=VIDEOS)
        images += [x for x in moving if x and not find_web_address(x)]  # its picture is counted
        text = str(pick(row, *of["text"]) or "")
        text = _PASSED_ON.split(text)[0] if tool == "weibospider" else text
        user = users[0] or (users[1] if in_database else owner)
        return text, images, key, user, pick(row, "完整日期", "full_created_at") or time

    return adapt_table(raw, tool, to_post)


def _adapt_weibo_search(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read posts in a CSV for each keyword, or a database of all.

    Pictures are ``images/<id>.jpg``, or ``images/<id>-<n>.jpg`` from 0, in the keyword's folder.
    """
    homes: dict[str, str] = {}  # of the pictures of a post, where all are in a database
    for at in raw.folder.iterdir() if path.parent.is_file() else ():
        homes |= {re.split("[-.]", name)[0]: f"{at.name}/" for name in list_names(at / "images")}
    files, of = FileFinder(raw.folder), FIELDS["weibo"]

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, text = name_part(row.get("id")), pick(row, "微博正文", "text") or ""
        stems, clips = ([f"{homes.get(key, '')}{at}/{key}"] for at in ("images", "videos"))
        images = files.media(stems, pick(row, *of["pictures"]), "-0")
        images += files.media(clips, pick(row, *of["videos"]), kinds=VIDEOS)
        user = pick(row, "用户昵称", "screen_name", "user_id")
        return text, images, key, user, pick(row, "发布时间", "created_at")

    return adapt_table(raw, tool, to_post)


def _adapt_mediacrawler(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read notes from any of its tables, which lie in ``data/<platform>[/<format>]``.

    Pictures are ``data/<platform>/images/<id>/<n>.jpg`` from 0, or 000. Those of Weibo have names
    that no table holds. Of a video that is not there the cover counts, if it has one.
    """
    platform = tool.rpartition("-")[2]
    inside, at = Path("data", platform), raw.folder
    homes = (at, at.parent, at / inside, at.parent / inside, at / platform)
    folder = next((home for home in homes if (home / "images").is_dir()), at)
    if platform == "weibo" and (unused := list_names(folder / "images")):
        where = {"name": raw.name, "folder": folder / "images"}
        warn(Message(TEXTS["mediacrawler of weibo"], count=len(unused), **where))
    files, of = FileFinder(folder), FIELDS["note"]

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, title = name_part(pick(row, *of["id"])), str(row.get("title") or "")
        text = join_texts(title, str(pick(row, *of["text"]) or ""))  # the tool may make one of it
        clips = [f"{x}/{key}/{name}" for x in ("videos", "images") for name in ("0", "video")]
        stems = [f"images/{key}/{zeros}" for zeros in ("", "00", "0")] if key else []
        images = files.media(stems, pick(row, "image_list", "note_download_url"), "0")
        copies = str(row.get("video_url") or "").split(",")
        if cover := pick(row, "cover_url", "video_cover_url"):  # elsewhere the other is a page
            copies = [""] if images else [cover]
        images += files.media(clips, copies[0], kinds=VIDEOS)
        return text, images, key, pick(row, *of["user"]), to_time(pick(row, *of["time"]))

    return adapt_table(raw, tool, to_post, folder)


def _adapt_xhs_downloader(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read posts; a file is a post's if its name or folder has the id, or the time and title."""
    # how names are made is the user's choice; by default of time, author and title
    files, titles = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for at in raw.folder.rglob("*"):
        file = str(at.relative_to(raw.folder))
        for key in set(_XHS_KEY.findall(file)) if file.lower().endswith(MEDIA) else ():
            files[key].append(file)

    def letters(text: str) -> str:  # those that the tool keeps in a file's name
        return re.sub("[^a-zA-Z0-9\u4e00-\u9fff]", "", text)

    def name(row: dict[str, Any]) -> str:
        return letters(f"{row.get('作者昵称')}{row.get('作品标题') or ''}")

    rows = list(raw.rows)
    for row in rows:
        titles[str(row.values.get("发布时间"))].append(name(row.values))

    def fit(file: str, title: str) -> tuple[int, int]:  # of a long one the middle is cut
        cuts = range(len(title) + 1)
        ends = [title[:n] for n in cuts], [title[n:] for n in cuts]
        return sum(max(len(x) for x in some if x in file) for some in ends), -len(title)

    def number(file: str) -> int:  # of a file of its post; 0 for the only one
        found = re.search(r"_(\d+)\.\w+$", file)
        return int(found[1]) if found else 0

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, title, time = (str(row.get(x) or "") for x in ("作品ID", "作品标题", "发布时间"))
        begin = letters(title)[:8] or key
        timed = [x for x in files.get(time.replace(":", "."), []) if begin in letters(x)]
        best = (max(titles[time], key=partial(fit, letters(x))) for x in timed)
        timed = [x for x, y in zip(timed, best, strict=True) if y == name(row)]
        there = sorted(files.get(key) or timed, key=lambda x: (number(x), x))
        numbers = set(map(number, there))
        urls = str(row.get("下载地址") or "").split()
        images = there + [url for n, url in enumerate(urls, 1) if not numbers & {n, 0}]
        text = join_texts(title, str(row.get("作品描述") or ""))
        return text, images, key, pick(row, "作者ID", "作者昵称"), time.replace("_", " ")

    return adapt_table(replace(raw, rows=iter(rows)), tool, to_post)


def _read_submission(row: dict[str, Any]) -> tuple[Any, ...] | None:
    """Read a submission as Pushshift, Arctic Shift, the API and snscrape have it."""
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
    link = pick(row, "url_overridden_by_dest", "link", "url") or ""
    if not items and (address or link.partition("?")[0].lower().endswith(PICTURES)):
        images.append(address or link)
    text = "\n\n".join(x for x in texts if isinstance(x, str) and x and x not in _GONE)
    user = None if row.get("author") in _GONE else row.get("author")
    time = to_time(pick(row, "created_utc", "created", "date"))
    return text, images, pick(row, "id", "name"), user, time


def _read_tweet(row: dict[str, Any]) -> tuple[Any, ...]:
    """Read a post; a repost without pictures of its own has those of the post passed on."""
    media = (_list_addresses(pick(row, x)) for x in FIELDS["tweet"]["media"])
    text, *others = (pick(row, *FIELDS["tweet"][x]) for x in ("text", "id", "user", "time"))
    return text, next(filter(None, media), []), *others


def _read_toot(row: dict[str, Any]) -> tuple[Any, ...] | None:
    """Read a post of Mastodon's API, or one in the outbox of an archive, where boosts have none."""
    if "account" in row:
        return _read_tweet(row)
    post, user = row["object"], str(row["actor"]).rpartition("/")[2]
    if not isinstance(post, dict):
        return None
    images = [str(pick(x, "url") or "").lstrip("/") for x in post.get("attachment") or ()]
    return pick(post, "content"), images, pick(post, "id"), user, row["published"]


def _list_addresses(media: Any) -> list[str]:
    """Return an address for each picture and video of a tweet: of a video that of most bits."""
    media = [media] if isinstance(media, str) else media
    if isinstance(media, dict):  # of kinds, or ids
        media = [y for x in media.values() for y in (x if isinstance(x, list) else [x])]
    found: list[str] = []
    for item in media or ():
        variants = pick(item, "variants", "video_info.variants") or ()
        rated = [x for x in variants if pick(x, "bitrate")]
        best = max(rated, key=lambda x: float(x["bitrate"]), default=item)
        address = pick(best, *FIELDS["tweet"]["address"])
        found += filter(None, [item if isinstance(item, str) else address])
    return found


CRAWLERS = (  # in the order in which a table's columns are looked at
    Collector("weibo-search", _adapt_weibo_search),
    *(Collector(x, _adapt_weibo_user) for x in ("weibo-crawler", "weibospider")),
    *(Collector(f"mediacrawler{x}", _adapt_mediacrawler) for x in ("-xhs", "-weibo", "")),
    Collector("xhs-downloader", _adapt_xhs_downloader),
    Collector("reddit", to_post=_read_submission),
    Collector("mastodon", to_post=_read_toot),
    *(Collector(name, to_post=_read_tweet) for name in _KNOWN["tweet"]["tools"].split()),
)
