"""Telegram Desktop's export as JSON: ``result.json``, with the photos beside it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import pick

_MESSAGE = re.compile(r'"type": ?"(message|service)"')
_OURS = re.compile(r'"(from_id|actor_id|date_unixtime|text_entities)"')
_ALL = '"about": "Here is the data you requested'


def _list_parts(path: Path) -> list[Path]:
    files = [path / name for name in tools.list_names(path)] or [path]
    found = [file for file in files if file.suffix.lower() == ".json" and _is_export(file)]
    return [file for file in found if file.name == "result.json"] or found  # others are parts of it


def _is_export(path: Path) -> bool:
    head = tools.read_head(path)
    return bool(_ALL in head or (_MESSAGE.search(head) and _OURS.search(head)))


def _open(path: Path) -> RawTable:
    data = tools.load_json(path)
    chats = pick(data, "chats.list") or [data if isinstance(data, dict) else {"messages": data}]

    messages = []
    for chat in chats:
        about = {f"chat_{name}": chat[name] for name in ("name", "id") if name in chat}
        listed = pick(chat, "messages") or ()
        messages += [about | x if isinstance(x, dict) else x for x in listed]

    def to_post(row: dict[str, Any]) -> dict[str, Any] | None:
        if row.get("type") != "message":
            return None
        parts = row.get("text")  # of several parts, links and tags are objects
        texts = parts if isinstance(parts, list) else [parts]
        return {
            "text": "".join(x if isinstance(x, str) else pick(x, "text") or "" for x in texts),
            "images": list(_files(row)),
            "id": f"{row.get('chat_id')}_{row['id']}" if len(chats) > 1 else row["id"],
            "user": pick(row, "from", "from_id"),
            "time": tools.to_time(row.get("date_unixtime")) or row.get("date"),
        }

    raw = RawTable(path.name, path.parent, None, tools.number_rows(messages))
    return tools.adapt_table(raw, TELEGRAM.name, to_post)


def _files(row: dict[str, Any]) -> Iterator[str]:
    """Yield the files of a message; "(File not included ...)" stands for one that is missing."""
    kind, file = row.get("mime_type") or "", row.get("file")
    if row.get("photo"):
        yield row["photo"]
    if file and row.get("media_type") != "sticker" and kind.startswith(("image/", "video/")):
        yield file


TELEGRAM = tools.Collector("telegram", parts=_list_parts, read=_open)
