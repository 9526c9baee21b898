"""What instaloader writes for each post: ``.json.xz`` or ``.json``, ``.txt``, and its pictures."""

import json
import lzma
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.collectors import pick

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)_UTC")  # names begin so by default
_NUMBERED = re.compile(r"(.+)_(\d+)")


def _list_parts(path: Path) -> list[Path]:
    names = tools.list_names(path)
    return [path] if any(x.endswith(".json.xz") or _TIME.match(x) for x in names) else []


def _open(folder: Path) -> RawTable:
    files = {name: Path(name.removesuffix(".xz")) for name in tools.list_names(folder)}
    posts = {x.stem for x in files.values() if x.suffix == ".json" or _TIME.fullmatch(x.stem)}
    media: dict[str, dict[int, str]] = defaultdict(dict)
    for name, file in files.items():
        if file.suffix in tools.PICTURES + tools.VIDEOS:
            found = None if file.stem in posts else _NUMBERED.fullmatch(file.stem)
            stem, number = (found[1], int(found[2])) if found else (file.stem, 0)
            if stem in posts or _TIME.fullmatch(stem):
                posts.add(stem)
                media[stem][number] = name  # .mp4 comes after .jpg, which is a frame of it

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        stem, time = row["file"], _TIME.match(row["file"])
        there, children = dict(media[stem]), pick(row, "edge_sidecar_to_children.edges") or ()
        alone = not there and row.get("__typename") != "GraphSidecar"
        for number in range(1, len(children) + 1) if children else range(alone):
            there.setdefault(number, f"{stem}_{number}.jpg" if children else f"{stem}.jpg")
        text = pick(row, "edge_media_to_caption.edges.0.node.text", "caption.text", "caption")
        return {
            "text": text or row["caption_file"],
            "images": [there[number] for number in sorted(there)],
            "id": pick(row, "shortcode", "code") or stem,
            "user": pick(row, "owner.username", "owner.id") or re.sub("^[#:%].*", "", folder.name),
            "time": tools.to_time(pick(row, "taken_at_timestamp", "date"))
            or (time and f"{time[1]}T{time[2]}:{time[3]}:{time[4]}+00:00"),
        }

    raw = RawTable(folder.name, folder, None, _read(folder, sorted(posts), files))
    return tools.adapt_table(raw, INSTALOADER.name, to_post)


def _read(folder: Path, posts: list[str], names: Collection[str]) -> Iterator[RawRow]:
    """Yield a row for each post; other records (profiles, comments) are left out."""
    for number, stem in enumerate(posts, 1):
        node: Any = {}
        name = next((x for x in (f"{stem}.json.xz", f"{stem}.json") if x in names), None)
        caption = folder / f"{stem}.txt"
        try:
            if name is not None:
                data = (folder / name).read_bytes()
                node = json.loads(lzma.decompress(data) if name.endswith(".xz") else data)
                kind = pick(node, "instaloader.node_type")
                node = pick(node, "node") or node if kind in (None, "Post", "StoryItem") else {}
            text = caption.read_text("utf-8", "replace").strip() if caption.name in names else ""
        except (OSError, EOFError, ValueError, RecursionError, lzma.LZMAError):
            yield RawRow(number, {"file": name}, f"{name} is damaged")
            continue
        if name is None or pick(node, "shortcode", "code", "id"):
            yield RawRow(number, {"file": stem, "caption_file": text} | node)


INSTALOADER = tools.Collector("instaloader", parts=_list_parts, read=_open)
