"""Problem documents (RFC 9457): why a request is refused."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from starlette.responses import JSONResponse

from sgmft.errors import Message


class _Kind(NamedTuple):
    status: int
    title: str
    meaning: str


_FILE = Path(__file__).with_suffix(".toml")
PROBLEMS = {x: _Kind(**y) for x, y in tomllib.loads(_FILE.read_text("utf-8")).items()}
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 the standard's own word
    """Ends a request with a problem document.

    `detail` is the mistake in this request, and its place; by default the meaning of its kind, with
    `values` the template of a `Message`. After `retry` seconds it is worth another try.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        retry: int | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        **values: Any,
    ) -> None:
        self.kind, self.retry, self.errors = kind, retry, errors
        self.detail = Message(detail, **values) if values else detail
        super().__init__(self.detail or PROBLEMS[kind].title)

    def response(self) -> JSONResponse:
        """Return the response with its document."""
        kind = PROBLEMS[self.kind]
        document: dict[str, Any] = {"type": f"/problems/{self.kind}", "title": kind.title}
        document |= {"status": kind.status, "detail": self.detail or kind.meaning}
        document |= {"errors": self.errors} if self.errors else {}
        headers = {} if self.retry is None else {"Retry-After": str(self.retry)}
        if kind.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="sgmft", charset="UTF-8"'
        if kind.status == 408:
            headers["Connection"] = "close"  # the rest may never come
        return JSONResponse(document, kind.status, headers, MEDIA_TYPE)
