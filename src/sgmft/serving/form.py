"""A form in a request's body, read strictly: complete, and its texts in UTF-8."""

from __future__ import annotations

import re
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sgmft.data.posts import Attachment
from sgmft.serving.limits import Limits
from sgmft.serving.problems import Problem

MAX_FIELDS = 16

_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)  # RFC 2046


class Form(NamedTuple):
    """What a form holds.

    Attributes:
        fields: the texts, by name.
        files: the files by name, of which several may have the same; "" is a file without a name.
    """

    fields: dict[str, str]
    files: dict[str, list[Attachment]]


class _Parser(MultiPartParser):
    complete = False

    def on_end(self) -> None:
        self.complete = True
        super().on_end()


async def read_form(request: Request, limits: Limits) -> Form:
    """The form in the body. Raises Problem."""
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise Problem("not-a-form", "Its type has no boundary as RFC 2046 describes it.")
    # Latin-1 has a character for each byte: nothing is lost before `_told` reads them as UTF-8,
    # which is all that RFC 7578 knows, whatever charset the request names.
    kind = f'multipart/form-data; charset=latin-1; boundary="{boundary}"'
    files = limits.posts * limits.pictures
    parser = _Parser(
        Headers({"content-type": kind}),
        request.stream(),
        max_files=files,
        max_fields=MAX_FIELDS,
        max_part_size=limits.body,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("not-a-form", error.message) from None
    found = Form({}, {})
    try:
        for name, value in form.multi_items():
            name = _told(name, "The name of a field")
            if isinstance(value, UploadFile):
                called = _told(value.filename or "", "The name of a file")[:100]
                file = Attachment(await value.read(), called)
                found.files.setdefault(name, []).append(file)
            elif name in found.fields:
                raise Problem("invalid-request", f"The form has the field {name[:80]!r} twice.")
            else:
                found.fields[name] = _told(value, f"The field {name[:80]!r}")
    finally:
        await form.close()
    if not parser.complete:
        raise Problem("not-a-form", "It is cut off: its last boundary is missing.")
    return found


def _told(read: str, what: str) -> str:
    try:
        return read.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise Problem("not-a-form", f"{what} is not in UTF-8.") from None
