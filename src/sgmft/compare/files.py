"""Small JSON files of a comparison, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sgmft.errors import SgmftError
from sgmft.files import why, write_whole


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON; the folder is made if need be.

    Raises:
        SgmftError: the file cannot be written.
    """
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(values, ensure_ascii=False).encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None where there is no such file, or half of one."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write a file into a sentence.

    Raises:
        SgmftError: naming the file, and the cure.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise SgmftError(f"{path} cannot be written: {why(error)}.") from error
