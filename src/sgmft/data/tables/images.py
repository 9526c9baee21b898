"""From the image cell of a table to picture files."""

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgmft.data.posts import Attachment
from sgmft.data.tables.base import RawTable
from sgmft.data.tables.cells import is_missing, replace_surrogates
from sgmft.errors import Message

_WEB = re.compile(r"https?://|//[\w-]+(\.[\w-]+)+/", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)


def parse_image_cell(cell: Any) -> list[str | Attachment]:
    """List the pictures in an image cell: paths, or `Attachment`s where they are in the table.

    A cell is a path, paths separated by ``|``, a list of paths, or such a list written as JSON; or
    a picture file's bytes, alone or as Hugging Face stores it ({"bytes": ..., "path": ...}), or a
    list of these. Empty cells, and empty members of a list, are no pictures.

    Raises:
        ValueError: with a reason fit for a message, when the cell is none of these.
    """
    if is_missing(cell):
        return []
    if isinstance(cell, str):
        listed = _parse_json_list(cell)
        if listed is None:
            return [path for part in cell.split("|") if (path := part.strip())]
        cell = listed
    members = list(cell) if isinstance(cell, (list, tuple)) else [cell]
    return [_parse_member(member) for member in members if not is_missing(member)]


def find_web_address(picture: str | Attachment) -> str | None:
    """Return the web address that stands for a picture, or None; // is taken for https://."""
    if not isinstance(picture, str) or not _WEB.match(picture):
        return None
    return f"https:{picture}" if picture.startswith("//") else picture


def strip_bytes(cell: Any) -> Any:
    """Return an image cell with names, or None, in the place of the pictures' bytes."""
    if isinstance(cell, (list, tuple)):
        return [strip_bytes(member) for member in cell]
    if isinstance(cell, bytes):
        return None
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell.get("path")
    return cell


class PathResolver:
    """Resolves the picture paths of a table; whether a file exists is seen when it is decoded.

    Args:
        raw: the table; paths are absolute or relative to its folder.
        allow_outside: accept a picture that, symbolic links followed, is not below the folder.
    """

    def __init__(self, raw: RawTable, allow_outside: bool = False) -> None:
        self._folder = raw.folder
        self._allow_outside = allow_outside
        self._to_path = raw.to_path
        self._real_folder = lru_cache(4096)(os.path.realpath)

    def __call__(self, path: str) -> Path:
        """Return the file of a path; backslashes are tried as slashes.

        Raises:
            ValueError: with a reason fit for a message, when the picture may not be used.
        """
        try:
            return self._resolve(path)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            raise ValueError(f"{path[:200]} cannot be read: {error.strerror or error}") from None

    def _resolve(self, path: str) -> Path:
        if self._to_path is not None:
            path = self._to_path(path, self._folder)
        if "\0" in path or replace_surrogates(path) != path:
            raise ValueError(f"{path[:200]!r} cannot be the path of a picture")
        if _ADDRESS.match(path):
            raise ValueError(
                Message(
                    "pictures on the web are not fetched: {name} "
                    "(download the picture and give its path)",
                    name=path[:200],
                )
            )
        if "\\" in path and not os.path.lexists(self._folder / path):
            path = path.replace("\\", "/")
        file = self._folder / path
        if not self._allow_outside and not self._is_inside(file):
            raise ValueError(
                Message(
                    "{name} lies outside the table's folder; allow it with --allow-outside",
                    name=path[:200],
                )
            )
        return file

    def _is_inside(self, file: Path) -> bool:
        if file.name == ".." or file.is_symlink():
            real = Path(os.path.realpath(file))
        else:  # only the folder can hold links, and most pictures share one
            real = Path(self._real_folder(file.parent), file.name)
        return real.is_relative_to(self._real_folder(self._folder))


def _parse_json_list(cell: str) -> list[Any] | None:
    if not cell.lstrip().startswith("["):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _parse_member(member: Any) -> str | Attachment:
    if isinstance(member, str):
        return member
    if isinstance(member, bytes):
        return Attachment(member)
    if isinstance(member, dict):  # how Hugging Face stores an image
        data, path = member.get("bytes"), member.get("path")
        if isinstance(data, bytes) and data:
            return Attachment(data, Path(path).name if isinstance(path, str) else "picture")
        if isinstance(path, str):
            return path
    raise ValueError(f"the image is not a path but {type(member).__name__} {str(member)[:80]}")
