"""Small files of a comparison, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sgmft.errors import SgmftError


def write_json(path: Path, values: Any) -> None:
    """Write under a temporary name, then rename.

    Raises:
        SgmftError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values, ensure_ascii=False), "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SgmftError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is no such file, or half of one."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
