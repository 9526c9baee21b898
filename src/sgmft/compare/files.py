"""Small JSON files of a comparison, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sgmft.files import write_whole, writing


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON; the folder is made if need be.

    Raises:
        SgmftError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(values, ensure_ascii=False).encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is no such file, or half of one."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
