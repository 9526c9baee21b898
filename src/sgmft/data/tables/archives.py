"""Tools that are known by how their files lie, and copies of one's own data that networks send."""

import glob
import json
import lzma
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from html import unescape
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.collectors import Collector, adapt_table, list_names, number_rows, pick
from sgmft.errors import TEXTS, Message, warn
from sgmft.utils.files import load_patterns

_OF = tools.FIELDS["gallery-dl"]
_LIKE = load_patterns(Path(__file__).with_suffix(".toml"))
_OLD = ("photos", "videos", "stories")  # lists of media.json, until 2021
_TIMES = ("creation_timestamp", "media.0.creation_timestamp", "taken_at")
_FOLDERS = ("", "content", "media", *(f"your_instagram_activity/{x}" for x in ("content", "media")))
_TIME = _LIKE["time"]


def _files(path: Path, *folders: str) -> list[Path]:
    """Return a file, or those in some folders of a folder."""
    found = [path / at / name for at in folders or ("",) for name in list_names(path / at)]
    return [path] if path.is_file() else found


def _list_gallery(path: Path) -> list[Path]:
    """List dumps of all records; the folder itself where there is .json beside each file."""
    files = [file for file in _files(path) if file.suffix == ".json"]
    if path.is_dir() and any(_LIKE["record"].match(tools.read_head(file)) for file in files[:20]):
        return [path]
    return [file for file in files if _LIKE["dump"].match(tools.read_head(file))]


def _open_gallery(path: Path, tool: str) -> RawTable:
    records: list[dict[str, Any]] = []
    if path.is_file():
        for _, *address, data in tools.load_json(path):  # of a post, and of each of its files
            records.append(data | ({"url": address[0]} if address else {"num": None}))
    else:
        for name in list_names(path):
            data = tools.load_json(path / name) if name.endswith(".json") else {}
            if pick(data, "category"):
                records.append(data | {"file": name.removesuffix(".json")})
        records.sort(key=lambda data: (_key(data), data.get("num") or 0))
    folder = path.parent if path.is_file() else path
    return _adapt_gallery(RawTable(path.name, folder, None, number_rows(records)), path, tool)


def _adapt_gallery(raw: RawTable, path: Path, tool: str) -> RawTable:
    """Read posts; a record is of one file, and those of a post follow each other."""
    finder, images = tools.FileFinder(raw.folder), list[str | None]()  # of the post that is read

    def rows() -> Iterator[RawRow]:
        for _, group in groupby(raw.rows, lambda row: (row.error, _key(row.values))):
            some = list(group)
            media = [x for row in some for x in _media(finder, raw.folder, row.values)]
            images[:] = [*dict.fromkeys(filter(None, media)), *(x for x in media if x is None)]
            yield some[0]

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        post = pick(row, "status") or row  # Weibo's
        text = "\n".join(str(x) for x in (pick(post, "title"), pick(post, *_OF["text"])) if x)
        users = (x for name in _OF["user"] if isinstance(x := pick(post, name), str))
        return text, [*images], pick(post, *_OF["id"]), next(users, None), pick(post, *_OF["time"])

    return adapt_table(replace(raw, rows=rows()), tool, to_post)


def _key(data: dict[str, Any]) -> str:
    return f"{data.get('category')} {pick(pick(data, 'status') or data, *_OF['id'])}"


def _media(finder: tools.FileFinder, folder: Path, data: dict[str, Any]) -> list[str | None]:
    """List the file that a record is of, or its address; all files of a post, if it is of that."""
    if "num" in data and data["num"] is None:
        return []
    file, key = str(data.get("file", "")), tools.name_part(_key(data).partition(" ")[2])
    if file.lower().endswith(tools.MEDIA):
        return [file]
    if "extension" not in data:
        names = (x.name for x in folder.glob(f"{glob.escape(key or '?')}[_.]*"))
        return [*sorted((x for x in names if x.endswith(tools.MEDIA)), key=lambda x: (len(x), x))]
    number = data["num"] if isinstance(data.get("num"), int) else 0
    media = tools.name_part(data.get("media_id"))
    stems = [file, f"{key}_{number}", f"{key}_{number:02}", f"{key}_{media}", media]
    stems += [tools.name_part(data.get("filename")), key]
    name = finder.find(filter(None, stems), [f".{tools.name_part(data.get('extension'))}"])
    return [name or data.get("url")]


def _list_instaloader(path: Path) -> list[Path]:
    names = list_names(path)
    plain = (tools.read_head(path / x) for x in names[:50] if x.endswith(".json"))
    known = any(x.endswith(".json.xz") or _TIME.match(x) for x in names)
    return [path] if known or any(map(_LIKE["instaloader"].search, plain)) else []


def _open_instaloader(folder: Path, tool: str) -> RawTable:
    files = {name: Path(name.removesuffix(".xz")) for name in list_names(folder)}
    posts = {x.stem for x in files.values() if x.suffix == ".json" or _TIME.fullmatch(x.stem)}
    media: dict[str, dict[int, str]] = defaultdict(dict)
    for name, file in files.items():
        if file.suffix in tools.MEDIA:
            found = None if file.stem in posts else re.fullmatch(r"(.+)_(\d+)", file.stem)
            stem, number = (found[1], int(found[2])) if found else (file.stem, 0)
            if stem in posts or _TIME.fullmatch(stem):
                posts.add(stem)
                media[stem][number] = name  # .mp4 comes after .jpg, which is a frame of it

    def rows() -> Iterator[RawRow]:
        """Yield a row for each post; other records (profiles, comments) are left out."""
        for number, stem in enumerate(sorted(posts), 1):
            node: Any = {}
            name = next((x for x in (f"{stem}.json.xz", f"{stem}.json") if x in files), None)
            text = ""
            with suppress(OSError):
                text = (folder / f"{stem}.txt").read_text("utf-8-sig", "replace").strip()
            try:
                if name is not None:
                    data = (folder / name).read_bytes()
                    node = json.loads(lzma.decompress(data) if name.endswith(".xz") else data)
                    kind = pick(node, "instaloader.node_type")
                    node = pick(node, "node") or node if kind in (None, "Post", "StoryItem") else {}
            except (OSError, EOFError, ValueError, RecursionError, lzma.LZMAError):
                if not text and stem not in media:
                    yield RawRow(number, {"file": name}, f"{name} is damaged")
                    continue
                warn(Message(TEXTS["damaged record"], path=f"{folder}/{name}"))
                name = None
            if name is None or pick(node, "shortcode", "code", "id"):
                yield RawRow(number, {"file": stem, "caption_file": text} | node)

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        stem = row["file"]
        there, children = media[stem], pick(row, "edge_sidecar_to_children.edges") or ()
        wanted = {*range(1, len(children) + 1)}
        if not there and not children and row.get("__typename") != "GraphSidecar":
            wanted = {0}
        images = [there.get(number) for number in sorted(wanted | there.keys())]
        text = pick(row, "edge_media_to_caption.edges.0.node.text", "caption.text", "caption")
        key, user = pick(row, "shortcode", "code"), pick(row, "owner.username", "owner.id")
        user = user or re.sub("^[#:%].*", "", folder.name)
        time = tools.to_time(pick(row, "taken_at_timestamp", "date"))
        if found := _TIME.match(stem):
            time = time or f"{found[1]}T{found[2]}:{found[3]}:{found[4]}+00:00"
        return text or row["caption_file"], images, key or stem, user, time

    return adapt_table(RawTable(folder.name, folder, None, rows()), tool, to_post)


def _list_named(tool: str, folders: Sequence[str], path: Path) -> list[Path]:
    files = [file for file in _files(path, *folders) if _LIKE[tool].fullmatch(file.name)]
    return [file for file in files if _LIKE[f"in_{tool}"].search(tools.read_head(file))]


def _open_instagram(path: Path, tool: str) -> RawTable:
    posts = tools.load_json(path)
    if isinstance(posts, dict):  # {"ig_reels_media": [...]}
        lists = [x for key, x in posts.items() if key.startswith("ig_") or key in _OLD]
        posts = list(chain(*lists)) if lists else [posts]
    files = [uri for post in posts[:100] if (uri := pick(post, "media.0.uri", "uri", "path"))]
    home = path.absolute().parent  # in one of the folders of an export, or what it was put in
    above = [x for x in home.parents[:2] if home.relative_to(x).as_posix() in _FOLDERS]
    root = next((at for at in above for file in files if (at / file).exists()), path.parent)
    user = re.fullmatch(r"instagram-(.+)-\d{4}-\d\d-\d\d-\w+", root.name)

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        media = pick(row, "media") or [row]  # a story is its own medium
        images = [uri for file in media if (uri := pick(file, "uri", "path"))]
        text = pick(row, "title", "media.0.title", "caption") or ""
        with suppress(UnicodeError):  # another text's letters are no UTF-8 byte by byte
            text = text.encode("latin-1").decode("utf-8")  # as Instagram writes it
        key = Path(images[0]).stem if images else None
        return text, images, key, user and user[1], tools.to_time(pick(row, *_TIMES))

    return adapt_table(RawTable(path.name, root, None, number_rows(posts)), tool, to_post)


def _list_telegram(path: Path) -> list[Path]:
    files = [file for file in _files(path) if file.suffix.lower() == ".json"]
    files = files if len(files) < 100 else [file for file in files if file.name == "result.json"]
    found = [file for file in files if _LIKE["telegram"].match(tools.read_head(file))]
    return [file for file in found if file.name == "result.json"] or found  # others are parts of it


def _open_telegram(path: Path, tool: str) -> RawTable:
    data = tools.load_json(path)
    chats = [*chain(*(pick(data, f"{x}.list") or () for x in ("chats", "left_chats")))]
    chats = chats or [data if isinstance(data, dict) else {"messages": data}]
    messages: list[Any] = []
    for chat in chats:
        about = {f"chat_{name}": chat[name] for name in ("name", "id") if name in chat}
        for message in pick(chat, "messages") or ():
            if messages and _is_of_album(messages[-1], message):
                messages[-1].setdefault("album", []).append(message)
            else:
                messages.append(about | message if isinstance(message, dict) else message)

    def to_post(row: dict[str, Any]) -> tuple[Any, ...] | None:
        if row.get("type") != "message":
            return None
        album = [row, *row.get("album", ())]
        text = next(filter(None, map(_text, album)), "")
        images = [file for message in album for file in _photos(message)]
        key = f"{row.get('chat_id')}_{row['id']}" if len(chats) > 1 else row["id"]
        time = tools.to_time(row.get("date_unixtime")) or row.get("date")
        return text, images, key, pick(row, "from", "from_id"), time

    return adapt_table(RawTable(path.name, path.parent, None, number_rows(messages)), tool, to_post)


def _is_of_album(first: Any, message: Any) -> bool:
    """Return whether a message is another picture of a post, which has one text at most."""
    one, other = ([pick(x, name) for name in ("date", "from_id")] for x in (first, message))
    texts = sum(bool(_text(x)) for x in (first, *(pick(first, "album") or ()), message))
    alike = None not in one and one == other and texts < 2
    return bool(alike and _photos(first) and _photos(message))


def _text(row: Any) -> str:
    """Return a text, whose links and tags may be objects in a list."""
    parts = pick(row, "text")
    parts = parts if isinstance(parts, list) else [parts]
    return "".join(x if isinstance(x, str) else str(pick(x, "text") or "") for x in parts)


def _photos(row: Any) -> list[str]:
    """List the files of a message; "(File not included ...)" stands for one that is missing."""
    seen = str(pick(row, "mime_type")).startswith(("image/", "video/"))
    file = pick(row, "file") if seen and pick(row, "media_type") != "sticker" else None
    return [x for x in (pick(row, "photo"), file) if isinstance(x, str)]


def _open_x_archive(path: Path, tool: str) -> RawTable:
    account = path.parent / "account.js"
    people = tools.load_json(account, after="=") if account.is_file() else []
    user = pick(people, "0.account.username", "0.account.accountId")
    home = "tweet_media" if (path.parent / "tweet_media").is_dir() else "tweets_media"
    longer = [
        (datetime.fromisoformat(str(pick(item, "noteTweet.createdAt"))), text)
        for file in sorted(path.parent.glob("note-tweet*.js"))
        for item in tools.load_json(file, after="=")
        if (text := pick(item, "noteTweet.core.text")) and pick(item, "noteTweet.createdAt")
    ]

    def to_post(row: dict[str, Any]) -> tuple[Any, ...]:
        key, time, names = pick(row, "id_str", "id"), pick(row, "created_at"), []
        for item in pick(row, "extended_entities.media", "entities.media") or ():
            variants = pick(item, "video_info.variants") or []
            best: Any = max(variants, key=lambda x: int(x.get("bitrate") or -1), default={})
            address = pick(best, "url") or pick(item, "media_url_https", "media_url") or ""
            names.append(address.partition("?")[0].rpartition("/")[2])
        images = [f"{home}/{key}-{name}" for name in names if name]
        at, text = time and parsedate_to_datetime(time), pick(row, "full_text", "text")
        if at and (begin := unescape(str(text)).rpartition("…")[0]):  # whole in a note of that time
            notes = (y for x, y in longer if abs((x - at).total_seconds()) < 5)
            text = next((y for y in notes if unescape(y).startswith(begin)), text)
        return text, images, key, user, at and at.isoformat()

    posts = [pick(item, "tweet") or item for item in tools.load_json(path, after="=")]
    return adapt_table(RawTable(path.name, path.parent, None, number_rows(posts)), tool, to_post)


def find_class_folders(folder: Path, alone: bool = False) -> list[Path]:
    """Return the folder if pictures lie in two below it, or one `alone`: LABEL/ or SPLIT/LABEL/."""
    names = (parts[-2] for parts in _iter_media(folder) if 1 < len(parts) < 4)
    first = next(names, None)
    return [folder] if first and (alone or any(name != first for name in names)) else []


def _open_class_folders(folder: Path, tool: str) -> RawTable:
    depths = Counter(map(len, _iter_media(folder)))  # of others the label cannot be told
    depth = 3 if (splits := depths[3] > depths[2]) else 2
    labels = sorted({parts[-2] for parts in _iter_media(folder) if len(parts) == depth})
    reason = f"does not lie in {'SPLIT/' * splits}LABEL/ as others do: move it to its label"

    def rows() -> Iterator[RawRow]:
        for number, parts in enumerate(_iter_media(folder), 1):
            values = {"id": "/".join(parts), "label": parts[-2] if len(parts) == depth else None}
            values |= {"split": parts[0]} if splits else {}
            yield RawRow(number, values, reason if len(parts) != depth else None)

    raw = RawTable(folder.name, folder, ["images", "id", "label", *["split"] * splits], rows())
    shown = f"{tool} of the labels {', '.join(labels[:8])}{', ...' if labels[8:] else ''}"
    return adapt_table(raw, shown, lambda row: ([row["id"]],), own=("images",))


def _iter_media(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield the parts of the paths of pictures and videos from a folder, in order."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(x for x in folders if not x.startswith((".", "_")))
        for name in sorted(names):
            if Path(name).suffix.lower() in tools.MEDIA and name[0] != ".":
                yield Path(at, name).relative_to(folder).parts


CLASS_FOLDERS = Collector("class-folders", parts=find_class_folders, read=_open_class_folders)
ARCHIVES = (
    Collector("gallery-dl", _adapt_gallery, _list_gallery, _open_gallery),
    Collector("instagram", parts=partial(_list_named, "instagram", _FOLDERS), read=_open_instagram),
    Collector("instaloader", parts=_list_instaloader, read=_open_instaloader),
    Collector("telegram", parts=_list_telegram, read=_open_telegram),
    Collector("x-archive", parts=partial(_list_named, "x", ("", "data")), read=_open_x_archive),
    CLASS_FOLDERS,  # last: other tools have pictures in folders, too
)
