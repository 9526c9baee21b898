"""What a browser may ask of the page's framework, and what the page may ask of a browser."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgmft.serving.guard import as_response
from sgmft.serving.problems import Problem

_NEEDED = re.compile(
    r"/(config|theme\.css|favicon\.ico|(assets|static)/.+|gradio_api/(info|startup-events|app_id"
    r"|heartbeat/\w+|queue/(join|data)|upload|upload_progress|cancel|reset|file=/.+))?/?"
)

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; object-src 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

_UPLOAD = "/gradio_api/upload"

_UPLOADS = 16  # at a time; a visitor's browser sends one after the other

_MOST = 4 * 1024 * 1024  # bytes of a request that is no upload


class Gate:
    """Middleware around a mounted page.

    The framework has many more addresses than the page needs (proxies, downloads, remote calls,
    settings): they are not there. Requests of other sites are not answered with leave to read the
    answer, and a browser is told to fetch nothing from anywhere else.

    Args:
        upload: bytes that may come in one upload.
        given: where the framework puts uploads, the parts of one that breaks off as well.
        kept: seconds after which those are removed.
        changed: makes the page's HTML of the framework's.
    """

    def __init__(
        self, app: ASGIApp, upload: int, given: Path, kept: float, changed: Callable[[str], str]
    ) -> None:
        self.app, self._upload, self._changed = app, upload, changed
        self._given, self._kept, self._uploads = given, kept, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if problem := self._problem(scope, path):
            await as_response(problem)(scope, receive, send)
            return
        left_out = {b"origin"} | ({b"accept-encoding"} if path in ("", "/") else set())
        scope["headers"] = [x for x in scope["headers"] if x[0] not in left_out]
        sender = self._html(send) if path in ("", "/") else _with_headers(send)
        if path == _UPLOAD:
            await self._take(scope, receive, sender)
        else:
            await self.app(scope, receive, sender)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An upload, one of so many; what the framework has of one that breaks off, it forgets."""
        if self._uploads == _UPLOADS:
            raise Problem("busy", f"{_UPLOADS} uploads are coming in.", retry=5)
        self._uploads += 1
        try:
            await self.app(scope, receive, send)
        except Exception:
            asyncio.get_running_loop().call_later(self._kept, self._clear)
            raise
        finally:
            self._uploads -= 1

    def _clear(self) -> None:
        for file in self._given.glob("tmp*"):
            with suppress(OSError):
                if file.is_file() and time.time() - file.stat().st_mtime >= self._kept:
                    file.unlink()

    def _problem(self, scope: Scope, path: str) -> Problem | None:
        if not _NEEDED.fullmatch(path):
            return Problem("not-found")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return Problem("not-allowed")
        headers = dict(scope["headers"])
        most = self._upload if path == _UPLOAD else _MOST
        length = headers.get(b"content-length", b"" if scope["method"] == "POST" else b"0")
        if b"transfer-encoding" in headers:  # which counts, whatever the length that is told
            length = b""
        if not length.isdigit() or int(length) > most:
            return Problem("body-too-large", f"At most {most / 2**20:g} MiB are read.")
        return None

    def _html(self, send: Send) -> Send:
        """Sends the framework's page as ours."""
        start: Message = {}
        parts: list[bytes] = []

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = b"".join(parts)
            if start["status"] == 200 and body:
                body = self._changed(body.decode()).encode()
            headers = [x for x in start["headers"] if x[0] != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            start["headers"] = [*headers, length, (b"cache-control", b"no-store"), *_HEADERS]
            await send(start)
            await send({"type": "http.response.body", "body": body})

        return sent


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS]
        await send(message)

    return sent
