"""Posts from what people hold in Python; such objects are recognised by what they can do."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.cells import is_missing
from sgmft.data.tables.columns import USUAL, holds_posts
from sgmft.data.tables.images import names_pictures
from sgmft.data.tables.posts import Columns, iter_table
from sgmft.errors import TEXTS, SgmftError, check_name, hint

Names = Columns | Mapping[str, str] | None
Folder = str | Path | Literal[False] | None
Roles = Sequence[str]  # fields of a post


def to_posts(posts: Any, *, columns: Names = None, root: Folder = None) -> list[Post]:
    """Return the posts that an object of Python holds, one for each row, in order.

    A row that cannot be used is a post with an `error`; rows count from 0 in `Post.place`.

    Args:
        posts: one or many: a DataFrame of pandas or polars, an Arrow table, a `datasets.Dataset`,
            dicts, a dict of lists; texts; pictures of Pillow, arrays of uint8 (height, width,
            channels), bytes, open files or paths; a list with a text and pictures for each post; or
            posts, which stay as they are.
        columns: which column holds what, where names do not tell: `Columns`, or a dict such as
            {"text": "tweet"}.
        root: the folder from which relative paths of pictures start; by default the working folder.
            With False no path is followed or looked at, as is right for posts of strangers.

    SgmftError where there are neither texts nor pictures, or no column of a name that was given.
    """
    return list(iter_given(posts, columns, root))


def iter_given(posts: Any, columns: Names, root: Folder, optional: Roles = ()) -> Iterator[Post]:
    """Yield posts one at a time; columns for the fields that are `optional` may be missing."""
    names, items = _open(posts)
    ahead = list[Any]()  # up to the first that is something
    for item in items:
        ahead.append(item)
        if item is not None:
            break
    first, items = ahead[-1] if ahead else None, chain(ahead, items)
    if isinstance(first, Post):
        for i, item in enumerate(items):
            if not isinstance(item, Post | None):
                raise SgmftError(TEXTS["no post"], number=i, kind=type(item).__name__)
            yield item or Post()
        return
    if not isinstance(columns, Columns):
        for role in columns or ():
            check_name(role, [x.name for x in fields(Columns)], "columns: a post has no")
        columns = Columns(**columns or {})
    names = names or ([*map(str, first)] if isinstance(first, Mapping) else [])
    missing = (role for role in optional if getattr(columns, role) not in names)
    columns = replace(columns, **dict.fromkeys(missing)) if names else Columns()
    if names and not holds_posts(names) and columns.text is columns.image is None:
        pairs = ((role, x) for role in ("text", "image") for x in names if hint(x, USUAL[role]))
        role, near = next(pairs, ("text", "NAME"))
        raise SgmftError(TEXTS["no columns"], columns=", ".join(names), role=role, near=near)
    rows = (RawRow(i, _to_row(item, root, i)) for i, item in enumerate(items))
    raw = RawTable(type(posts).__name__, Path(root or ""), names or None, rows)
    yield from iter_table(raw, columns, None if root is False else True)


def _open(given: Any) -> tuple[list[str], Iterator[Any]]:
    """Return the names of columns, where all rows have the same, and the rows."""
    series = hasattr(given, "to_frame") and hasattr(given, "index")  # of pandas, perhaps a row
    if series and holds_posts([name for name in given.index if isinstance(name, str)]):
        return [], iter([given])
    if isinstance(given, Mapping) and all(map(_is_list, given.values())):
        if len({*map(len, given.values())}) > 1:
            counts = ", ".join(f"{len(cells)} of {name}" for name, cells in given.items())
            raise SgmftError(f"Lists of different lengths are no table: {counts}.")
        rows = zip(*given.values(), strict=True)
        return [*given], (dict(zip(given, cells, strict=True)) for cells in rows)
    names = getattr(given, "column_names", None) or getattr(given, "columns", None)
    if names is None or isinstance(given, Mapping):
        many = isinstance(given, Iterable) and not isinstance(given, (str, Mapping))
        return [], iter(given if many and not (_is_file(given) or _is_picture(given)) else [given])
    # of polars, Arrow, datasets, pandas; with pictures as they are stored
    ways = {"to_dicts": (), "to_pylist": (), "to_list": (), "to_dict": ("records",)}
    way = next(x for x in ways if hasattr(given, x))
    kinds = {x: y for x, y in getattr(given, "features", {}).items() if hasattr(y, "int2str")}
    found = getattr(given, way)(*ways[way])
    for cells in found if kinds else ():  # classes by their names, of which -1 is none
        known = {x: kind for x, kind in kinds.items() if cells[x] is not None}
        cells |= {x: None if cells[x] == -1 else kind.names[cells[x]] for x, kind in known.items()}
    return [*map(str, names)], iter(found)


def _to_row(item: Any, root: Folder, number: int) -> dict[str, Any]:
    """Return the cells of a row; of one without columns the text, and pictures beside it."""
    item = item.to_dict() if hasattr(item, "to_dict") else item
    if isinstance(item, Mapping):
        return {str(name): to_cell(cell) for name, cell in item.items()}
    texts, images = list[str](), list[Any]()
    for part in item if _is_list(item) else [item]:
        cell = to_cell(part)
        if isinstance(part, str) and not _is_path(part, root):
            texts.append(part)
        elif isinstance(cell, (str, bytes, dict)):
            images.append(cell)
        elif not is_missing(cell):
            kind = f"array of {part.dtype}" if hasattr(part, "dtype") else type(part).__name__
            raise SgmftError(TEXTS["no post"], number=number, kind=kind)
    if len(texts) > 1:
        raise SgmftError(f"Post {number} has {len(texts)} texts where it may have one: join them.")
    return {"text": "".join(texts), "image": images}


def to_cell(value: Any) -> Any:
    """Return a value as tables have it; a picture as Hugging Face stores it."""
    if isinstance(value, (str, Path)):
        return str(value)
    if _is_picture(value):
        return {"bytes": _to_png(value), "path": None}
    if _is_file(value):
        return bytes(value.read() if hasattr(value, "read") else value)
    if _is_list(value):
        return [*map(to_cell, value)]
    if isinstance(value, np.generic):
        return value.item()
    return None if type(value).__name__ in ("NAType", "NaTType") else value  # of pandas


def _to_png(picture: Any) -> bytes:
    from PIL import Image, ImageOps

    from sgmft.data.preprocessing.images import to_8_bits

    if isinstance(picture, np.ndarray):
        if not picture.size:
            return b""  # which is reported, as an empty file is
        picture = Image.fromarray(picture.squeeze(2) if picture.shape[2:] == (1,) else picture)
    upright, file = ImageOps.exif_transpose(picture), io.BytesIO()
    mode = "RGBA" if upright.has_transparency_data else "RGB"
    to_8_bits(upright, picture.format).convert(mode).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _is_file(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview)) or hasattr(value, "readinto")


def _is_picture(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        first = value.dtype == np.uint8 and value.ndim == 3 and value.shape[0] in (3, 4)
        if first and value.shape[2] > 4:
            raise SgmftError(TEXTS["channels first"], shape=value.shape)
        return value.dtype == np.uint8 and value.ndim in (2, 3) and value.shape[2:] <= (4,)
    return hasattr(value, "getexif")  # of Pillow


def _is_list(value: Any) -> bool:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return False
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "OUT"
    return isinstance(value, (list, tuple)) or hasattr(value, "to_list")  # of pandas, polars


def _is_path(text: str, root: Folder) -> bool:
    """Return whether a text is the path of a picture: it looks like one, in one word or found."""
    known = root is not False and os.path.isfile(Path(root or "", text))  # noqa: PTH113  of any
    found = len(text.split()) == 1 or known
    return text.startswith("data:image/") or (names_pictures(text) and found)
