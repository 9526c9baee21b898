"""What gallery-dl writes: ``.json`` beside each file, JSON lines, or a dump of all records."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.collectors import name_part, pick

_TEXTS = ("content", "text_raw", "description", "caption", "selftext", "text", "body")
_IDS = ("tweet_id", "post_id", "idstr", "id", "media_id", "post_shortcode")
_USERS = ("author.name", "user.name", "user.screen_name", "owner.username", "username", "uploader")
_RECORD = re.compile(r'\s*\{(?=.*"category":).*"subcategory":', re.DOTALL)
_DUMP = re.compile(r'\s*\[\s*\[\s*-?\d+,.*"category":', re.DOTALL)  # [[2, {...}], [3, "https:...


def _list_parts(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [path / name for name in tools.list_names(path)]
    files = [file for file in files if file.suffix == ".json"]
    if path.is_dir() and any(_RECORD.match(tools.read_head(file)) for file in files[:20]):
        return [path]
    return [file for file in files if _DUMP.match(tools.read_head(file))]


def _open(path: Path) -> RawTable:
    records: list[dict[str, Any]] = []
    if path.is_file():
        for _, *address, data in tools.load_json(path):  # of a post, and of each of its files
            records.append(data | ({"url": address[0]} if address else {"num": None}))
    else:
        for name in tools.list_names(path):
            data = tools.load_json(path / name) if name.endswith(".json") else {}
            if pick(data, "category"):
                records.append(data | {"file": name.removesuffix(".json")})
        records.sort(key=lambda data: (_key(data), data.get("num") or 0))
    rows = tools.number_rows(records)
    folder = path.parent if path.is_file() else path
    return _adapt(RawTable(path.name, folder, None, rows), path)


def _adapt(raw: RawTable, path: Path) -> RawTable:
    """Read posts; a record is of one file, and those of a post follow each other."""
    files: list[str] = []  # of the post that is read

    def rows() -> Iterator[RawRow]:
        for _, group in groupby(raw.rows, lambda row: (row.error, _key(row.values))):
            first, *others = group
            files[:] = (x for row in (first, *others) for x in _files(raw.folder, row.values))
            yield first

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        post = pick(row, "status") or row  # Weibo's
        texts = (pick(post, "title"), pick(post, *_TEXTS))
        return {
            "text": "\n".join(str(text) for text in texts if text),
            "images": [*files],
            "id": pick(post, *_IDS),
            "user": pick(post, *_USERS),
            "time": pick(post, "post_date", "date", "created_at"),
        }

    return tools.adapt_table(replace(raw, rows=rows()), GALLERY_DL.name, to_post)


def _key(data: dict[str, Any]) -> str:
    return f"{data.get('category')} {pick(pick(data, 'status') or data, *_IDS)}"


def _files(folder: Path, data: dict[str, Any]) -> list[str]:
    """List the file that a record is of, or its address; all files of a post, if it is of that."""
    if "num" in data and data["num"] is None:
        return []
    file, key = str(data.get("file", "")), name_part(_key(data).partition(" ")[2])
    suffixes = tools.PICTURES + tools.VIDEOS
    if file.lower().endswith(suffixes):
        return [file]
    if "extension" not in data:
        names = (x.name for x in folder.glob(f"{glob.escape(key or '?')}[_.]*"))
        return sorted((x for x in names if x.endswith(suffixes)), key=lambda x: (len(x), x))
    number = data["num"] if isinstance(data.get("num"), int) else 0
    media = name_part(data.get("media_id"))
    stems = [file, f"{key}_{number}", f"{key}_{number:02}", f"{key}_{media}", media]
    stems += [name_part(data.get("filename")), key or "unnamed"]
    name = tools.find_file(folder, filter(None, stems), [f".{name_part(data.get('extension'))}"])
    return [name if "url" not in data or os.path.lexists(folder / name) else str(data["url"])]


GALLERY_DL = tools.Collector(
    "gallery-dl",
    (
        frozenset({"category", "subcategory", "extension", "filename"}),
        frozenset({"category", "subcategory", "count", "date"}),
    ),
    adapt=_adapt,
    parts=_list_parts,
    read=_open,
)
