"""Limits of requests, and problem documents (RFC 9457): why one is refused."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from starlette.responses import JSONResponse

from sgmft.data.preprocessing.images import MAX_PIXELS
from sgmft.errors import Message, SgmftError
from sgmft.features.encode import MAX_IMAGES


class _Kind(NamedTuple):
    status: int
    title: str
    meaning: str


_FILE = Path(__file__).with_suffix(".toml")
PROBLEMS = {x: _Kind(**y) for x, y in tomllib.loads(_FILE.read_text("utf-8")).items()}
MEDIA_TYPE = "application/problem+json"
Errors = Sequence[Mapping[str, str]]


class Problem(Exception):  # noqa: N818 the standard's own word
    """Ends a request with a problem document; after `retry` seconds it is worth another try.

    `detail` is the mistake in this request, with `values` the template of a `Message`.
    """

    def __init__(
        self, kind: str, detail: str = "", *, retry: int = 0, errors: Errors = (), **values: Any
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
        headers = {"Retry-After": str(self.retry)} if self.retry else {}
        if kind.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="sgmft", charset="UTF-8"'
        if kind.status == 408:
            headers["Connection"] = "close"  # the rest may never come
        return JSONResponse(document, kind.status, headers, MEDIA_TYPE)


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of all of them together; docs/serving.md gives the reasons."""

    body: int = 32 * 1024 * 1024  # bytes of a request's body
    posts: int = 64  # of one request
    pictures: int = 16  # picture and video files of one post
    pixels: int = 50_000_000  # of one picture, read from its header before it is decoded
    text: int = 20_000  # characters of one post's text
    # until a request's headers are complete, from then until its body is, from then until the
    # worker takes it, and until its result is there; of an upload to the page, to its next part
    seconds: float = 30.0
    requests: int = 64  # that are read, wait or are answered at a time; more are refused at once
    connections: int = 500  # open at a time, the page's too; more are refused at once
    batch: int = 32  # posts that the model sees together, from as many requests as are waiting

    @property
    def upload(self) -> int:
        """Bytes of a table and of its pictures that are given to the page, each."""
        return 8 * self.body

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most = {"pictures": MAX_IMAGES, "pixels": MAX_PIXELS}.get(name, 10**12)
            if not 1 <= value <= most:  # NaN is neither
                raise SgmftError(f"The limit of {name} must be from 1 to {most:,}, not {value:,}.")


class Places:
    """Room for so many at a time, of which `taken` are there; the next is refused."""

    def __init__(self, count: int) -> None:
        self._count, self.taken = count, 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold one place; Problem where all are taken."""
        if self.taken >= self._count:
            raise Problem("busy", f"{self.taken} requests are being answered.", retry=1)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
