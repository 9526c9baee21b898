"""A form in a request's body, read strictly: complete, each field once, and its texts in UTF-8.

FastAPI's own `Form` and `File` parameters would read what is cut off, decode texts by whatever
charset the request names, and keep one of two fields of a name.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sgmft.serving.problems import Problem

MAX_FIELDS = 16

_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)  # RFC 2046


class StrictForm(NamedTuple):
    """The content of a form.

    Attributes:
        fields: the texts, by name.
        files: the files with the names of their fields, of which several may have the same; a
            file's own name may be "".
    """

    fields: dict[str, str]
    files: list[tuple[str, UploadFile]]


class _Parser(MultiPartParser):
    complete = False

    def on_end(self) -> None:
        self.complete = True
        super().on_end()


@asynccontextmanager
async def open_form(request: Request, max_files: int, max_field: int) -> AsyncIterator[StrictForm]:
    """Read the form in the body; its larger files are on disk, without a name, until the end.

    Args:
        max_files: number of files.
        max_field: bytes of one text.

    Raises:
        Problem: it is no form, or not as described above.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise Problem("not-a-form", "Its type has no boundary as RFC 2046 describes it.")
    # Latin-1 has a character for each byte: nothing is lost before `_decode` reads them as UTF-8,
    # which is all that RFC 7578 knows, whatever charset the request names.
    kind = Headers({"content-type": f'multipart/form-data; charset=latin-1; boundary="{boundary}"'})
    limits = {"max_files": max_files, "max_fields": MAX_FIELDS, "max_part_size": max_field}
    parser = _Parser(kind, request.stream(), **limits)
    try:
        parts = await parser.parse()
    except MultiPartException as error:
        raise Problem("not-a-form", error.message) from None
    form = StrictForm({}, [])
    try:
        for name, value in parts.multi_items():
            name = _decode(name, "The name of a field")
            if isinstance(value, UploadFile):
                value.filename = _decode(value.filename or "", "The name of a file")[:100]
                form.files.append((name, value))
            elif name in form.fields:
                raise Problem("invalid-request", f"The form has the field {name[:80]!r} twice.")
            else:
                form.fields[name] = _decode(value, f"The field {name[:80]!r}")
        if not parser.complete:
            raise Problem("not-a-form", "It is cut off: its last boundary is missing.")
        yield form
    finally:
        await parts.close()


def _decode(read: str, what: str) -> str:
    try:
        return read.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise Problem("not-a-form", f"{what} is not in UTF-8.") from None
