"""From the image cells of a table to the pictures that they name or hold."""

import base64
import json
import re
from ast import literal_eval
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from sgmft.data.posts import Attachment
from sgmft.data.tables.cells import BLANKS, says_nothing
from sgmft.data.tables.paths import PathResolver
from sgmft.errors import TEXTS, Message
from sgmft.utils.files import load_patterns

MAX_NAMES = 1000  # in one cell
_PATHS = ("path", "file_name", "filename", "url", "src")  # in an object
Pictures = list[str | Attachment]  # paths, and pictures that the table itself holds
Parser = Callable[[Any, PathResolver], Pictures]
_SEPARATORS = ("\n", ";", "；", ",", "，", "、")
_LIKE = load_patterns(Path(__file__).with_suffix(".toml"))


def names_pictures(cell: Any) -> bool:
    """Return whether a cell of any column looks like the name of a picture, or holds pictures."""
    if isinstance(cell, (list, tuple)):
        return bool(cell) and names_pictures(cell[0])
    if isinstance(cell, dict):
        return isinstance(cell.get("bytes"), bytes)
    return isinstance(cell, str) and _LIKE["file"].fullmatch(cell.strip(" []'\")(")) is not None


def parse_image_cell(cell: Any, files: PathResolver) -> Pictures:
    """List the pictures in an image cell: paths, or `Attachment`s where they are in the table.

    A cell is a path, paths separated by ``|``, a list of paths, or such a list written as JSON; or
    a picture file's bytes, alone or as Hugging Face stores it ({"bytes": ..., "path": ...}), a
    ``data:`` address, or a list of these. Empty cells and members are no pictures.

    What else is understood is counted in `files.guesses`: words for nothing, lists as Python and
    NumPy write them, other separators where there is no file of the whole name, bare Base64. Why
    one of several pictures is left out goes to `files.refused`, which is empty before; ValueError,
    with a reason fit for a message, where the cell is none of these.
    """
    files.refused.clear()
    if isinstance(cell, str):
        return [] if (text := cell.strip(BLANKS)) in ("", "[]") else _parse_text(text, files)
    return _parse_each(cell if isinstance(cell, (list, tuple)) else [cell], _parse_member, files)


def list_pictures(cell: Any, files: PathResolver) -> Pictures:
    """List the pictures in a cell as `parse_image_cell` does, none where it is no image cell."""
    with suppress(ValueError):
        return parse_image_cell(cell, files)
    return []


def find_web_address(picture: str | Attachment) -> str | None:
    """Return the web address that stands for a picture, or None; // is taken for https://."""
    if not isinstance(picture, str) or not _LIKE["web"].match(picture):
        return None
    return f"https:{picture}" if picture.startswith("//") else picture


def strip_bytes(cell: Any) -> Any:
    """Return an image cell with names, or None, in place of the pictures' bytes."""
    if isinstance(cell, (list, tuple)):
        return [strip_bytes(member) for member in cell]
    if isinstance(cell, bytes):
        return None
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell.get("path")
    return cell


def _parse_text(text: str, files: PathResolver) -> Pictures:
    """List the pictures in a cell of text; a separator is one where no file has the whole name."""
    nothing = says_nothing(text) or _LIKE["no_picture"].fullmatch(text.casefold())
    if nothing and (text == "/" or not files.exists(text)):
        files.guesses["a word for nothing (nan, None, 无, ...) read as no picture"] += 1
        return []
    if _LIKE["plain"].fullmatch(text) or ("|" not in text and files.exists(text)):
        return [_parse_name(text, files)]
    if _LIKE["quoted"].fullmatch(text):
        return [_parse_name(_unquote(text), files)]
    if (members := _parse_list(text, files)) is not None:
        return _parse_each(members, _parse_member, files)
    parts = [part for x in _split(text, files) if (part := x.strip())]
    if parts != [text]:
        return _parse_each(parts, _parse_text, files)
    names = [found[1] for x in _LIKE["no_name"].split(text) if (found := _LIKE["name"].match(x))]
    if names and all(map(files.exists, names[:MAX_NAMES])):
        files.guesses["names of pictures among other words"] += 1
        return _parse_each(names, _parse_member, files)
    return [_parse_name(text, files)]


def _parse_list(text: str, files: PathResolver) -> Sequence[Any] | None:
    """Return the members of a list or object written out; None where the text is neither."""
    if stored := _LIKE["stored"].fullmatch(text):
        files.guesses["a picture's bytes as Python writes them"] += 1
        return [dict(zip(("bytes", "path"), map(literal_eval, stored.groups()), strict=True))]
    closed, begun = text[:1] + text[-1:] in ("[]", "()", "{}"), _LIKE["begun"].match(text)
    if closed or begun:
        with suppress(ValueError, RecursionError):
            value = json.loads(text)
            return value if isinstance(value, list) else [value]
    bare = _LIKE["dtype"].sub("", text)
    shape = _LIKE["quoted"].sub("'", bare)
    opened, ended = (sum(map(shape.count, marks)) for marks in ("[({", "])}"))
    if _LIKE["listed"].fullmatch(shape) and opened == ended:
        files.guesses["a list as Python or NumPy writes it"] += 1
        return [*map(_unquote, _LIKE["quoted"].findall(bare))]
    if closed and len(parts := _split(text[1:-1], files)) > 1:
        return [_unquote(x) if _LIKE["quoted"].fullmatch(x) else x for x in parts]
    if closed and text[0] == "[":
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            members: list[Any] = literal_eval(text)  # of objects
            files.guesses["a list as Python or NumPy writes it"] += 1
            return members
    if (begun and not closed) or (closed and text[0] == "[" and re.search("['\"]", text)):
        raise ValueError(Message(TEXTS["no list"], cell=text[:80]))
    return None


def _unquote(quoted: str) -> str:
    """Return the text in a literal of Python, without evaluating it."""
    return _LIKE["escape"].sub(lambda x: x[1] or chr(int(x[2] or x[3], 16)), quoted[1:-1])


def _split(text: str, files: PathResolver) -> list[str]:
    """Split a cell at the first separator between what look like names of pictures."""
    if "|" in text:
        return text.split("|")
    if text[:5].casefold() == "data:" or "://" in text:
        split = [(x, re.split(r"\s*[\s;,；，、]\s*", x)) for x in _LIKE["address"].split(text)]
        return [y for x, z in split for y in (z if all(map(files.exists, z[1:])) else [x])]
    for mark in _SEPARATORS if not _LIKE["base64"].match(text) else ():
        parts = [part for x in text.split(mark) if (part := x.strip())] if mark in text else []
        if parts and all(_LIKE["file"].fullmatch(x) or files.exists(x) for x in parts[:MAX_NAMES]):
            shown = "line breaks" if mark == "\n" else repr(mark)
            files.guesses[f"pictures in one cell taken apart at {shown}"] += 1
            return parts
    return [text]


def _parse_each(parts: Sequence[Any], parse: Parser, files: PathResolver) -> Pictures:
    """Parse the parts of a cell; one that cannot be read costs the others nothing."""
    if len(parts) > MAX_NAMES:
        raise ValueError(Message(TEXTS["many pictures"], count=len(parts), most=MAX_NAMES))
    pictures: Pictures = []
    for part in parts:
        try:
            pictures += parse(part, files)
        except ValueError as error:
            files.refused.append(str(error))
    return pictures


def _parse_member(member: Any, files: PathResolver) -> Pictures:
    if says_nothing(member):
        return []
    if isinstance(member, str):
        return [_parse_name(member, files)]
    if isinstance(member, bytes):
        return [Attachment(member)]
    if isinstance(member, dict):  # how Hugging Face stores an image
        data = member.get("bytes")
        path = next((x for key in _PATHS if isinstance(x := member.get(key), str)), None)
        if isinstance(data, bytes) and (data or path is None):
            return [Attachment(data, "picture" if path is None else Path(path).name)]
        if path is not None:
            return [path]
    shown = f"{type(member).__name__} {str(member)[:80]}"
    raise ValueError(Message("the image is not a path but {shown}", shown=shown))


def _parse_name(name: str, files: PathResolver) -> str | Attachment:
    """Return one path, or the picture that stands in its place, encoded."""
    if name[:5].casefold() == "data:":
        kind, _, body = name.partition(",")
        if not kind.casefold().rstrip().endswith("base64"):
            return Attachment(unquote_to_bytes(body), kind[:40])
    elif _LIKE["base64"].match(name) and len(name) >= 32 and not files.exists(name):
        kind, body = "Base64", name
        files.guesses["Base64 read as a picture"] += 1
    else:
        return name
    body = "".join(body.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return Attachment(base64.b64decode(body + "=" * (-len(body) % 4), validate=True), kind[:40])
    except ValueError:
        raise ValueError(Message(TEXTS["no base64"], name=name[:40])) from None
