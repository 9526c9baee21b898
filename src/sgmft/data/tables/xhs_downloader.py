"""XHS-Downloader's database, ``ExploreData.db``, and the files that it downloads beside it."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from sgmft.data.tables import collectors as tools
from sgmft.data.tables.base import RawTable

_KEY = re.compile(r"[0-9a-f]{24}|\d{4}-\d\d-\d\d_\d\d\.\d\d\.\d\d")  # an id, or a time
_NUMBER = re.compile(r"_(\d+)\.\w+$")


def _adapt(raw: RawTable, path: Path) -> RawTable:
    """Read posts; a file is a post's if its name or folder has the id, or the time and title.

    How names are made is the user's choice; by default of time, author and title.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for at, _, names in os.walk(raw.folder):
        for name in names:
            if name.lower().endswith(tools.PICTURES + tools.VIDEOS):
                file = os.path.relpath(Path(at, name), raw.folder)
                for key in set(_KEY.findall(file)):
                    files[key].append(file)

    def to_post(row: dict[str, Any]) -> dict[str, Any]:
        key, title, time = (str(row.get(x) or "") for x in ("作品ID", "作品标题", "发布时间"))
        begin = _letters(title)[:8] or key
        timed = [x for x in files.get(time.replace(":", "."), []) if begin in _letters(x)]
        there = sorted(files.get(key) or timed, key=lambda x: (_number(x), x))
        numbers = {_number(file) for file in there}
        urls = str(row.get("下载地址") or "").split()
        return {
            "text": "\n".join(filter(None, (title, row.get("作品描述")))),
            "images": there + [url for n, url in enumerate(urls, 1) if not numbers & {n, 0}],
            "id": key,
            "user": row.get("作者ID") or row.get("作者昵称"),
            "time": time.replace("_", " "),
        }

    return tools.adapt_table(raw, XHS_DOWNLOADER.name, to_post)


def _letters(text: str) -> str:
    """Return the characters that the tool keeps in a file's name."""
    return re.sub("[^a-zA-Z0-9\u4e00-\u9fff]", "", text)


def _number(file: str) -> int:
    """Return which file of its post it is; 0 for the only one."""
    found = _NUMBER.search(file)
    return int(found[1]) if found else 0


XHS_DOWNLOADER = tools.Collector(
    "xhs-downloader",
    (frozenset({"作品ID", "作品标题", "作品描述", "下载地址"}),),
    adapt=_adapt,
)
