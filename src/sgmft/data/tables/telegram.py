"""Telegram Desktop's export as JSON: ``result.json``, with the photos beside it."""

import re
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.collectors import pick

_MESSAGE = re.compile(r'"type": ?"(message|service)"')
_OURS = re.compile(r'"(from_id|actor_id|date_unixtime|text_entities)"')
_ALL = '"about": "Here is the data you requested'


def _list_parts(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [path / name for name in tools.list_names(path)]
    files = [file for file in files if file.suffix.lower() == ".json"]
    files = files if len(files) < 100 else [file for file in files if file.name == "result.json"]
    found = [file for file in files if _is_export(file)]
    return [file for file in found if file.name == "result.json"] or found  # others are parts of it


def _is_export(path: Path) -> bool:
    head = tools.read_head(path)
    return bool(_ALL in head or (_MESSAGE.search(head) and _OURS.search(head)))


def _open(path: Path) -> RawTable:
    data = tools.load_json(path)
    chats = pick(data, "chats.list") or [data if isinstance(data, dict) else {"messages": data}]

    messages: list[Any] = []
    for chat in chats:
        about = {f"chat_{name}": chat[name] for name in ("name", "id") if name in chat}
        for message in pick(chat, "messages") or ():
            if messages and _is_of_album(messages[-1], message):
                messages[-1].setdefault("album", []).append(message)
            else:
                messages.append(about | message if isinstance(message, dict) else message)

    def to_post(row: dict[str, Any]) -> dict[str, Any] | None:
        if row.get("type") != "message":
            return None
        album = [row, *row.get("album", ())]
        return {
            "text": next(filter(None, map(_text, album)), ""),
            "images": [file for message in album for file in _files(message)],
            "id": f"{row.get('chat_id')}_{row['id']}" if len(chats) > 1 else row["id"],
            "user": pick(row, "from", "from_id"),
            "time": tools.to_time(row.get("date_unixtime")) or row.get("date"),
        }

    raw = RawTable(path.name, path.parent, None, tools.number_rows(messages))
    return tools.adapt_table(raw, TELEGRAM.name, to_post)


def _is_of_album(first: Any, message: Any) -> bool:
    """Return whether a message is another picture of a post, which has one text at most."""
    one, other = ([pick(x, name) for name in ("date", "from_id")] for x in (first, message))
    texts = sum(bool(_text(x)) for x in (first, *(pick(first, "album") or ()), message))
    alike = None not in one and one == other and texts < 2
    return bool(alike and _files(first) and _files(message))


def _text(row: Any) -> str:
    """Return a text, whose links and tags may be objects in a list."""
    parts = pick(row, "text")
    parts = parts if isinstance(parts, list) else [parts]
    return "".join(x if isinstance(x, str) else str(pick(x, "text") or "") for x in parts)


def _files(row: Any) -> list[str]:
    """List the files of a message; "(File not included ...)" stands for one that is missing."""
    seen = str(pick(row, "mime_type")).startswith(("image/", "video/"))
    file = pick(row, "file") if seen and pick(row, "media_type") != "sticker" else None
    return [x for x in (pick(row, "photo"), file) if isinstance(x, str)]


TELEGRAM = tools.Collector("telegram", parts=_list_parts, read=_open)
